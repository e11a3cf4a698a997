"""The steps that start runs: which steps of a document are triggers, and when they are due.

A trigger is the ``ON_…`` action of a service. ``SCHEDULER`` ``ON_SCHEDULE`` has an input
``{schedule, timezone?, missed?}``: seconds as text, or a cron expression.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast, get_args

from insula.engine.document_steps import AnyStep, BranchStep, ServiceStep
from insula.engine.document_words import Path, Problem, problem
from insula.engine.inputs_kinds import kind_of
from insula.engine.timetable import BadTimetable, Policy, Timetable, check

SCHEDULER: Final = "SCHEDULER"
ON_SCHEDULE: Final = "ON_SCHEDULE"

_INPUT: Final[Path] = ("service", "input")
_POLICIES: Final = get_args(Policy)


@dataclass(frozen=True, slots=True)
class Trigger:
    """When a step starts runs, and what is done about ticks that were missed."""

    timetable: Timetable
    missed: Policy


class BadTrigger(ValueError):
    """A setting of a trigger that cannot be used: where in the step it stands, and why."""

    def __init__(self, path: Path, code: str, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.code = code


def is_trigger(step: AnyStep) -> bool:
    """Say whether a step starts runs and is not called."""
    if not isinstance(step, ServiceStep):
        return False
    action = step.service.get("action")
    return isinstance(action, str) and action.startswith("ON_")


def is_schedule(service: dict[str, Any]) -> bool:
    """Say whether a service step's ``service`` is the scheduler's trigger."""
    return service.get("type") == SCHEDULER and service.get("action") == ON_SCHEDULE


def read_schedule(service: dict[str, Any], anchor: int = 0) -> Trigger:
    """Read the scheduler's trigger; intervals count from ``anchor``.

    Raises:
        BadTrigger: a setting cannot be used.
    """
    given = service.get("input")
    if not isinstance(given, dict):
        words = f"is {kind_of(given)}; give an object with schedule and timezone"
        raise BadTrigger(_INPUT, "type", words)
    missed = given.get("missed", "once")
    if missed not in _POLICIES:
        raise BadTrigger((*_INPUT, "missed"), "option", f"must be one of: {', '.join(_POLICIES)}")
    timetable = _timetable(given, anchor)
    try:
        check(timetable)
    except BadTimetable as error:
        name = "timezone" if error.part == "timezone" else "schedule"
        raise BadTrigger((*_INPUT, name), name, str(error)) from error
    return Trigger(timetable, cast(Policy, missed))


def _timetable(given: dict[str, Any], anchor: int) -> Timetable:
    schedule, timezone = given.get("schedule"), given.get("timezone")
    if schedule is None or schedule == "":
        words = "is empty; give seconds such as 3600, or a cron expression"
        raise BadTrigger((*_INPUT, "schedule"), "empty", words)
    for name, value in (("schedule", schedule), ("timezone", timezone)):
        if not isinstance(value, str | None):
            raise BadTrigger((*_INPUT, name), "type", f"is {kind_of(value)}; give a text")
    zone = timezone or "UTC"
    if schedule.isascii() and schedule.isdigit():
        # Longer than any interval, and not so long that reading it takes time.
        return Timetable(every=int(schedule[:12]), timezone=zone, anchor=anchor)
    return Timetable(cron=" ".join(schedule.split()), timezone=zone, anchor=anchor)


def trigger_problems(steps: list[AnyStep]) -> Iterator[Problem]:
    """Yield what a version may not be deployed with: triggers that cannot start a run."""
    triggers = {step.key: place for place, step in enumerate(steps) if is_trigger(step)}
    if not triggers:
        return
    for key in sorted(triggers.keys() & _targets(steps), key=triggers.__getitem__):
        path = ("steps", str(triggers[key]))
        words = f'"{key[:40]}" starts runs and follows no step; remove the edges that lead to it'
        yield Problem(path, "trigger", words)
    for place in triggers.values():
        step = steps[place]
        assert isinstance(step, ServiceStep)
        if is_schedule(step.service):
            try:
                read_schedule(step.service)
            except BadTrigger as error:
                yield problem(("steps", str(place), *error.path), error.code, str(error))


def _targets(steps: list[AnyStep]) -> set[str]:
    targets: set[str] = set()
    for step in steps:
        targets.update(step.destinations)
        if isinstance(step, BranchStep):
            targets.update(step.else_)
            targets.update(*(each.destinations for each in step.conditions.values()))
    return targets
