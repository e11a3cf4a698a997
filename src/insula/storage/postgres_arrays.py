"""Columns of values as PostgreSQL takes them in binary: one array, whose kind is known beforehand.

The driver would look at every value to find out what it is.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Encode = Callable[[Any], bytes]

_NULL = struct.pack(">i", -1)
_LENGTH = struct.Struct(">i")
_EMPTY = struct.Struct(">iii")
_HEAD = struct.Struct(">iiiii")
_BIGINT = struct.Struct(">iq")
_INTEGER = struct.Struct(">ii")
_FLOAT = struct.Struct(">id")
_TRUE = b"\0\0\0\1\1"
_FALSE = b"\0\0\0\1\0"

TEXT = 25
"""The type of a single text."""


class Kind(NamedTuple):
    """A type of the server: its array's number and its own, and how a value is written."""

    name: str
    array: int
    element: int
    encode: Encode


def _text(value: str) -> bytes:
    data = value.encode()
    return _LENGTH.pack(len(data)) + data


def _bytes(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value


def _boolean(value: object) -> bytes:
    return _TRUE if value else _FALSE


def _bigint(value: int) -> bytes:
    return _BIGINT.pack(8, value)


def _integer(value: int) -> bytes:
    return _INTEGER.pack(4, value)


def _float(value: float) -> bytes:
    return _FLOAT.pack(8, value)


KINDS = {
    "BigInteger": Kind("bigint", 1016, 20, _bigint),
    "LargeBinary": Kind("bytea", 1001, 17, _bytes),
    "Boolean": Kind("boolean", 1000, 16, _boolean),
    "Float": Kind("double precision", 1022, 701, _float),
    "Integer": Kind("integer", 1007, 23, _integer),
    "Text": Kind("text", 1009, 25, _text),
}
"""By the name of the column's type on the page of tables."""


def encode_value(kind: Kind, value: Any) -> bytes:
    """Write a single value; raises as ``encode_array``."""
    return kind.encode(value)[_LENGTH.size :]


def encode_array(kind: Kind, values: Sequence[Any]) -> bytes:
    """Write values as one array of one dimension.

    Raises:
        struct.error: a number does not fit the column.
        UnicodeEncodeError: a text is not Unicode.
    """
    if not values:
        return _EMPTY.pack(0, 0, kind.element)
    encode = kind.encode
    parts = [_NULL if value is None else encode(value) for value in values]
    parts.insert(0, _HEAD.pack(1, None in values, kind.element, len(values), 1))
    return b"".join(parts)
