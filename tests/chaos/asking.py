"""How a client asks nodes that die, stand still and cannot be reached: again, elsewhere, with the
same key; and how it follows a stream across such moments.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp

from tests.acceptance.harness import Answer, Caller
from tests.chaos.history import FINAL, Heard, History, Listening

PATIENCE = aiohttp.ClientTimeout(total=12, sock_connect=1)
"""Seconds after which a client gives a request up and asks again."""
_PAUSE = 0.04
_AWAY = (aiohttp.ClientError, TimeoutError, OSError)
_NOT_NOW = (429, 503)
_NOTHING_MORE = 204


class Unanswerable(AssertionError):
    """An answer that no caller should ever get."""


class Asking:
    """One client's way to the nodes."""

    def __init__(self, callers: Sequence[Caller], route: random.Random, history: History) -> None:
        self.callers = callers
        self.history = history
        self.waits = ""
        """What was asked for last, and how that went, for when no answer comes at all."""
        self._route = route

    def somewhere(self) -> Caller:
        """Choose a node."""
        return self._route.choice(self.callers)

    async def insist(
        self, method: str, path: str, body: Any = None, **more: Any
    ) -> tuple[float, Answer]:
        """Ask until there is an answer; return when it was asked for, and the answer.

        Raises:
            Unanswerable: it is neither what was asked for nor a refusal that may be tried again.
        """
        while True:
            asked = time.monotonic()
            what = f"{method} {path} {more.get('headers', '')}"
            try:
                answer = await self.somewhere().ask(method, path, body, timeout=PATIENCE, **more)
            except _AWAY as error:
                self.waits = f"{what}: {error!r}"
                await asyncio.sleep(_PAUSE)
                continue
            self.waits = f"{what}: {answer.status} {answer.body[:200]!r}"
            if answer.status == 200:
                return asked, answer
            if not self.may_wait(answer.status, answer.headers.get("retry-after")):
                again = [await self._again(each, method, path, body, more) for each in self.callers]
                words = f"{answer.status} {answer.body[:300]!r}; again at each node: {again}"
                raise self.odd(f"{method} {path}: {words}")
            await asyncio.sleep(_PAUSE)

    async def _again(
        self, caller: Caller, method: str, path: str, body: Any, more: dict[str, Any]
    ) -> str:
        """Say what comes of the same request a moment later: does an odd answer stay?"""
        try:
            answer = await caller.ask(method, path, body, timeout=PATIENCE, **more)
        except _AWAY as error:
            return repr(error)
        return f"{answer.status} {answer.body[:60]!r}"

    def may_wait(self, status: int, retry_after: str | None) -> bool:
        """Say whether an answer is a refusal for now, in due form."""
        return status in _NOT_NOW and retry_after is not None

    def odd(self, what: str) -> Unanswerable:
        """Write down what nobody should be told."""
        self.history.odd.append(what)
        return Unanswerable(what)


class Listener:
    """Starts one streamed run and hears it to its end, through as many connections as it takes."""

    def __init__(self, asking: Asking, path: str, given: Any, key: str) -> None:
        self._asking = asking
        self._path = path
        self._body = {"input": given, "stream": True}
        self._key = key
        self._stream: Listening | None = None

    async def hear(self) -> Listening:
        """Return the stream, heard to its end."""
        while self._stream is None or not self._stream.ended:
            try:
                await self._connect()
            except _AWAY as error:
                self._asking.waits = f"stream {self._path} {self._key}: {error!r}"
                await asyncio.sleep(_PAUSE)
        return self._stream

    async def _connect(self) -> None:
        caller = self._asking.somewhere()
        async with self._request(caller) as response:
            self._asking.waits = f"stream {self._path} {self._key}: {response.status}"
            if response.status == _NOTHING_MORE and self._stream is not None:
                raise self._asking.odd(f"{self._stream.run_id}: 204 before the final event")
            if response.status != 200:
                retry_after = response.headers.get("retry-after")
                if not self._asking.may_wait(response.status, retry_after):
                    raise self._asking.odd(f"a stream: {response.status} {await response.text()}")
                await asyncio.sleep(_PAUSE)
                return
            async for number, name, data in events(response):
                self._hear(number, name, data)

    def _request(self, caller: Caller) -> Any:
        headers = {"authorization": f"Bearer {caller.key}"}
        if self._stream is None:
            headers["idempotency-key"] = self._key
            url = f"{caller.served.url}/apps/c/{self._path}"
            return caller.session.post(url, json=self._body, headers=headers, timeout=PATIENCE)
        headers["last-event-id"] = str(self._stream.events[-1].number)
        url = f"{caller.served.url}/apps/c/{self._path}/{self._stream.run_id}/stream"
        return caller.session.get(url, headers=headers, timeout=PATIENCE)

    def _hear(self, number: int, name: str, data: Any) -> None:
        if self._stream is None:
            self._stream = Listening(str(data.get("id")))
            self._asking.history.streams.append(self._stream)
        stream = self._stream
        stream.events.append(Heard(time.monotonic(), stream.run_id, number, name, data))
        if name == "run" and data["status"] in FINAL:
            stream.ended = True


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[int, str, Any]]:
    """Read server-sent events; what is broken off in the midst of one is not one."""
    fields: dict[str, str] = {}
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif not line and fields:
            yield int(fields["id"]), fields["event"], json.loads(fields["data"])
            fields = {}
