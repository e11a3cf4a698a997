"""One value against one field, by the field's type."""

import math
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from typing import Any, Final
from urllib.parse import urlsplit

from insula.engine.document_fields import Field, SelectField, StringField

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_ZONE: Final = r"(?:Z|[+-]\d{2}:\d{2})?"
_TIME: Final = rf"\d{{2}}:\d{{2}}(?::\d{{2}}(?:\.\d{{1,9}})?)?{_ZONE}"
_TIME_ONLY: Final = re.compile(_TIME, re.ASCII)
_MOMENT: Final = re.compile(rf"\d{{4}}-\d{{2}}-\d{{2}}T{_TIME}", re.ASCII)
_NUMBER: Final = re.compile(
    r"[+-]?(?:\d{1,400}(?:\.\d{0,400})?|\.\d{1,400})(?:[eE][+-]?\d{1,4})?", re.ASCII
)
_WORDS: Final = {
    "true": True,
    "1": True,
    "on": True,
    "yes": True,
    "false": False,
    "0": False,
    "off": False,
    "no": False,
}
_EXACT_MAX: Final = 2**63 - 1
_FILE_KEYS: Final = ("data", "id", "file_id", "future_file_id", "file_url", "url")
_SHOWN: Final = 5


class Refusal(ValueError):
    """A value that a field does not take."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def kind_of(value: object) -> str:
    """Name the kind of a JSON value, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
    return "a file"


def check_value(kind: Field, value: object, from_text: bool) -> Any:
    """Return the value as the run will see it; objects and lists are not this function's.

    Raises:
        Refusal: the field does not take it.
    """
    return _CHECKS[kind.type](kind, value, from_text)


def _number(_: Field, value: object, from_text: bool) -> int | float:
    if from_text and isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = _read_number(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refusal("type", f"is {kind_of(value)}; give a number")
    try:
        finite = math.isfinite(value)
        if finite and isinstance(value, int) and abs(value) > _EXACT_MAX:
            return float(value)
    except OverflowError:
        finite = False
    if not finite:
        raise Refusal("range", "is not a finite number; give one below 1.8e308")
    return value


def _read_number(text: str) -> int | float:
    number = float(text)
    exact = number.is_integer() and abs(number) < 2**53
    return int(number) if exact else number


def _string(kind: Field, value: object, _: bool) -> str:
    if not isinstance(value, str):
        raise Refusal("type", f"is {kind_of(value)}; give a text")
    _check_unicode(value)
    if isinstance(kind, StringField) and kind.validation == "url":
        _check_url(value)
    return value


def _check_unicode(value: str) -> None:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Refusal("unicode", "holds half of a surrogate pair; remove it") from error


def _check_url(value: str) -> None:
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or any(c.isspace() or not c.isprintable() for c in value):
        raise Refusal("url", "is no URL; give one that begins with http:// or https://")


def _boolean(_: Field, value: object, from_text: bool) -> bool:
    if from_text and isinstance(value, str):
        value = _WORDS.get(value.strip().lower(), value)
    if not isinstance(value, bool):
        raise Refusal("type", f"is {kind_of(value)}; give true or false")
    return value


def _calendar(
    pattern: re.Pattern[str], parse: Callable[[str], object], example: str
) -> Callable[[Field, object, bool], str]:
    def check(_: Field, value: object, _from_text: bool) -> str:
        if not isinstance(value, str):
            raise Refusal("type", f"is {kind_of(value)}; give a text such as {example}")
        try:
            if not pattern.fullmatch(value):
                raise ValueError
            parse(value)
        except ValueError as error:
            raise Refusal("format", f"is not in the form {example}, or no such time") from error
        return value

    return check


def _select(kind: Field, value: object, _: bool) -> str:
    if not isinstance(value, str):
        raise Refusal("type", f"is {kind_of(value)}; give the text of one of its options")
    _check_unicode(value)
    assert isinstance(kind, SelectField)
    lifted = kind.additional_options or kind.list_ is not None
    if not lifted and all(option.value != value for option in kind.options):
        names = ", ".join(repr(o.value[:40]) for o in kind.options[:_SHOWN])
        more = ", …" if len(kind.options) > _SHOWN else ""
        raise Refusal("option", f"is none of its options; give one of {names}{more}")
    return value


def _anything(_: Field, value: object, _from_text: bool) -> object:
    return value


def _connection(_: Field, value: object, _from_text: bool) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Refusal("type", f"is {kind_of(value)}; give the id of a connection")
    _check_unicode(value)
    return value


def _file(_: Field, value: object, _from_text: bool) -> object:
    forms = "give base64, {data, type, name, encoding}, a URL, or the id of a file"
    if isinstance(value, str):
        if not value.strip():
            raise Refusal("file", f"is an empty text; {forms}")
        _check_unicode(value)
        return value
    if isinstance(value, Mapping):
        if not any(isinstance(value.get(key), str) and value[key] for key in _FILE_KEYS):
            raise Refusal("file", f"is an object that is no file; {forms}")
        return value
    if value is None or isinstance(value, bool | int | float | list | tuple):
        raise Refusal("type", f"is {kind_of(value)}; {forms}")
    return value  # an upload, as the web layer hands it over


_CHECKS: Final[dict[str, Callable[[Field, object, bool], Any]]] = {
    "file": _file,
    "number": _number,
    "string": _string,
    "boolean": _boolean,
    "date": _calendar(_DATE, date.fromisoformat, "2026-01-31"),
    "datetime": _calendar(_MOMENT, datetime.fromisoformat, "2026-01-31T12:00:00Z"),
    "time": _calendar(_TIME_ONLY, time.fromisoformat, "12:00:00"),
    "select": _select,
    "content": _anything,
    "connection": _connection,
}
