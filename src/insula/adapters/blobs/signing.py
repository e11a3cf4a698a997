"""AWS Signature Version 4, for requests with a body in memory.

See https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs requests to one service's region with one pair of keys."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"

    def sign(
        self,
        method: str,
        host: str,
        path: str,
        query: Sequence[tuple[str, str]],
        body: bytes,
        now: datetime | None = None,
        amz: Sequence[tuple[str, str]] = (),
    ) -> tuple[tuple[str, str], ...]:
        """Return the headers that authorise a request, with those of ``amz``, in lower case, among
        them; ``path`` is encoded already."""
        moment = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(body).hexdigest()
        sent = (("x-amz-content-sha256", digest), ("x-amz-date", moment), *amz)
        named = sorted((("host", host), *sent))
        headers = "".join(f"{name}:{value}\n" for name, value in named)
        names = ";".join(name for name, _ in named)
        canonical = "\n".join((method, path, encoded(sorted(query)), headers, names, digest))
        scope = f"{moment[:8]}/{self.region}/s3/aws4_request"
        hashed = hashlib.sha256(canonical.encode()).hexdigest()
        text = "\n".join(("AWS4-HMAC-SHA256", moment, scope, hashed))
        signature = hmac.new(self._key(moment[:8]), text.encode(), hashlib.sha256).hexdigest()
        credential = f"Credential={self.access_key}/{scope}"
        return (
            *sent,
            (
                "authorization",
                f"AWS4-HMAC-SHA256 {credential}, SignedHeaders={names}, Signature={signature}",
            ),
        )

    def _key(self, day: str) -> bytes:
        key = f"AWS4{self.secret_key}".encode()
        for part in (day, self.region, "s3", "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return key


def encoded(query: Sequence[tuple[str, str]]) -> str:
    """Write a query as signatures have it: everything encoded but letters, digits and ``-_.~``."""
    return "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in query
    )
