"""Whatever stands in whatever place of a step: refused, or stored as the contract knows steps."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from tests.acceptance.everything import whole_steps
from tests.contract import is_valid, needs_contract

from insula.engine.document import check, fill

FREE = ("metadata", "web_search")
"""Members that hold what they like."""


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where anything stands, but for what is free."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for name, one in inner:
        yield (*here, name)
        if isinstance(one, dict | list) and name not in FREE:
            yield from places(one, (*here, name))


def with_one(step: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """Return a step with another value in one place."""
    made = deepcopy(step)
    inner: Any = made
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    return made


NAMES = {
    "note": "StepNoteSchema",
    "branch": "StepBranchSchema",
    "code": "StepCodeSchema",
    "model": "StepModelSchema",
    "http_request": "StepHttpRequestSchema",
    "browser": "StepBrowserSchema",
    "workflow": "StepWorkflowSchema",
}
FIELDS = {
    "file": "FieldFileSchema",
    "number": "FieldNumberSchema",
    "string": "FieldStringSchema",
    "boolean": "FieldBooleanSchema",
    "select": "FieldSelectSchema",
    "content": "FieldContentSchema",
    "connection": "FieldConnectionSchema",
}
VALUES: tuple[Any, ...] = (None, 5, "text", [], {})


def stored(step: dict[str, Any]) -> dict[str, Any] | None:
    """Return a step as it would be stored, ``None`` if it is refused."""
    body = fill({"key": "w", "steps": [step]})
    document, problems = check(body)
    return None if document is None or problems else body["steps"][0]


@needs_contract
@pytest.mark.parametrize("kind", NAMES)
def test_any_value_in_any_place_of_a_step(kind: str) -> None:
    step = next(one for one in whole_steps() if one["type"] == kind)
    if kind == "model":  # its fields are an input's
        step["provider"]["tools"][0]["input"] = {"n": {"type": "number"}}
    wrong = []
    for place in places(step):
        for value in VALUES:
            kept = stored(with_one(step, place, value))
            if kept is not None and kept["type"] == kind and not is_valid(kept, NAMES[kind]):
                wrong.append(f"{'.'.join(map(str, place))} = {value!r}")
    assert not wrong, "\n".join(wrong)


@needs_contract
@pytest.mark.parametrize("kind", FIELDS)
def test_any_value_in_any_place_of_a_field(kind: str) -> None:
    whole = next(one for one in whole_steps() if one["type"] == "input")
    field = next(one for one in whole["input"].values() if one["type"] == kind)
    wrong = []
    for place in places(field):
        for value in VALUES:
            changed = with_one(field, place, value)
            kept = stored({"type": "input", "key": "form", "input": {"f": changed}})
            if kept is not None and not is_valid(kept["input"]["f"], FIELDS[kind]):
                wrong.append(f"{'.'.join(map(str, place))} = {value!r}")
    assert not wrong, "\n".join(wrong)
