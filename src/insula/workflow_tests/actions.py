"""What is done with tests and shared expectations: making, changing, executing, cancelling."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection

from insula.errors import BadInput, Conflict, FieldError
from insula.kit import json
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.runs.services import RunServices
from insula.web.auth import Principal, unknown
from insula.web.idempotency import Idempotency, claim
from insula.workflow_tests import expectations, repository
from insula.workflow_tests.rows import DRAFT, RUNNING, WorkflowTest
from insula.workflow_tests.schemas import CreateTest, ExpectationItem, UpdateTest

VALUE_MAX = 5 * 1024 * 1024
"""Bytes of a test's input, of its defaults and of its context."""
_VALUES = ("input", "input_default", "input_context")


async def create(
    services: RunServices,
    principal: Principal,
    workflow_id: str,
    fields: CreateTest,
    key: Idempotency | None,
    *,
    recording: bytes | None = None,
    test_id: str | None = None,
) -> str:
    """Make a test, once for each idempotency key; return its id, ``test_id`` if it was promised.

    Raises:
        BadInput: what it expects, or a value, cannot be used.
        Conflict: the workflow has too many.
    """
    now = now_ms()
    made = WorkflowTest(
        id=test_id or new_id("test"),
        app_id=principal.app_id,
        workflow_id=workflow_id,
        name=fields.name,
        status=DRAFT,
        input=_encoded(fields, "input"),
        input_default=_encoded(fields, "input_default"),
        input_context=_encoded(fields, "input_context"),
        step_key=fields.step_key,
        expectations=json.encode(_items(fields.expectations, {})),
        passing=0,
        failing=0,
        run_id=None,
        error=None,
        version=None,
        ran=None,
        created_at=now,
        updated_at=now,
        recorded=recording is not None,
    )

    def unit(connection: Connection) -> str:
        earlier = None if key is None else claim(connection, principal, key, made.id)
        if earlier is not None:
            return earlier
        _check_shared(connection, workflow_id, fields.expectations)
        repository.store(connection, made, recording)
        return made.id

    return await services.database.write(unit)


async def update(
    services: RunServices,
    principal: Principal,
    workflow_id: str,
    test_id: str,
    fields: UpdateTest,
) -> None:
    """Change a test. What is left out stays, and so does what became of its last execution.

    Raises:
        NotFound: there is none.
        BadInput: what it expects, or a value, cannot be used.
        Conflict: it is RUNNING, and more than its name would change.
    """
    given = fields.model_fields_set
    values: dict[str, object] = {n: _encoded(fields, n) for n in _VALUES if n in given}
    if "step_key" in given:
        values["step_key"] = fields.step_key

    def unit(connection: Connection) -> bool:
        test = repository.find(connection, principal.app_id, workflow_id, test_id)
        if test is None:
            return False
        changed = dict(values)
        if "expectations" in given:
            _check_shared(connection, workflow_id, fields.expectations)
            before = {item["key"]: item for item in test.items()}
            items = _items(fields.expectations, before)
            changed |= {"expectations": json.encode(items), **_counts(items)}
        if changed and test.status == RUNNING:
            raise Conflict("The test is running: cancel it or wait, then change it")
        if changed:
            changed["ran"] = None  # what it says now has not been tried on anything
        if fields.name is not None:
            changed["name"] = fields.name
        if changed:
            repository.change(connection, test, changed)
        return True

    if not await services.database.write(unit):
        raise unknown()


def _encoded(fields: BaseModel, name: str) -> bytes | None:
    given = getattr(fields, name)
    if given is None:
        return None
    try:
        text = json.encode(given)
    except json.InvalidJson as error:
        words = f"{name} cannot be stored: store files first and name them by their ids"
        raise BadInput(words, [FieldError((name,), "json", words)]) from error
    if len(text) > VALUE_MAX:
        words = f"{name} is over {VALUE_MAX:,} bytes; store files first and name them by their id"
        raise BadInput(words, [FieldError((name,), "too_long", words)])
    return text


def _items(
    given: list[ExpectationItem], before: Mapping[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return what is stored of expectations; what became of one stays while it says the same."""
    items: dict[str, dict[str, Any]] = {}
    for place, each in enumerate(given):
        if each.key in items:
            words = f"expectations.{place}.key is the key of another one: give each its own"
            raise BadInput(words, [FieldError(("expectations", str(place), "key"), "twice", words)])
        if each.expectation_id and each.script and each.script.strip():
            words = f"expectations.{place} has a script and an expectation_id: leave one out"
            path = ("expectations", str(place), "script")
            raise BadInput(words, [FieldError(path, "one_of", words)])
        item = each.model_dump(exclude_none=True)
        said = ("expectation_id", "script")
        known = before.get(each.key)
        if known is not None and all(known.get(n) == item.get(n) for n in said):
            item = {**known, **item}
        items[each.key] = item
    return list(items.values())


def _counts(items: list[dict[str, Any]]) -> dict[str, int]:
    judged = [item.get("status") for item in items]
    return {"passing": judged.count("PASSED"), "failing": judged.count("FAILED")}


def _check_shared(connection: Connection, workflow_id: str, given: list[ExpectationItem]) -> None:
    named = [each.expectation_id for each in given if each.expectation_id]
    known = expectations.scripts_of(connection, workflow_id, named)
    words = "names no expectation of this workflow: choose another"
    errors = [
        FieldError(("expectations", str(place), "expectation_id"), "unknown", f"it {words}")
        for place, each in enumerate(given)
        if each.expectation_id and each.expectation_id not in known
    ]
    if errors:
        raise BadInput(f"expectations: an expectation_id {words}", errors)
