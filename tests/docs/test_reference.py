"""The reference is complete: settings, routes, step types, error codes."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args

import httpx
import pytest

from insula.engine import failures
from insula.engine.document import AnyStep
from insula.settings import Settings, load_settings

from .pages import REFERENCE, ROOT, reference

SOURCE = ROOT / "src" / "insula"


def test_every_setting_stands_there() -> None:
    text = (REFERENCE / "settings.md").read_text("utf-8")
    settings = {f"INSULA_{name.upper()}" for name in Settings.model_fields}
    assert not {name for name in settings if f"`{name}`" not in text}


async def test_every_route_stands_there(tmp_path: Path) -> None:
    open_insula = import_module("insula.app").open_insula
    settings = load_settings(data_dir=tmp_path, port=0, admin_key="insadm_" + "x" * 40)
    async with open_insula(settings) as insula:
        transport = httpx.ASGITransport(insula.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://insula") as client:
            paths = (await client.get("/openapi.json")).json()["paths"]
    told = re.sub(r"\{[^}]*\}", "{}", reference())
    missing = [
        f"{method.upper()} {path}"
        for path, operations in paths.items()
        for method in operations
        if f"`{method.upper()} {re.sub(r'{[^}]*}', '{}', path)}" not in told
    ]
    assert not missing


def test_every_step_type_stands_there() -> None:
    text = reference()
    union = get_args(AnyStep)[0]
    types = {
        get_args(get_args(member)[0].model_fields["type"].annotation)[0]
        for member in get_args(union)
    }
    assert len(types) == 9
    assert not {name for name in types if f"`{name}`" not in text}


def literal_codes(tree: ast.AST, call: str, place: int) -> Iterator[str]:
    """Yield the constant codes with which an error is made in a module."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or getattr(node.func, "id", None) != call:
            continue
        given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        given += node.args[place : place + 1]
        yield from (
            value.value
            for value in given
            if isinstance(value, ast.Constant) and isinstance(value.value, str)
        )


@pytest.mark.parametrize(("call", "place"), [("StepFailure", 1), ("FieldError", 1), ("Problem", 1)])
def test_every_error_code_stands_there(call: str, place: int) -> None:
    codes = set()
    for path in SOURCE.rglob("*.py"):
        codes |= set(literal_codes(ast.parse(path.read_text("utf-8")), call, place))
    if call == "StepFailure":
        codes |= set(re.findall(r"``(\w+)``", failures.StepFailure.__doc__ or "")) - {
            "code",
            "message",
        }
    text = reference()
    assert codes
    assert not {code for code in codes if f"`{code}`" not in text}


def test_every_error_status_stands_there() -> None:
    text = (REFERENCE / "errors.md").read_text("utf-8")
    statuses = re.findall(r"^    .── \w+ +(\d{3})", (SOURCE / "errors.py").read_text("utf-8"), re.M)
    assert len(statuses) >= 10
    assert not {status for status in statuses if status not in text}
