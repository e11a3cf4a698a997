"""What is wrong with a value, in words: the kind that was found, and what to give instead."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from insula.engine.document_shape import TAG
from insula.engine.inputs_kinds import kind_of

Path = tuple[str, ...]

_ERRORS_MAX: Final = 1000
_REMEDIES: Final = {
    "string_type": "give a text",
    "int_type": "give a whole number",
    "int_from_float": "give a whole number",
    "int_parsing_size": "give a smaller number",
    "float_type": "give a number",
    "bool_type": "give true or false",
    "list_type": "give a list",
    "dict_type": "give an object",
    "model_type": "give an object",
    "model_attributes_type": "give an object",
}
_BOUNDS: Final = {
    "greater_than": ("gt", "range", "must be greater than"),
    "greater_than_equal": ("ge", "range", "must be at least"),
    "less_than_equal": ("le", "range", "must be at most"),
    "too_long": ("max_length", "too_many", "has too many items; give at most"),
    "too_short": ("min_length", "too_few", "has too few items; give at least"),
}
_PLAIN: Final = {
    "missing": ("required", "is missing; add it"),
    "finite_number": ("range", "is not a finite number; give another"),
    "string_unicode": ("unicode", "holds half of a surrogate pair; remove it"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a document: where, which rule, and what to do about it."""

    path: Path
    code: str
    message: str


def problem(path: Path, code: str, message: str) -> Problem:
    """Make a problem whose message begins with the name of what it is about."""
    return Problem(path, code, f"{name_of(path)} {message}")


def name_of(path: Path) -> str:
    """Name what stands at a path: its last name, and the list that it is in."""
    if not path:
        return "the body"
    if path[-1].isdecimal() and len(path) > 1:
        return f'item {path[-1]} of "{_short(path[-2])}"'
    return f'"{_short(path[-1])}"'


def shape_problems(error: ValidationError, prefix: Path) -> Iterator[Problem]:
    """Put the findings of the models into our words."""
    if error.error_count() > _ERRORS_MAX:
        yield problem(prefix, "shape", f"has {error.error_count()} values of wrong kinds")
        return
    for found in error.errors(include_url=False):
        names = (str(n) for n in found["loc"])
        path = (*prefix, *(n for n in names if not n.startswith(TAG)))
        code, message = _words(found["type"], found.get("input"), found.get("ctx"), found["msg"])
        yield problem(path, code, message)


def _words(
    kind: str, value: object, context: Mapping[str, Any] | None, said: str
) -> tuple[str, str]:
    context = context or {}
    if kind in _REMEDIES:
        return "type", f"is {kind_of(value)}; {_REMEDIES[kind]}"
    if kind in _BOUNDS:
        name, code, words = _BOUNDS[kind]
        return code, f"{words} {context.get(name)}"
    if kind in _PLAIN:
        return _PLAIN[kind]
    match kind:
        case "kind":
            return "type", f"is {kind_of(value)}; {said}"
        case "choice":
            return "type", f"{_chosen(value)}; {said}"
        case "literal_error":
            shown = f'"{_short(value)}"' if isinstance(value, str) else kind_of(value)
            return "option", f"is {shown}; give {context.get('expected')}"
    return "shape", f"is {kind_of(value)}, which does not fit here"


def _chosen(value: object) -> str:
    if not isinstance(value, Mapping):
        return f"is {kind_of(value)}"
    told = next((value[n] for n in ("type", "role") if isinstance(value.get(n), str)), None)
    return "does not say what it is" if told is None else f'is of the unknown kind "{_short(told)}"'


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "…"
