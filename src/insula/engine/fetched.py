"""What the ``fetch`` of code was answered: kept with the end of its unit, so that a test of the run
can play it.

Requests are told apart by method, URL and body, here and by their idempotency keys: code may send
them at the same time, and in another order at another attempt. Handles of secrets, of which every
run has its own, all count as the same.
"""

import base64
import hashlib
from collections.abc import Awaitable, Callable

import msgspec

from insula.engine.failures import StepFailure
from insula.engine.ports import Fetch, HttpRequest, HttpResponse
from insula.engine.secrets import HANDLE
from insula.engine.state import RunState
from insula.kit.json import Raw

BODY_MAX = 256 * 1024
"""Bytes of one answer's body; a larger one is not kept."""
STEP_MAX = 1024 * 1024
"""Bytes that are kept of the answers to one step, all its iterations and calls together."""
RUN_MAX = 16 * 1024 * 1024
"""Bytes that are kept of the answers to all steps of a run."""


class Fetched(msgspec.Struct, omit_defaults=True):
    """One request, named by a digest, and what came of it: an answer or an error.

    ``open``: neither, by the time that the code had ended. ``omitted``: too much to be kept.
    """

    asked: str
    status: int = 0
    url: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    data: str | None = None
    """In base64, a body that is no UTF-8."""
    error: str | None = None
    code: str = ""
    omitted: bool = False
    open: bool = False

    def response(self) -> HttpResponse:
        """Return the answer again.

        Raises:
            StepFailure: there was none.
        """
        if self.error is not None:
            raise StepFailure(self.error, self.code)
        body = self.body.encode() if self.data is None else base64.b64decode(self.data)
        return HttpResponse(self.status, self.headers, body, self.url)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[Fetched])


def decode_fetched(data: Raw) -> list[Fetched]:
    """Decode what ``Fetches.taken`` returned."""
    return _decoder.decode(data)


def digest(request: HttpRequest) -> str:
    """Name a request by its method, URL and body."""
    method = request.method.upper()
    url = HANDLE.sub("", request.url.strip())
    made = hashlib.sha256(f"{method} {url}\n".encode("utf-8", "surrogatepass"))
    body = request.body or b""
    if b"insulasecret" in body:
        body = HANDLE.sub("", body.decode("latin-1")).encode("latin-1")
    made.update(body)
    return made.hexdigest()[:32]


class Fetches:
    """Collects what the code of one attempt at a unit of a step is answered, in the order asked."""

    def __init__(self, state: RunState, key: str) -> None:
        self._state = state
        self._key = key
        self._parts: list[bytes] = []
        self._size = 0

    def through(self, fetch: Callable[[HttpRequest, str], Awaitable[HttpResponse]]) -> Fetch:
        """Return a ``fetch`` whose answers are collected, made of one that is given each request's
        digest besides."""

        async def collected(request: HttpRequest) -> HttpResponse:
            asked = digest(request)
            place = self._add(Fetched(asked, open=True))
            try:
                response = await fetch(request, asked)
            except StepFailure as failure:
                self._settle(place, Fetched(asked, error=failure.message, code=failure.code))
                raise
            self._settle(place, _answered(asked, response))
            return response

        return collected

    def taken(self) -> Raw | None:
        """Return all that there is room for, as JSON; ``None`` where nothing was asked."""
        if not self._parts:
            return None
        room, kept = self._room(), []
        for part in self._parts:
            room -= len(part) + 1
            if room < 0:
                break
            kept.append(part)
        return Raw(b"[" + b",".join(kept) + b"]") if kept else None

    def _room(self) -> int:
        step = self._state.steps.get(self._key)
        used = 0 if step is None else step.fetched
        return min(STEP_MAX - used, RUN_MAX - self._state.fetched)

    def _add(self, made: Fetched) -> int | None:
        """Keep a place for an answer; ``None`` if there is no room for another one."""
        part = _encoder.encode(made)
        if self._size + len(part) > self._room():
            return None
        self._parts.append(part)
        self._size += len(part) + 1
        return len(self._parts) - 1

    def _settle(self, place: int | None, made: Fetched) -> None:
        if place is None:
            return
        before = len(self._parts[place])
        try:
            part = _encoder.encode(made)
        except UnicodeEncodeError:  # half of a surrogate pair cannot be stored
            part = b""
        if not part or self._size - before + len(part) > self._room():
            part = _encoder.encode(Fetched(made.asked, omitted=True))
        self._parts[place] = part
        self._size += len(part) - before


def _answered(asked: str, response: HttpResponse) -> Fetched:
    body = response.body
    if len(body) > BODY_MAX:
        return Fetched(asked, omitted=True)
    made = Fetched(asked, response.status, response.url, response.headers)
    try:
        made.body = body.decode()
    except UnicodeDecodeError:
        made.data = base64.b64encode(body).decode()
    return made
