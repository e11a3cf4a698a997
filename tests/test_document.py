"""Our own document against the contract: every operation, parameter, member, type and choice."""

import asyncio
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from insula.settings import load_settings
from tests.contract import document, needs_contract, operations
from tests.contract_promises import Comparison

ANSWERS = {
    "ServiceSchema": "a draft's action may not be chosen yet",
    "IncludeRecordRuleSchema.verbose": "a query's parameter that strayed into the answer",
    "RecordRuleSchema.verbose": "the same",
    "CreditsCallUsageSchema.calls": "a tool's own calls are in its total",
    "CreditsRunUsageSchema.calls": "a run's calls stand with their steps",
    "CreditsRecordUsageSchema.calls": "a record's calls stand with their steps",
    "RunSchema.usage.calls": "the same",
    "WorkflowTestSchema.run.usage.calls": "the same",
    "RecordRuleSchema.run.usage.calls": "the same",
}
"""Places in answers where ours may say less, and why."""
REQUESTS = {
    f"{name}.retention": "the contract's third choice, which is anything, stands for null"
    for name in ("CreateRun", "ReplayRun", "UpdateRetention")
}
"""Places in requests where ours takes less, and why."""


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return asyncio.run(_read(tmp_path_factory.mktemp("data")))


async def _read(folder: Path) -> dict[str, Any]:
    open_insula = import_module("insula.app").open_insula
    settings = load_settings(data_dir=folder, port=0, admin_key="insadm_" + "x" * 40)
    async with open_insula(settings) as insula:
        transport = httpx.ASGITransport(insula.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://insula") as client:
            found: dict[str, Any] = (await client.get("/openapi.json")).json()
    return found


def _pairs(ours: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for method, path in operations():
        theirs = document()["paths"][path][method.lower()]
        yield f"{method} {path}", ours["paths"].get(path, {}).get(method.lower(), {}), theirs


def _answer(operation: dict[str, Any]) -> dict[str, Any]:
    content = operation.get("responses", {}).get("200", {}).get("content", {})
    schema: dict[str, Any] = content.get("application/json", {}).get("schema", {})
    return schema


@needs_contract
def test_every_operation_takes_the_same_parameters(ours: dict[str, Any]) -> None:
    wrong = []
    for name, own, theirs in _pairs(ours):
        have = {(p["in"], p["name"]) for p in own.get("parameters", ())}
        wanted = {(p["in"], p["name"]) for p in theirs.get("parameters", ())}
        wrong += [f"{name}: {where} {what}" for where, what in sorted(wanted - have)]
        wrong += [] if own else [f"{name}: is not there"]
    assert not wrong, "\n".join(wrong)


@needs_contract
def test_answers_are_what_the_contract_says(ours: dict[str, Any]) -> None:
    comparison = Comparison(ours, document(), frozenset(ANSWERS), answers=True)
    wrong: dict[str, None] = {}
    for name, own, theirs in _pairs(ours):
        wrong |= dict.fromkeys(comparison.problems(_answer(own), _answer(theirs), name))
    assert not wrong, "\n".join(wrong)


@needs_contract
def test_what_the_contract_sends_is_taken(ours: dict[str, Any]) -> None:
    comparison = Comparison(document(), ours, frozenset(REQUESTS), answers=False)
    wrong: dict[str, None] = {}
    for name, own, theirs in _pairs(ours):
        given = theirs.get("requestBody", {}).get("content", {})
        taken = own.get("requestBody", {}).get("content", {})
        for kind, content in given.items():
            if kind not in taken:
                wrong[f"{name}: {kind} is not taken"] = None
                continue
            problems = comparison.problems(content["schema"], taken[kind]["schema"], name)
            wrong |= dict.fromkeys(problems)
    assert not wrong, "\n".join(wrong)


def test_operations_are_named_and_described(ours: dict[str, Any]) -> None:
    told = [operation for methods in ours["paths"].values() for operation in methods.values()]
    names = [operation["operationId"] for operation in told]
    assert len(names) == len(set(names))
    assert all(name.replace("_", "").isalnum() for name in names)
    assert not [o["operationId"] for o in told if not o.get("description") or not o.get("summary")]


def test_every_success_has_a_shape(ours: dict[str, Any]) -> None:
    """But for deletes, which answer null, and what is no JSON."""
    bare = [
        operation["operationId"]
        for methods in ours["paths"].values()
        for method, operation in methods.items()
        if method != "delete"
        and "application/json" in operation["responses"]["200"].get("content", {})
        and not _answer(operation)
    ]
    assert not bare


def test_examples_are_what_they_are_examples_of(ours: dict[str, Any]) -> None:
    checked = 0
    for methods in ours["paths"].values():
        for operation in methods.values():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            if "example" in body:
                checked += 1
                schema = {**body["schema"], "components": ours["components"]}
                Draft202012Validator(schema).validate(body["example"])
    assert checked >= 8
