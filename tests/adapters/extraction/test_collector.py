"""What a reader gathers counts for what it costs, on either side."""

import os
from collections.abc import Iterator

import msgspec
import pytest
from tests.adapters.extraction.readings import LIMITS, order

from insula.adapters.extraction import collector
from insula.adapters.extraction.collector import Collector, Refused
from insula.adapters.extraction.messages import BLOCK_BYTES, HEADER, Block, Kind, decode, frame


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[list[Block]]:
    """Frames of blocks that were sent."""
    frames: list[list[Block]] = []
    monkeypatch.setattr(collector, "send", lambda _, __, blocks: frames.append(blocks))
    return frames


@pytest.fixture
def nowhere() -> Iterator[int]:
    descriptor = os.open(os.devnull, os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


def test_blocks_of_one_letter_end(nowhere: int) -> None:
    found = Collector(order("text", 1), nowhere)
    for _ in range(LIMITS.output // (BLOCK_BYTES + 1)):
        found.add("TEXT", "x")
    with pytest.raises(Refused, match="INSULA_EXTRACT_OUTPUT"):
        found.add("TEXT", "x")
    assert found.blocks == LIMITS.output // (BLOCK_BYTES + 1)


def test_what_is_sent_is_taken_and_more_at_once_is_not(
    sent: list[list[Block]], nowhere: int
) -> None:
    found = Collector(order("text", 1), nowhere)
    for _ in range(3_000):
        found.add("TEXT", "x")
    found.flush()
    assert sum(len(blocks) for blocks in sent) == 3_000
    for blocks in sent:
        assert decode(Kind.BLOCKS, frame(Kind.BLOCKS, blocks)[HEADER.size :]) == blocks
    many = frame(Kind.BLOCKS, [Block(1, "TEXT", "", 1)] * 2_000)[HEADER.size :]
    with pytest.raises(msgspec.ValidationError):
        decode(Kind.BLOCKS, many)
