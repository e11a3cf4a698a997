"""Mappings copy what stands at one ``RULE:field`` to others; fields go on with dots. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from insula.errors import BadInput
from insula.kit import json

DEPTH_MAX = 20

COPIED_MAX = 8 * 1024 * 1024
"""Bytes that the mappings of a record copy at most; each copy and each member count for some."""
_EACH = 64
_MEMBER = 24

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


class Copies:
    """What may still be copied: mappings that feed each other would grow without end."""

    def __init__(self) -> None:
        self._left = COPIED_MAX

    def of(self, value: Any) -> Callable[[], Any]:
        """Return what makes copies of a value as it is now.

        Raises:
            BadInput: it cannot be stored; or, when a copy is made, it is too much.
        """
        try:
            text = json.encode(value)
        except json.InvalidJson as error:
            raise BadInput(f"What mappings copy cannot be stored: {str(error)[:200]}") from error

        cost = len(text) + _EACH + _MEMBER * (text.count(b":") + text.count(b","))

        def copy() -> Any:
            self._left -= cost
            if self._left < 0:
                raise BadInput(
                    f"The mappings copy more than {COPIED_MAX:,} bytes into one record: let them "
                    "copy less, or name files by their id"
                )
            return json.decode(text)

        return copy


def apply(inputs: Inputs, mappings: Sequence[Mapping[str, Any]]) -> Inputs:
    """Return the inputs with every value copied to where it is mapped to, in order.

    What is not there is not copied; a destination that is no rule of the record, or whose path
    leads through something that is no object, is left alone. What is given is not changed.

    Raises:
        BadInput: they copy more than ``COPIED_MAX``, or what cannot be stored.
    """
    made, copies = dict(inputs), Copies()
    own: dict[str, dict[str, Any]] = {}
    for mapping in mappings:
        source = parse(mapping["source_path"])
        value = None if source is None else at(made.get(source.rule), source.path)
        if value is None:
            continue
        copy = copies.of(value)
        for text in mapping["destination_paths"]:
            place = parse(text)
            if place is None or place.rule not in made:
                continue
            if place.rule not in own:
                made[place.rule] = own[place.rule] = _own(made[place.rule])
            put(own[place.rule], place.path, copy())
    return made


def _own(value: Any) -> dict[str, Any]:
    own: dict[str, Any] = {} if value is None else json.decode(json.encode(value))
    return own


def put(holder: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Let a value stand at a path below an object, unless the path leads through what is none."""
    for name in path[:-1]:
        inner = holder.get(name)
        if inner is None:
            inner = holder[name] = {}
        if not isinstance(inner, dict):
            return
        holder = inner
    holder[path[-1]] = value


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
