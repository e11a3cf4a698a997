"""Packed bodies: unpacked exactly, in bounded pieces, and never into a bomb."""

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insula.adapters.http.decoding import BodyDecoder
from insula.engine.failures import StepFailure

# Without the time: it is part of the test's name, which has to be the same in every worker.
CUT = gzip.compress(b"x" * 99, mtime=0)[:-4]


def _raw_deflate(data: bytes) -> bytes:
    machine = zlib.compressobj(wbits=-15)
    return machine.compress(data) + machine.flush()


def _read(encoding: str, wire: bytes, step: int, limit: int = 1 << 20) -> bytes:
    decoder = BodyDecoder(encoding, limit)
    parts = [
        piece for at in range(0, len(wire), step) for piece in decoder.feed(wire[at : at + step])
    ]
    decoder.finish()
    return b"".join(parts)


@settings(max_examples=60)
@given(st.binary(max_size=5000), st.integers(1, 700))
def test_every_coding_gives_back_what_was_packed(data: bytes, step: int) -> None:
    assert _read("", data, step) == data
    assert _read("identity", data, step) == data
    assert _read("gzip", gzip.compress(data), step) == data
    assert _read("x-gzip", gzip.compress(data[:9]) + gzip.compress(data[9:]), step) == data
    assert _read("deflate", zlib.compress(data), step) == data
    assert _read("deflate, gzip", gzip.compress(zlib.compress(data)), step) == data


def test_bare_deflate_is_read_too() -> None:
    assert _read("deflate", _raw_deflate(b"abc" * 100), 1000) == b"abc" * 100


def test_an_unknown_coding_is_left_as_it_came() -> None:
    assert _read("br", b"\x01\x02", 1) == b"\x01\x02"
    assert _read("br, gzip", b"\x01\x02", 1) == b"\x01\x02"


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip"])
def test_a_bomb_stops_at_the_limit_in_flat_memory(encoding: str) -> None:
    bomb = gzip.compress(b"\0" * (64 << 20))
    if "," in encoding:
        bomb = gzip.compress(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(StepFailure) as caught:
            for _ in BodyDecoder(encoding, 1 << 20).feed(bomb):
                pass
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.code == "limit_output"


@pytest.mark.parametrize(
    ("encoding", "wire"),
    [("gzip", b"not gzip"), ("gzip", CUT), ("deflate", b"\xff\xff\xff")],
)
def test_broken_data_is_a_failure(encoding: str, wire: bytes) -> None:
    with pytest.raises(StepFailure) as caught:
        _read(encoding, wire, 100)
    assert caught.value.code == "network"


def test_too_many_layers_are_refused() -> None:
    with pytest.raises(StepFailure, match="packed more than"):
        BodyDecoder("gzip, gzip, gzip", 100)
