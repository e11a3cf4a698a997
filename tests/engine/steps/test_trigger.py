"""Triggers: the scheduler's begins runs and is not called; others come later."""

from typing import Any

from tests.engine.stage import play, step

from insula.kit import json


def trigger(key: str, *to: str, **given: Any) -> dict[str, Any]:
    entered = {"schedule": "3600", "timezone": "Europe/Berlin"}
    service = {"type": "SCHEDULER", "action": "ON_SCHEDULE", "input": entered}
    return step("service", key, *to, service=service, **given)


async def test_a_run_that_begins_at_it_hears_when_it_was_due() -> None:
    told = {"scheduled_at": "2026-01-31T12:00:00.000Z", "missed": 2}
    run = await play(
        trigger("T", "A"), step("code", "A", code="yes"), start="T", trigger=json.raw(told)
    )
    assert run.statuses == {"T": "COMPLETED", "A": "COMPLETED"}
    assert run.outputs["T"] == told


async def test_one_that_somebody_started_by_hand_is_due_now() -> None:
    run = await play(trigger("T"))
    output = run.outputs["T"]
    assert output["scheduled_at"] == output["fired_at"]
    assert (output["timezone"], output["missed"]) == ("Europe/Berlin", 0)


async def test_a_run_that_begins_elsewhere_does_not_reach_it() -> None:
    run = await play(
        step("input", "I", "A", input={}), trigger("T", "A"), step("code", "A", code="yes")
    )
    assert run.statuses == {"I": "COMPLETED", "A": "COMPLETED"}


async def test_it_is_not_called() -> None:
    run = await play(step("code", "A", "T", code="yes"), trigger("T"))
    assert run.statuses == {"A": "COMPLETED", "T": "FAILED"}
    assert "starts runs, and is not called" in (run.ended.error or "")


async def test_other_triggers_are_not_available() -> None:
    run = await play(step("service", "S", service={"type": "GMAIL", "action": "ON_SENT_EMAIL"}))
    assert run.ended.code == "not_available"
