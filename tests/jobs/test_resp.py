"""The protocol of Redis: what a server may say is read, and nothing else is believed."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.jobs.resp import BULK_MAX, ITEMS_MAX, NotResp, Push, Refusal, packed, read


async def parsed(data: bytes) -> object:
    reader = asyncio.StreamReader(limit=1024)
    reader.feed_data(data)
    reader.feed_eof()
    found = await read(reader)
    assert await reader.read() == b""
    return found


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=5))
def test_a_command_is_read_as_it_was_packed(parts: list[bytes]) -> None:
    assert asyncio.run(parsed(packed(*parts))) == parts


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"+PONG\r\n", b"PONG"),
        (b":12\r\n", b"12"),
        (b"_\r\n", None),
        (b"#t\r\n", b"t"),
        (b"$0\r\n\r\n", b""),
        (b"$3\r\n\r\n\0\r\n", b"\r\n\0"),
        (b"=5\r\ntxt:a\r\n", b"txt:a"),
        (b"%1\r\n+proto\r\n:3\r\n", [b"proto", b"3"]),
        (b"~2\r\n+a\r\n*1\r\n_\r\n", [b"a", [None]]),
        (b"-NOAUTH Authentication required.\r\n", Refusal("NOAUTH Authentication required.")),
        (b"!5\r\nERR a\r\n", Refusal("ERR a")),
        (b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n", Push([b"message", b"c", b"x"])),
    ],
)
async def test_replies(data: bytes, reply: object) -> None:
    assert await parsed(data) == reply


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$-1\r\n",
        b"$x\r\n",
        b"$\r\n",
        b"*-1\r\n",
        b"$1000000000\r\n",
        b"*%d\r\n" % (ITEMS_MAX + 1),
        b"*99999999999999999999\r\n",
        b"*1\r\n" * 20,
        b"+" + b"x" * 5000 + b"\r\n",
    ],
)
async def test_what_is_no_reply_or_too_long_is_refused(data: bytes) -> None:
    with pytest.raises(NotResp):
        await parsed(data)


@pytest.mark.parametrize("length", [BULK_MAX, BULK_MAX + 1, BULK_MAX + 200_000])
async def test_what_is_too_long_is_cut_and_what_follows_is_read(length: int) -> None:
    reader = asyncio.StreamReader(limit=1024)
    reader.feed_data(b"*2\r\n$%d\r\n%b\r\n+a\r\n+b\r\n" % (length, b"x" * length))
    found = await read(reader)
    assert found == [b"x" * BULK_MAX, b"a"]
    assert await read(reader) == b"b"


@pytest.mark.parametrize("data", [b"", b"+PON", b"$3\r\nab", b"*2\r\n+a\r\n"])
async def test_what_breaks_off_is_an_end(data: bytes) -> None:
    with pytest.raises(EOFError):
        await parsed(data)


def test_a_refusal_is_shown_by_its_kind_alone() -> None:
    assert Refusal("ERR unknown command 'HELLO', with args '3' 'AUTH' 's3cret'").code == "ERR"
