"""JSON as bytes: the one encoder and decoder, and what it refuses."""

from typing import Any

import msgspec

Raw = msgspec.Raw
"""JSON text that is carried along without being parsed."""

NULL = Raw(b"null")

_encoder = msgspec.json.Encoder()
_sorted_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder()
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class InvalidJson(ValueError):
    """Raised for text that is not JSON, too deep, or holds a lone surrogate."""


def encode(value: object) -> bytes:
    """Encode a value; ``Raw`` parts are copied as they are.

    Raises:
        InvalidJson: the value holds something that JSON text in UTF-8 cannot (a lone surrogate).
    """
    try:
        return _encoder.encode(value)
    except (UnicodeEncodeError, TypeError, RecursionError, OverflowError) as error:
        raise InvalidJson(str(error)) from error


def encode_sorted(value: object) -> bytes:
    """Encode a value that was decoded, with the members of objects in the order of their names."""
    return _sorted_encoder.encode(value)


def raw(value: object) -> Raw:
    """Encode a value to ``Raw``."""
    return Raw(encode(value))


def decode(data: bytes | str | msgspec.Raw) -> Any:
    """Decode JSON text.

    Raises:
        InvalidJson: it is not JSON, nests too deeply, or holds a lone surrogate.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidJson(str(error)) from error


def members(data: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Split a JSON object into its members without parsing their values.

    Raises:
        InvalidJson: it is not a JSON object.
    """
    try:
        return _object.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise InvalidJson(str(error)) from error
