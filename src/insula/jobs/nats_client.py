"""The client library, of which no single message can end the reading.

A broker passes on what anyone publishes: headers that are none, the name of an inbox that is no
text, or a status that only the broker itself should say. The library reads them all, and stops
where it cannot; for each of them a node would be cut off.
"""

import re

from nats.aio.client import Client
from nats.protocol import parser

from insula.jobs.seldom import Seldom

_INBOX = b"_INBOX."
_REPLY = re.compile(r"_INBOX(\.[A-Za-z0-9_-]{1,100}){1,4}")
# The library's own take a vertical tab and a form feed for spaces, which the broker does not.
parser.MSG_RE = re.compile(rb"\AMSG +([^ \r\n]+) +(\d+) +(([^ \r\n]+) +)?(\d+)\r\n")
parser.HMSG_RE = re.compile(rb"\AHMSG +([^ \r\n]+) +(\d+) +(([^ \r\n]+) +)?(\d+) +(\d+)\r\n")


class EnduringClient(Client):
    """A client that drops a message which it cannot read, and reads on."""

    def __init__(self, seldom: Seldom) -> None:
        super().__init__()
        self._seldom = seldom

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        """Take a message in; of headers only those of answers, with which the broker itself says
        that there is none."""
        wanted = headers if subject.startswith(_INBOX) else b""
        try:
            await super()._process_msg(sid, subject, reply, data, wanted)
        except (ValueError, LookupError, TypeError) as error:
            self._seldom.warn("signal.unreadable", error=type(error).__name__, bytes=len(data))


def is_reply(subject: str) -> bool:
    """Say whether it is where an answer may go: an inbox, and no subject with a meaning."""
    return _REPLY.fullmatch(subject) is not None
