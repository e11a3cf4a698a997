"""The contract helper itself: it accepts what is right, names what is wrong, follows references."""

from typing import Any

import pytest

from tests.contract import is_valid, needs_contract, validate
from tests.contract_examples import filled, schema_of
from tests.contract_members import Seen, all_members

pytestmark = needs_contract
ANSWERS = (
    "AppFileSchema",
    "AppFileUploadSchema",
    "ExtendedCollectionSchema",
    "ExtendedRecordSchema",
    "RecordStatusSchema",
    "RunSchema",
    "RunStepSchema",
    "TagSchema",
    "WebhookSchema",
    "WorkflowExpectationSchema",
    "WorkflowSchema",
    "WorkflowTestSchema",
    "WorkflowVersionSchema",
)

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


def slim(name: str) -> Any:
    """Return a value with all its members, but for the steps in it."""

    def without(value: Any) -> Any:
        if isinstance(value, list):
            return [without(one) for one in value]
        if isinstance(value, dict):
            kept = {key: without(one) for key, one in value.items()}
            kept |= {"steps": []} if isinstance(kept.get("steps"), list) else {}
            return kept | ({"input": {}} if isinstance(kept.get("input"), dict) else {})
        return value

    return without(filled(name))


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


def test_a_moment_and_an_address_have_their_forms() -> None:
    with pytest.raises(AssertionError, match="created_at"):
        validate({**VERSION, "created_at": "yesterday"}, "WorkflowVersionSchema")
    with pytest.raises(AssertionError, match="url"):
        validate({**filled("WebhookSchema"), "url": "here"}, "WebhookSchema")


def test_an_output_has_to_be_its_steps() -> None:
    step = {"status": "COMPLETED", "key": "a", "type": "model", "start": 0}
    step |= {"output": {"model": "m"}}
    run = {**slim("RunSchema"), "output": {"a": step}}
    validate(run, "RunSchema")
    with pytest.raises(AssertionError, match="output/a/output: 'model' is a required property"):
        validate({**run, "output": {"a": {**step, "output": {}}}}, "RunSchema")
    http = {**step, "type": "http_request", "output": [{"ok": True, "status": 200}]}
    with pytest.raises(AssertionError, match="headers"):
        validate({**run, "output": {"a": http}}, "RunSchema")


@pytest.mark.parametrize("name", ANSWERS)
def test_what_lacks_a_member_or_has_another_choice_is_told(name: str) -> None:
    whole = slim(name)
    validate(whole, name)
    schema = schema_of(name)
    for member in schema["required"]:
        assert not is_valid({key: one for key, one in whole.items() if key != member}, name)
    for member, told in schema["properties"].items():
        if "enum" in told:
            assert not is_valid({**whole, member: "NONE OF THEM"}, name)


def test_members_are_collected() -> None:
    seen = Seen()
    whole = filled("WorkflowSchema")
    seen.answer({**whole, "template_id": None}, "GET", "/apps/{app_id}/workflows/{workflow_id}")
    assert "WorkflowSchema.version.notes" in seen.members
    assert "FieldSelectOptionSchema.icon" in seen.members
    assert "WorkflowSchema.template_id" not in seen.members
    assert seen.members <= all_members()
