"""YAML as another way to write JSON: what is written reads back exactly, and what is read is data.

The text goes through PyYAML's events only, in loops of our own: no recursion, no anchors, no tags,
no dates; the plain words are those of YAML's core schema.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from insula.errors import BadInput, FieldError
from insula.kit.json import InvalidJson, encode

LIMIT = 4 * 1024 * 1024
"""Bytes of YAML that are read."""

_DEPTH = 200
_WIDTH = 1_000_000
_LONGEST_NUMBER = 400
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WHOLE = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NO_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_TEXT_TAGS = ("!", "tag:yaml.org,2002:str")
_PLAIN = re.compile(r"[^\W\d][^\x00-\x1f\x7f]*")
# Words that some reader of YAML takes for something else than text.
_SPECIAL = frozenset(["null", "true", "false", "yes", "no", "on", "off", "y", "n"])


def dump(value: Any) -> str:
    """Write JSON data as YAML; texts of several lines are blocks."""
    text = _emit(value, blocks=True)
    try:
        if load(text.encode()) == value:
            return text
    except BadInput:
        return _emit(value, blocks=False)
    return _emit(value, blocks=False)


def _emit(value: Any, blocks: bool) -> str:
    written: str = yaml.emit(
        _events(value, blocks), Dumper=_Dumper, allow_unicode=True, width=_WIDTH
    )
    return written


def _events(value: Any, blocks: bool) -> Iterator[yaml.Event]:
    yield yaml.StreamStartEvent()
    yield yaml.DocumentStartEvent(explicit=False)
    stack: list[Iterator[yaml.Event | Any]] = [iter((value,))]
    while stack:
        for item in stack[-1]:
            if isinstance(item, yaml.Event):
                yield item
            elif isinstance(item, dict):
                stack.append(_mapping(item))
                break
            elif isinstance(item, list | tuple):
                stack.append(_sequence(item))
                break
            else:
                yield _scalar(item, blocks)
        else:
            stack.pop()
    yield yaml.DocumentEndEvent(explicit=False)
    yield yaml.StreamEndEvent()


def _mapping(value: dict[str, Any]) -> Iterator[yaml.Event | Any]:
    yield yaml.MappingStartEvent(None, None, implicit=True, flow_style=not value)
    for name, member in value.items():
        yield name
        yield member
    yield yaml.MappingEndEvent()


def _sequence(value: list[Any] | tuple[Any, ...]) -> Iterator[yaml.Event | Any]:
    yield yaml.SequenceStartEvent(None, None, implicit=True, flow_style=not value)
    yield from value
    yield yaml.SequenceEndEvent()


def _scalar(value: object, blocks: bool) -> yaml.Event:
    if value is None or isinstance(value, bool):
        word = {None: "null", True: "true", False: "false"}[value]
        return yaml.ScalarEvent(None, None, (True, False), word)
    if isinstance(value, int | float):
        digits = repr(value)
        if "e" in digits and "." not in digits:
            digits = digits.replace("e", ".0e")
        return yaml.ScalarEvent(None, None, (True, False), digits)
    text = str(value)
    if blocks and "\n" in text:
        return yaml.ScalarEvent(None, None, (False, True), text, style="|")
    plain = _PLAIN.fullmatch(text) is not None and text.lower() not in _SPECIAL
    style = None if blocks else '"'
    return yaml.ScalarEvent(None, None, (plain and blocks, True), text, style=style)


def load(data: bytes) -> Any:
    """Read YAML as JSON data.

    Raises:
        BadInput: it is too large or too deep, no YAML, or holds what JSON does not have.
    """
    if len(data) > LIMIT:
        raise _refusal(f"it is over {LIMIT:,} bytes; send it as JSON")
    try:
        value = _build(yaml.parse(data.decode("utf-8"), Loader=_Loader))
        encode(value)
    except (UnicodeDecodeError, InvalidJson) as error:
        raise _refusal("it is not text in UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "it is no YAML"
        raise _refusal(f"{reason}{where}") from error
    return value


class _Level:
    """A list or an object that is being read."""

    def __init__(self, holder: list[Any] | dict[str, Any]) -> None:
        self.holder = holder
        self.key: str | None = None

    def add(self, value: Any, event: yaml.Event) -> None:
        if isinstance(self.holder, list):
            self.holder.append(value)
        elif self.key is None:
            self.key = self._name(event)
        else:
            self.holder[self.key] = value
            self.key = None

    def _name(self, event: yaml.Event) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise _refusal("the name of a member must be text", event)
        name = str(event.value)
        if name in self.holder:
            raise _refusal(f"the member {name[:100]!r} stands there twice", event)
        return name


def _build(events: Iterator[yaml.Event]) -> Any:
    top: list[Any] = []
    levels = [_Level(top)]
    for event in events:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refusal("anchors and aliases are not read", event)
        if isinstance(event, yaml.ScalarEvent):
            levels[-1].add(_value(event), event)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            _open(levels, event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            levels.pop()
        elif isinstance(event, yaml.DocumentStartEvent) and top:
            raise _refusal("it holds more than one document", event)
    return top[0] if top else None


def _open(levels: list[_Level], event: yaml.CollectionStartEvent) -> None:
    if event.tag is not None:
        raise _refusal(f"the tag {event.tag[:100]!r} is not read", event)
    if len(levels) > _DEPTH:
        raise _refusal(f"it nests deeper than {_DEPTH} levels", event)
    holder: list[Any] | dict[str, Any] = {}
    if isinstance(event, yaml.SequenceStartEvent):
        holder = []
    levels[-1].add(holder, event)
    levels.append(_Level(holder))


def _value(event: yaml.ScalarEvent) -> Any:
    text: str = event.value
    if event.tag is not None and event.tag not in _TEXT_TAGS:
        raise _refusal(f"the tag {event.tag[:100]!r} is not read", event)
    if event.tag is not None or not event.implicit[0]:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= _LONGEST_NUMBER and _WHOLE.fullmatch(text):
        return int(text, 0 if text[:2] in ("0x", "0o") else 10)
    if _NUMBER.fullmatch(text) or _NO_NUMBER.fullmatch(text):
        number = float(text) if _NUMBER.fullmatch(text) else math.inf
        if math.isinf(number):
            raise _refusal(f"JSON has no number {text[:100]!r}; quote it if it is text", event)
        return number
    return text


def _refusal(why: str, event: yaml.Event | None = None) -> BadInput:
    mark = getattr(event, "start_mark", None)
    where = f" in line {mark.line + 1}" if mark else ""
    return BadInput(
        f"The YAML cannot be read: {why}{where}", [FieldError((), "yaml", f"{why}{where}")]
    )
