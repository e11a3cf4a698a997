"""What anyone publishes over NATS: read or dropped alone, whatever it is, and never the end."""

import asyncio

import pytest
from nats.protocol.parser import Parser
from structlog.testing import capture_logs
from tests.jobs.events import Heard, until
from tests.nats import NatsServer

from insula.jobs.nats_client import is_reply
from insula.jobs.nats_link import NatsLink
from insula.jobs.nats_signals import NatsSignals
from insula.jobs.signals import MESSAGE_MAX


class Read:
    """A client that remembers what was read for it."""

    def __init__(self) -> None:
        self.messages: list[tuple[object, ...]] = []

    async def _process_msg(self, *message: object) -> None:
        self.messages.append(message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"MSG a.b 1 2\r\nxy\r\n", (1, b"a.b", b"", b"xy", None)),
        (b"MSG a 1 _INBOX.c 0\r\n\r\n", (1, b"a", b"_INBOX.c", b"", None)),
        (b"MSG a 1 c\x0bd\x0c 0\r\n\r\n", (1, b"a", b"c\x0bd\x0c", b"", None)),
        (b"MSG a 1 \xff 0\r\n\r\n", (1, b"a", b"\xff", b"", None)),
        (b"HMSG a 1  2 3\r\nhhx\r\n", (1, b"a", b"", b"x", b"hh")),  # so says the broker
        (b"HMSG a 1 c 2 2\r\nhh\r\n", (1, b"a", b"c", b"", b"hh")),
    ],
)
async def test_what_the_broker_says_is_read(line: bytes, message: tuple[object, ...]) -> None:
    read = Read()
    await Parser(read).parse(line)
    assert read.messages == [message]


@pytest.mark.parametrize(
    ("subject", "reply"),
    [
        ("_INBOX.a.b", True),
        ("_INBOX.tNa2ksf1U9hb61NzPHLQU2", True),
        ("", False),
        ("_INBOX", False),
        ("_INBOX.*", False),
        ("_INBOX.>", False),
        ("_INBOX..a", False),
        ("insula.one.sweep", False),
        ("$JS.API.STREAM.DELETE.one", False),
    ],
)
def test_an_answer_goes_to_an_inbox_alone(subject: str, reply: bool) -> None:
    assert is_reply(subject) is reply


HEADERS = [
    b"\xff\xff",
    b"NATS/1.0",
    b"NATS/1.0\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0 \xff\xff\xff\r\n\r\n",
    b"NATS/1.0 503 \xff\r\n\r\n",
]
REPLIES = [b"\xff\xfe", b"a\x0bb", b"a\x0cb", b"a.*", b">", b"a..b", b"$SYS.REQ.a", b"_INBOX.a"]


def published(subject: bytes) -> list[bytes]:
    """Return what a stranger may send to the broker, and it passes on."""
    lines = [b"HPUB %b %d %d\r\n%bx\r\n" % (subject, len(h), len(h) + 1, h) for h in HEADERS]
    lines += [b"PUB %b %b 1\r\nx\r\n" % (subject, reply) for reply in REPLIES]
    return [*lines, b"PUB %b %d\r\n%b\r\n" % (subject, MESSAGE_MAX + 1, b"x" * (MESSAGE_MAX + 1))]


async def test_what_anyone_publishes_costs_that_message_alone(nats_server: NatsServer) -> None:
    prefix = f"insula.{nats_server.installation()}"
    link = NatsLink([nats_server.url], prefix)
    signals = NatsSignals(link, prefix)
    link.start()
    asked = Heard()

    async def echo(body: bytes) -> bytes:
        asked(body)
        return body

    try:
        await until(lambda: signals.connected)
        client, heard = link.client, Heard()
        await signals.listen("run.one", heard)
        await signals.answer("echo", echo)
        reader, writer = await asyncio.open_connection("127.0.0.1", nats_server.port)
        writer.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n')
        with capture_logs() as logs:
            for subject in (f"{prefix}.run.one", f"{prefix}.echo"):
                writer.write(b"".join(published(subject.encode())))
            writer.write(b"PING\r\n")
            await reader.readuntil(b"PONG")
            assert await signals.ask("echo", b"mine", 10.0) == b"mine"
        writer.close()
        assert asked.bodies == [b"x", b"mine"]  # who named an inbox is answered
        unread = 1  # an inbox that is no text, besides what is too long
        await heard.first(len(HEADERS) + len(REPLIES) - unread)
        assert link.client is client
        assert [log["event"] for log in logs] == ["signal.unreadable"]  # the others are counted
    finally:
        await signals.close()
        await link.close()
