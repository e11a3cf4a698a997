"""Ids: a prefix and 22 base-58 characters that sort by the time they were made."""

import os
import threading
import time

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_LENGTH = 22
_RANDOM_BITS = 80
_LAST_MS = 2**48 - 1
_RANDOM_BYTES = _RANDOM_BITS // 8
_POOL_BYTES = 400 * _RANDOM_BYTES
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]


class _Random:
    """Random numbers of 80 bits, asked of the system many at a time: each call there is slow."""

    def __init__(self) -> None:
        self._pool = b""
        self._used = 0
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._pool = b""

    def next(self) -> int:
        """Return one that was never returned before."""
        with self._lock:
            if self._used >= len(self._pool):
                self._pool, self._used = os.urandom(_POOL_BYTES), 0
            start, self._used = self._used, self._used + _RANDOM_BYTES
            return int.from_bytes(self._pool[start : self._used], "big")


_random = _Random()


def new_id(prefix: str) -> str:
    """Make an id such as ``run_`` + 22 characters: 48 bits of Unix milliseconds, 80 random bits.

    58 ** 22 exceeds 2 ** 128, so the width is fixed, and the alphabet is in ASCII order: ids
    sort as text in the order of their milliseconds.
    """
    return _id(prefix, (int(time.time() * 1000) << _RANDOM_BITS) | _random.next())


def first_id(prefix: str, milliseconds: int) -> str:
    """Return what no id that is made in this millisecond, or later, sorts before."""
    return _id(prefix, min(max(milliseconds, 0), _LAST_MS) << _RANDOM_BITS)


def _id(prefix: str, number: int) -> str:
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
