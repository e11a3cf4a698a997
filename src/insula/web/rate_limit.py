"""Requests a minute, for each key and each address; off unless ``INSULA_RATE_LIMIT`` is set."""

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from insula.errors import TooMany
from insula.settings import Network
from insula.web.client import client_address

REMEMBERED = 50_000
"""Callers that are counted at once; who was seen longest ago is forgotten first."""

_FREE = ("/healthz", "/readyz", "/metrics")


class RateLimit:
    """Middleware: a caller may send a minute's worth at once, then as fast as it refills."""

    def __init__(
        self,
        app: ASGIApp,
        per_minute: int,
        trusted: Sequence[Network] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app = app
        self._step = 60.0 / per_minute
        self._trusted = trusted
        self._clock = clock
        self._due: OrderedDict[str, float] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in _FREE:
            self._count(f"address {client_address(scope, self._trusted)}")
            for name, value in scope["headers"]:
                if name == b"authorization":
                    self._count(f"key {hashlib.sha256(value).hexdigest()}")
        await self.app(scope, receive, send)

    def _count(self, caller: str) -> None:
        """Take one request from the caller's budget: its time of full refill moves on a step."""
        now = self._clock()
        due = max(self._due.get(caller, 0.0), now) + self._step
        if due - now > 60.0:
            wait = math.ceil(due - now - 60.0)
            raise TooMany(
                f"Too many requests: {round(60 / self._step)} a minute are allowed "
                "(INSULA_RATE_LIMIT).",
                retry_after=max(1, wait),
            )
        self._due[caller] = due
        self._due.move_to_end(caller)
        if len(self._due) > REMEMBERED:
            self._due.popitem(last=False)
