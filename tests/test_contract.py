"""The contract helper itself: it accepts what is right, names what is wrong, follows references."""

import pytest

from tests.contract import needs_contract, validate

pytestmark = needs_contract

VERSION = {
    "id": "workv_1",
    "app_id": "app_1",
    "workflow_id": "work_1",
    "description": None,
    "version": 1,
    "notes": None,
    "created_at": "2026-01-31T12:00:00.000Z",
    "key": "sum",
    "input": {},
    "input_default": None,
    "input_options": None,
    "steps": [{"type": "code", "key": "one", "code": "return 1"}],
}


def test_a_right_instance_passes() -> None:
    validate(VERSION, "WorkflowVersionSchema")


def test_a_wrong_one_is_told_where() -> None:
    with pytest.raises(AssertionError, match="created_at"):
        validate({**VERSION, "created_at": 3}, "WorkflowVersionSchema")


def test_references_are_followed() -> None:
    with pytest.raises(AssertionError, match="steps/0"):
        validate({**VERSION, "steps": [{"type": "code"}]}, "WorkflowVersionSchema")


def test_an_unknown_schema_is_an_error() -> None:
    with pytest.raises(KeyError, match="NoSuchSchema"):
        validate({}, "NoSuchSchema")
