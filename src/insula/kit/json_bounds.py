"""JSON text that a stranger sent: bounded and checked before anything is built of it.

The text is gone through in pieces, so that memory stays flat and other threads get their turn.
"""

import codecs
import re
from collections.abc import Iterator
from itertools import accumulate

import msgspec

from insula.kit.json import InvalidJson, decode

DEPTH = 200
"""How deep objects and lists may nest."""
CONTAINERS = 1_000_000
"""How many objects and lists one text may hold."""

_PIECE = 1 << 18
_NUMBER_MAX = 4_300  # Python's own bound
_NUMBER = b"+-.0123456789Ee"
_BRACKETS = b"[]{}"
_NOT_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_DIGITS_ALIKE = bytes.maketrans(b"123456789E", b"000000000e")
_numbers = re.compile(rb"-?[0-9][-+.0-9eE]*+").findall
_skip = msgspec.json.Decoder(msgspec.Raw).decode


class OverBounds(InvalidJson):
    """It is nested too deeply (``too_deep``), or in too many (``too_many``) objects and lists."""

    def __init__(self, why: str, code: str) -> None:
        super().__init__(why)
        self.code = code


def bound(text: bytes) -> None:
    """Bound depth and number of objects and lists. Few brackets cannot nest deeply.

    Raises:
        OverBounds: there are more than ``CONTAINERS``, or deeper ones than ``DEPTH``.
    """
    if text.count(b"[") + text.count(b"{") <= DEPTH:
        return
    depth = opened = 0
    for piece in _outside_strings(text):
        brackets = piece.translate(None, _NOT_BRACKETS)
        opened += brackets.count(b"[") + brackets.count(b"{")
        if opened > CONTAINERS:
            raise OverBounds(f"it holds more than {CONTAINERS:,} objects and lists", "too_many")
        depths = list(accumulate(map(_STEP.__getitem__, brackets), initial=depth))
        if max(depths) > DEPTH:
            raise OverBounds(f"it nests deeper than {DEPTH} levels", "too_deep")
        depth = depths[-1]


def check(text: bytes) -> None:
    """Check that ``decode`` takes a text, without building what it says.

    Raises:
        InvalidJson: it does not; or ``OverBounds``.
    """
    bound(text)
    utf8 = codecs.getincrementaldecoder("utf-8")()
    try:
        for start in range(0, len(text), _PIECE):
            utf8.decode(text[start : start + _PIECE])
        utf8.decode(b"", True)
        _skip(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise InvalidJson(str(error)) from error
    check_numbers(text)


def check_numbers(text: bytes) -> None:
    """Check that no number of a JSON text is out of range, which its form does not show.

    Raises:
        InvalidJson: one is.
    """
    if not _may_be_large(text):
        return
    cut = b""
    for more in _outside_strings(text):
        piece = cut + more
        cut = piece[len(piece.rstrip(_NUMBER)) :]
        if len(cut) > _NUMBER_MAX:
            raise InvalidJson(f"it holds a number of more than {_NUMBER_MAX:,} characters")
        decode(b"[" + b",".join(_numbers(piece, 0, len(piece) - len(cut))) + b"]")
    decode(b"[" + b",".join(_numbers(cut)) + b"]")


def _may_be_large(text: bytes) -> bool:
    """Say whether there are 200 digits in a row, or an exponent of three."""
    alike = text.translate(_DIGITS_ALIKE, b"+")
    return b"e000" in alike or b"0" * 200 in alike


def _outside_strings(text: bytes) -> Iterator[bytes]:
    """Yield what stands outside of strings, piece by piece, a quote for each end of a string."""
    inside, start = 0, 0
    while start < len(text):
        piece = text[start : start + _PIECE]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2 and start + _PIECE < len(text):
            piece = piece[:-1]  # an escape is not cut in two
        start += len(piece)
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        yield b'"'.join(parts[inside::2])
        inside = (inside + len(parts) - 1) % 2
