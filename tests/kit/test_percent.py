"""Percent-decoding, like the standard library's and in less room."""

import tracemalloc
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.kit import percent
from insula.kit.percent import unquote

PARTS = st.lists(
    st.sampled_from(["%", "%4", "%41", "%e4", "%zz", "=", "=41", "_", "\r\n", " ", "é"])
)


@given(PARTS.map("".join), st.integers(3, 9))
def test_as_the_standard_library(text: str, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(percent, "_PIECE", piece)
        assert unquote(text) == unquote_to_bytes(text)


@pytest.mark.parametrize("part", ["%41", "%", "%41a", "%4", "="])
def test_a_long_text_takes_some_times_its_room(part: str) -> None:
    text = part * (1024 * 1024 // len(part))
    tracemalloc.start()
    try:
        unquote(text)
        assert tracemalloc.get_traced_memory()[1] < 12 * len(text)
    finally:
        tracemalloc.stop()
