"""Server-sent events, however the bytes are cut."""

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insula.cli import event_stream
from insula.cli.event_stream import ServerEvent, read_events
from insula.cli.failures import CommandFailed
from insula.kit.json import encode

events = st.lists(
    st.builds(
        ServerEvent,
        st.sampled_from(["run", "step", "chunk"]),
        st.dictionaries(st.text(max_size=5), st.text() | st.integers(0, 9), max_size=3),
        st.none() | st.integers(0, 99).map(str),
    ),
    max_size=5,
)


def on_the_wire(event: ServerEvent, end: str) -> bytes:
    lines = [f"event: {event.name}", f"data: {encode(event.data).decode()}", ""]
    if event.id is not None:
        lines.insert(0, f"id: {event.id}")
    return "".join(line + end for line in lines).encode()


async def read(pieces: list[bytes]) -> list[ServerEvent]:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return [event async for event in read_events(body())]


@settings(max_examples=60)
@given(events, st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 400)))
async def test_cuts_do_not_matter(sent: list[ServerEvent], end: str, places: list[int]) -> None:
    # The comment at the end is the keep-alive; it also settles a trailing carriage return.
    body = b"".join(on_the_wire(event, end) for event in sent) + f": still here{end}".encode()
    cuts = sorted({0, len(body), *(place for place in places if place < len(body))})
    pieces = [body[start:stop] for start, stop in pairwise(cuts)]
    assert await read(pieces) == sent


async def test_separators_inside_json_do_not_end_a_line() -> None:
    text = "a\u2028b\u2029c\u0085d"
    assert (await read([on_the_wire(ServerEvent("chunk", {"t": text}), "\n")]))[0].data == {
        "t": text
    }


async def test_several_data_lines_are_one_value() -> None:
    assert await read([b'event: run\ndata: {"a":\ndata: 1}\n\n']) == [ServerEvent("run", {"a": 1})]


async def test_an_event_that_is_cut_off_is_dropped() -> None:
    assert await read([b'event: run\ndata: {"a":1}\n']) == []


async def test_data_that_is_not_json_is_said_so() -> None:
    with pytest.raises(CommandFailed, match="not JSON"):
        await read([b"data: {nope\n\n"])


async def test_an_endless_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "EVENT_LIMIT", 1000)
    with pytest.raises(CommandFailed, match="longer than 1000"):
        await read([b"data: "] + [b"x" * 100] * 20)
