"""Outputs of steps that a test gives its run: they are as the steps would give them, or refused."""

from collections.abc import Iterator, Mapping
from typing import Any

from insula.engine.document import AnyStep, Document, NoteStep
from insula.engine.events import Event, RunStarted, StepEnded, StepStarted
from insula.engine.loop import loop_of
from insula.errors import BadInput, Conflict, FieldError
from insula.kit import json
from insula.runs.services import RunServices

_NAME = "input_context"
_OBJECTS = frozenset(("input", "branch", "model", "http_request", "browser", "workflow"))
"""Types whose output is an object; a code or service step gives anything."""


def faked(document: Document, context: Mapping[str, Any], now: int) -> list[Event]:
    """Return the events that a run begins with to which outputs of steps are given.

    Raises:
        BadInput: one entry for each key that names no step, and for each output that no step of its
            type gives.
    """
    steps = _steps(document)
    wrong = "names no step of this version: take it out"
    errors = [
        FieldError((_NAME, key), "unknown_step", f"{_NAME}.{key} {wrong}")
        for key in context
        if key not in steps
    ]
    if errors:
        raise BadInput(f"{_NAME} names steps that do not exist", errors)
    _check(steps, context)
    events: list[Event] = [RunStarted(now)]
    for key, output in context.items():
        step = steps[key]
        looped = loop_of(step) is not None
        events.append(StepStarted(now, key, step.type, looped=looped))
        events.append(StepEnded(now, key, "COMPLETED", output=json.raw(output)))
    return events


async def check_given(
    services: RunServices, app_id: str, workflow_id: str, context: Mapping[str, Any] | None
) -> None:
    """Check outputs against the steps of the draft, which a test runs unless a version is named.

    What the draft does not have may be another version's: that is found out when the test runs, as
    is everything about a workflow that cannot run now.

    Raises:
        BadInput: one entry for each output that no step of its type gives.
        NotFound: it is not the app's own workflow.
    """
    if not context:
        return
    try:
        runnable = await services.resolver.resolve(app_id, workflow_id, "draft")
    except Conflict:
        return
    _check(_steps(runnable.document), context)


def _steps(document: Document) -> dict[str, AnyStep]:
    return {step.key: step for step in document.steps if not isinstance(step, NoteStep)}


def _check(steps: Mapping[str, AnyStep], context: Mapping[str, Any]) -> None:
    errors = [
        FieldError((_NAME, key, *path), "type", f"{'.'.join((_NAME, key, *path))} {words}")
        for key, output in context.items()
        if key in steps
        for path, words in _unlike(steps[key], output)
    ]
    if errors:
        raise BadInput(f"{_NAME} has outputs that its steps do not give", errors)


def _unlike(step: AnyStep, output: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """Say where an output is unlike those of its step; of a list's items the first is enough."""
    wanted = f"must be an object, as every {step.type} step gives"
    if loop_of(step) is None:
        if step.type in _OBJECTS and not isinstance(output, dict):
            yield (), wanted
    elif not isinstance(output, list):
        yield (), "must be a list, as every step with a loop gives"
    elif step.type in _OBJECTS:
        wrong = (place for place, item in enumerate(output) if not isinstance(item, dict))
        for place in wrong:
            yield (str(place),), wanted
            return
