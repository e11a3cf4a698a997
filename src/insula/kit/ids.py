"""Ids: a prefix and 22 base-58 characters that sort by the time they were made."""

import secrets
import time

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_LENGTH = 22
_RANDOM_BITS = 80
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]


def new_id(prefix: str) -> str:
    """Make an id such as ``run_`` + 22 characters: 48 bits of Unix milliseconds, 80 random bits.

    58 ** 22 exceeds 2 ** 128, so the width is fixed, and the alphabet is in ASCII order: ids
    sort as text in the order of their milliseconds.
    """
    number = (int(time.time() * 1000) << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
    pairs = []
    for _ in range(_LENGTH // 2):
        number, rest = divmod(number, 3364)
        pairs.append(_PAIRS[rest])
    pairs.reverse()
    return f"{prefix}_{''.join(pairs)}"


def is_id(prefix: str, text: str) -> bool:
    """Say whether ``text`` has the form of an id with this prefix."""
    body = text[len(prefix) + 1 :]
    return (
        text.startswith(prefix + "_")
        and len(body) == _LENGTH
        and all(character in _ALPHABET for character in body)
    )
