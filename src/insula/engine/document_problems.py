"""Everything that is wrong with a body, at once: what a draft may not be saved with."""

from collections.abc import Iterator
from typing import Any, Final

from pydantic import ValidationError

from insula.engine.document_edges import RawStep, cycle_problems, destinations, edges_problem
from insula.engine.document_steps import STEP_MODELS, Document, Step
from insula.engine.document_words import Problem, problem, shape_problems
from insula.engine.inputs_kinds import kind_of
from insula.engine.scripts_globals import RESERVED, SCOPE_NAMES
from insula.kit import json

STEPS_MAX: Final = 10_000
DEPTH_MAX: Final = 100
"""Objects and lists inside one another."""
KEY_MAX: Final = 128
PROBLEMS_MAX: Final = 1000
_NEVER_LOOPED: Final = ("note", "input", "branch")
_TYPES: Final = ", ".join(STEP_MODELS)


def check(body: object) -> tuple[Document | None, list[Problem]]:
    """Return the document, or ``None`` and everything that is wrong with the body, in its order."""
    if not isinstance(body, dict):
        return None, [problem((), "type", f"is {kind_of(body)}; give an object with steps")]
    if unusable := _depth_problem(body) or _text_problem(body):
        return None, [unusable]
    document, problems = _head(body)
    steps = body.get("steps")
    if isinstance(steps, list):
        if excess := _excess(steps):
            problems.append(excess)
        else:
            checked, found = _steps(steps)
            problems += found
    if document is None or problems:
        return None, _first(problems)
    # The steps are validated already, one by one; assigning does not validate them again.
    document.steps = checked  # type: ignore[assignment]  # each is one of the variants of AnyStep
    return document, []


def _excess(steps: list[Any]) -> Problem | None:
    """Refuse what is too large to be looked through; nothing else is said of it."""
    if len(steps) <= STEPS_MAX:
        return edges_problem(steps)
    message = f"are {len(steps)}; a workflow has at most {STEPS_MAX}"
    return problem(("steps",), "too_many", message)


def _first(problems: list[Problem]) -> list[Problem]:
    if len(problems) <= PROBLEMS_MAX:
        return problems
    return [*problems[:PROBLEMS_MAX], problem((), "more", "has more problems than are listed")]


def _depth_problem(body: dict[str, Any]) -> Problem | None:
    level: list[Any] = [body]
    for _ in range(DEPTH_MAX):
        inner: list[Any] = []
        for part in level:
            values = part.values() if isinstance(part, dict) else part
            inner += [value for value in values if isinstance(value, dict | list)]
        if not inner:
            return None
        level = inner
    return problem((), "depth", f"nests more than {DEPTH_MAX} objects and lists; flatten it")


def _text_problem(body: dict[str, Any]) -> Problem | None:
    """Refuse what could not be stored again, half a surrogate pair above all."""
    try:
        json.encode(body)
    except json.InvalidJson as error:
        return problem((), "unicode", f"holds a value that JSON cannot: {error}")
    return None


def _head(body: dict[str, Any]) -> tuple[Document | None, list[Problem]]:
    problems = []
    steps = body.get("steps")
    if "steps" not in body:
        problems.append(problem(("steps",), "required", "is missing; add a list of steps"))
    elif not isinstance(steps, list):
        problems.append(problem(("steps",), "type", f"is {kind_of(steps)}; give a list of steps"))
    try:
        return Document.model_validate({**body, "steps": []}), problems
    except ValidationError as error:
        return None, [*shape_problems(error, ()), *problems]


def _steps(steps: list[Any]) -> tuple[list[Step], list[Problem]]:
    checked: list[Step] = []
    problems: list[Problem] = []
    keyed = [(i, s) for i, s in enumerate(steps) if isinstance(s, dict) and _has_key(s)]
    first_places = {step["key"]: place for place, step in reversed(keyed)}
    for place, step in enumerate(steps):
        found = _step(step, ("steps", str(place)))
        if isinstance(found, Step):
            checked.append(found)
        else:
            problems += found
        if isinstance(step, dict):
            problems += _key_problems(step, place, first_places)
            problems += _use_problems(step, place, first_places)
        if len(problems) > PROBLEMS_MAX:
            break
    return checked, problems + cycle_problems(keyed)


def _has_key(step: RawStep) -> bool:
    return isinstance(step.get("key"), str)


def _step(step: object, path: tuple[str, ...]) -> Step | list[Problem]:
    if not isinstance(step, dict):
        return [problem(path, "type", f"is {kind_of(step)}; give an object with type and key")]
    kind = step.get("type")
    if not isinstance(kind, str):
        given = "missing" if "type" not in step else kind_of(kind)
        return [problem((*path, "type"), "type", f"is {given}; give one of: {_TYPES}")]
    model = STEP_MODELS.get(kind)
    if model is None:
        return [problem((*path, "type"), "option", f"is unknown; give one of: {_TYPES}")]
    try:
        return model.model_validate(step)
    except ValidationError as error:
        return list(shape_problems(error, path))


def _key_problems(step: RawStep, place: int, first_places: dict[str, int]) -> Iterator[Problem]:
    if not _has_key(step):
        return
    key, path = step["key"], ("steps", str(place), "key")
    if first_places[key] != place:
        message = f'"{key[:40]}" is the key of step {first_places[key]} already; choose another'
        yield Problem(path, "duplicate", message)
    if len(key) > KEY_MAX:
        yield problem(path, "too_long", f"is longer than {KEY_MAX} characters; shorten it")
    elif key in RESERVED or key in SCOPE_NAMES:
        yield Problem(path, "reserved", f'"{key}" is reserved; choose another key')
    elif not key.replace("$", "_").isidentifier():
        message = "must be a JavaScript identifier: letters, digits, _ and $, no digit first"
        yield problem(path, "identifier", message)


def _use_problems(step: RawStep, place: int, keys: dict[str, int]) -> Iterator[Problem]:
    path = ("steps", str(place))
    loop = step.get("loop")
    if step.get("type") in _NEVER_LOOPED and isinstance(loop, str) and loop.strip():
        message = f"cannot stand on a step of type {step['type']}; remove it"
        yield problem((*path, "loop"), "loop", message)
    for inner, key in destinations(step):
        if key not in keys:
            message = f'"{key[:40]}" is no step of this workflow; name one or remove it'
            yield Problem((*path, *inner), "unknown_step", message)


__all__ = ["Problem", "check"]
