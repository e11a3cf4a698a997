"""Percent-encoded text, however long: what strangers send may be as large as a body."""

import re
from binascii import a2b_qp

_PIECE = 64 * 1024
_NO_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def unquote(text: str) -> bytes:
    """Return the bytes that a text stands for, as ``urllib.parse.unquote_to_bytes`` does.

    That makes some objects for each escape, a hundred times the text in memory. This one holds the
    interpreter for a piece at a time; still a long text belongs on a thread.
    """
    encoded = text.encode()
    decoded, begin = [], 0
    while begin < len(encoded):
        end = begin + _PIECE
        if end < len(encoded) and (cut := encoded.rfind(b"%", end - 2, end)) >= 0:
            end = cut  # an escape stays in one piece
        decoded.append(_unquote(encoded[begin:end]))
        begin = end
    return b"".join(decoded)


def _unquote(piece: bytes) -> bytes:
    """Decode as quoted-printable, which is the same with ``=`` for the sign."""
    piece = _NO_ESCAPE.sub(b"%25", piece)
    return a2b_qp(piece.replace(b"=", b"%3D").replace(b"%", b"="))
