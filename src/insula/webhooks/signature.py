"""Signatures as Standard Webhooks has them: HMAC-SHA256 over id, time and body."""

import base64
import hashlib
import hmac
import os
from typing import Final

PREFIX: Final = "whsec_"
_BYTES = 24


def new_secret() -> str:
    """Make a secret that an endpoint checks signatures with."""
    return PREFIX + base64.b64encode(os.urandom(_BYTES)).decode()


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of ``webhook-signature``; ``timestamp`` is in Unix seconds."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def headers(
    secret: str, message_id: str, timestamp: int, body: bytes
) -> tuple[tuple[str, str], ...]:
    """Return the headers that go with a body."""
    return (
        ("content-type", "application/json"),
        ("user-agent", "Insula-Webhooks"),
        ("webhook-id", message_id),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", sign(secret, message_id, timestamp, body)),
    )
