"""Mappings copy what stands at one ``RULE:field`` to others; fields go on with dots. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

DEPTH_MAX = 20

Inputs = dict[str, dict[str, Any] | None]
"""Inputs by the keys of rules."""


class Place(NamedTuple):
    """Where a value stands: the key of a rule, and names of fields, outermost first."""

    rule: str
    path: tuple[str, ...]


def parse(text: str) -> Place | None:
    """Read ``RULE:field.field``; ``None`` where it is none."""
    rule, colon, rest = text.partition(":")
    path = tuple(rest.split("."))
    if not colon or not rule or not all(path) or len(path) > DEPTH_MAX:
        return None
    return Place(rule, path)


def apply(inputs: Inputs, mappings: Sequence[Mapping[str, Any]]) -> Inputs:
    """Return the inputs with every value copied to where it is mapped to, in order.

    What is not there is not copied; a destination that is no rule of the record, or whose path
    leads through something that is no object, is left alone. What is given is not changed.
    """
    made = dict(inputs)
    for mapping in mappings:
        source = parse(mapping["source_path"])
        value = None if source is None else at(made.get(source.rule), source.path)
        if value is None:
            continue
        for text in mapping["destination_paths"]:
            place = parse(text)
            if place is not None and place.rule in made:
                made[place.rule] = put(made[place.rule], place.path, value)
    return made


def put(value: Any, path: Sequence[str], given: Any) -> Any:
    """Return a copy in which ``given`` stands at a path."""
    if not path:
        return given
    if value is not None and not isinstance(value, dict):
        return value
    inner = dict(value or {})
    inner[path[0]] = put(inner.get(path[0]), path[1:], given)
    return inner


def at(value: Any, path: Sequence[str]) -> Any:
    """Return what stands at a path, ``None`` where nothing does."""
    for name in path:
        if isinstance(value, list) and name.isascii() and name.isdigit():
            place = int(name[:9])
            value = value[place] if place < len(value) else None
        else:
            value = value.get(name) if isinstance(value, dict) else None
    return value


def merged(first: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return objects merged, the second's members winning."""
    made = dict(first)
    for name, value in over.items():
        held = made.get(name)
        if isinstance(held, dict) and isinstance(value, dict):
            made[name] = merged(held, value)
        else:
            made[name] = value
    return made
