"""The table of all operations: whose each is, and which errors it answers."""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest

from insula.settings import load_settings
from tests.contract import ContractFile, document, operations

from .pages import REFERENCE

PAGE = REFERENCE / "operations.md"
ROW = re.compile(r"^\| `([A-Z]+) ([^`]+)` \| (contract|ours) \| ([\d ]*) \|$", re.MULTILINE)


@pytest.fixture
async def described(tmp_path: Path) -> dict[tuple[str, str], Any]:
    open_insula = import_module("insula.app").open_insula
    settings = load_settings(data_dir=tmp_path, port=0, admin_key="insadm_" + "x" * 40)
    async with open_insula(settings) as insula:
        transport = httpx.ASGITransport(insula.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://insula") as client:
            paths = (await client.get("/openapi.json")).json()["paths"]
    return {(m.upper(), path): told for path, ms in paths.items() for m, told in ms.items()}


async def test_every_operation_stands_there_with_its_errors(
    described: dict[tuple[str, str], Any],
) -> None:
    told = {(m, path): errors for m, path, _, errors in ROW.findall(PAGE.read_text("utf-8"))}
    missing = []
    for (method, path), operation in sorted(described.items(), key=lambda one: one[0][::-1]):
        errors = " ".join(sorted(code for code in operation["responses"] if code >= "400"))
        if told.get((method, path)) != errors:
            missing.append(f"| `{method} {path}` | ours | {errors} |")
    assert not missing, "operations.md lacks, or has otherwise:\n" + "\n".join(missing)


@pytest.mark.skipif(not ContractFile.present, reason="the contract does not stand beside it")
def test_what_is_the_contracts_is_told_so() -> None:
    paths = document()["paths"]
    rows = ROW.findall(PAGE.read_text("utf-8"))
    wrong = [
        (method, path)
        for method, path, whose, _ in rows
        if (whose == "contract") != (method.lower() in paths.get(path, {}))
    ]
    assert not wrong
    assert sum(whose == "contract" for _, _, whose, _ in rows) == len(operations())
