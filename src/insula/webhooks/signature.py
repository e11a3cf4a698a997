"""Signatures as Standard Webhooks has them: HMAC-SHA256 over id, time and body; and the secrets
that sign. One that is replaced signs on beside the new one for a day, so that nothing is missed.
"""

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

PREFIX: Final = "whsec_"
EARLIER_MS: Final = 24 * 60 * 60 * 1000
"""How long a secret signs that was replaced."""
_BYTES = 24
_EARLIER_MOST = 3


def new_secret() -> str:
    """Make a secret that an endpoint checks signatures with."""
    return PREFIX + base64.b64encode(os.urandom(_BYTES)).decode()


@dataclass(frozen=True, slots=True)
class Signers:
    """A webhook's secret, and those before it with the times until which they sign, newest first.

    Stored as text: the secret, then a line for each of the others.
    """

    current: str
    earlier: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Signers":
        """Read what ``text`` wrote."""
        current, *lines = text.split("\n")
        pairs = (line.split(" ") for line in lines)
        return cls(current, tuple((secret, int(until)) for secret, until in pairs))

    def text(self) -> str:
        """Write it as it is stored."""
        lines = (f"{secret} {until}" for secret, until in self.earlier)
        return "\n".join((self.current, *lines))

    def rotated(self, now: int) -> "Signers":
        """Return these with another secret before them."""
        earlier = ((self.current, now + EARLIER_MS), *self.earlier)
        kept = tuple(pair for pair in earlier if pair[1] > now)
        return Signers(new_secret(), kept[:_EARLIER_MOST])

    def at(self, now: int) -> tuple[str, ...]:
        """Return the secrets that sign at a time."""
        return (self.current, *(secret for secret, until in self.earlier if until > now))


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return a signature for ``webhook-signature``; ``timestamp`` is in Unix seconds."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def headers(
    secrets: Sequence[str], message_id: str, timestamp: int, body: bytes
) -> tuple[tuple[str, str], ...]:
    """Return the headers that go with a body, signed by each secret."""
    signatures = (sign(secret, message_id, timestamp, body) for secret in secrets)
    return (
        ("content-type", "application/json"),
        ("user-agent", "Insula-Webhooks"),
        ("webhook-id", message_id),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", " ".join(signatures)),
    )
