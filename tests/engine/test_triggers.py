"""Which steps start runs, and what is wrong with one that cannot."""

from typing import Any

import pytest

from insula.engine.document import check, fill, warnings
from insula.engine.timetable import Timetable
from insula.engine.triggers import BadTrigger, read_schedule


def scheduled(key: str = "t", entered: object = None, **more: Any) -> dict[str, Any]:
    given = {"schedule": "3600"} if entered is None else entered
    service = {"type": "SCHEDULER", "action": "ON_SCHEDULE", "input": given}
    return {"type": "service", "key": key, "service": service, **more}


def found(*steps: dict[str, Any]) -> list[tuple[str, str]]:
    document, problems = check(fill({"key": "w", "steps": list(steps)}))
    assert document is not None, problems
    return [(".".join(each.path), each.code) for each in warnings(document)]


@pytest.mark.parametrize("schedule", ["60", "86400", "2592000", "0 0 * * 1-5", "0 0 * * 6,0"])
@pytest.mark.parametrize("timezone", [None, "Europe/Berlin"])
def test_what_the_contract_names_is_right(schedule: str, timezone: str | None) -> None:
    assert found(scheduled(entered={"schedule": schedule, "timezone": timezone})) == []


def test_seconds_count_from_the_deploy_and_missed_is_ours() -> None:
    read = read_schedule(scheduled(entered={"schedule": "60", "missed": "all"})["service"], 5)
    assert read.timetable == Timetable(every=60, anchor=5)
    assert read.missed == "all"


@pytest.mark.parametrize(
    ("entered", "path", "code"),
    [
        ("{{input.x}}", "input", "type"),
        ({}, "input.schedule", "empty"),
        ({"schedule": None}, "input.schedule", "empty"),
        ({"schedule": 60}, "input.schedule", "type"),
        ({"schedule": "9"}, "input.schedule", "schedule"),
        ({"schedule": "9" * 5000}, "input.schedule", "schedule"),
        ({"schedule": "61 * * * *"}, "input.schedule", "schedule"),
        ({"schedule": "0 0 30 2 *"}, "input.schedule", "schedule"),
        ({"schedule": "60", "timezone": "Mars/Olympus"}, "input.timezone", "timezone"),
        ({"schedule": "60", "timezone": 3}, "input.timezone", "type"),
        ({"schedule": "60", "missed": "never"}, "input.missed", "option"),
        ({"schedule": "60", "missed": []}, "input.missed", "option"),
    ],
)
def test_what_cannot_be_used_is_said_with_its_path(entered: object, path: str, code: str) -> None:
    assert found(scheduled(entered=entered)) == [(f"steps.0.service.{path}", code)]
    with pytest.raises(BadTrigger):
        read_schedule(scheduled(entered=entered)["service"])


def test_a_trigger_follows_no_step_and_serves_no_model() -> None:
    model = {"type": "model", "key": "m", "provider": {"provider": "mock", "tools": ["u"]}}
    model["provider"]["messages"] = "x"  # type: ignore[index]  # an object
    assert found(
        {"type": "code", "key": "a", "code": "1", "destinations": ["t"]},
        scheduled("t"),
        scheduled("u"),
        model,
    ) == [("steps.3.provider.tools.0", "trigger"), ("steps.1", "trigger")]
