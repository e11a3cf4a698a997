"""The engine's ports with a run's secrets around them: handles go out, masked answers come back.

What comes out of here is what the run sees, stores, logs and streams: nothing else is masked later.
"""

import asyncio
import traceback
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from insula.engine.failures import StepFailure
from insula.engine.masking import PLAIN_MASK, Masker
from insula.engine.ports import (
    Activity,
    Evaluated,
    Evaluation,
    Http,
    HttpRequest,
    HttpResponse,
    ModelDelta,
    ModelReply,
    ModelRequest,
    Models,
    ModelToolCall,
    Sandbox,
    ServiceCall,
    Services,
)
from insula.engine.secrets import Secrets
from insula.kit import json
from insula.kit.json import Raw

T = TypeVar("T")
_LARGE = 128 * 1024
"""Bytes beyond which masking is done away from the event loop."""


@contextmanager
def covering(secrets: Secrets) -> Iterator[None]:
    """Cover the values in what is raised.

    Raises:
        StepFailure: the one that was raised, masked.
        RuntimeError: in the place of any other error whose words, or those of its causes, hold one.
    """
    try:
        yield
    except StepFailure as failure:
        raise secrets.failure(failure) from None
    except Exception as error:
        words = "".join(traceback.format_exception(error))
        if not secrets.masker.spans(words.encode("utf-8", "replace")):
            raise
        told = secrets.masker.text(f"{type(error).__name__}: {error}")
        raise RuntimeError(told) from None


class GuardedSandbox:
    """JavaScript whose results, logs and errors are masked: it may have decoded an answer."""

    def __init__(self, sandbox: Sandbox, secrets: Secrets) -> None:
        self._sandbox = sandbox
        self._secrets = secrets

    async def evaluate(self, evaluation: Evaluation, activity: Activity) -> Evaluated:
        """Run the scripts, as the port says."""
        with covering(self._secrets):
            done = await self._sandbox.evaluate(evaluation, activity)
        parts = [part for part in (*done.outputs, done.logs) if part is not None]
        if sum(len(memoryview(part)) for part in parts) > _LARGE:
            return await asyncio.to_thread(self._masked, done)
        return self._masked(done)

    def _masked(self, done: Evaluated) -> Evaluated:
        return Evaluated(tuple(self._json(one) for one in done.outputs), self._json(done.logs))

    def _json(self, value: Raw | None) -> Raw | None:
        return None if value is None else self._secrets.masker.json(value)


class GuardedHttp:
    """Requests that the values are put into as they leave, and whose answers are masked."""

    def __init__(self, http: Http, secrets: Secrets) -> None:
        self._http = http
        self.secrets = secrets

    async def send(self, request: HttpRequest, activity: Activity) -> HttpResponse:
        """Send, as the port says."""
        with covering(self.secrets):
            response = await self._http.send(replace(request, secrets=self.secrets), activity)
        if len(response.body) > _LARGE:
            return await asyncio.to_thread(masked_response, response, self.secrets.masker)
        return masked_response(response, self.secrets.masker)


def masked_response(response: HttpResponse, masker: Masker) -> HttpResponse:
    """Cover the values in an answer; JSON stays JSON."""
    return HttpResponse(
        response.status,
        tuple((masker.text(name), masker.text(value)) for name, value in response.headers),
        _body(response, masker),
        masker.text(response.url),
    )


def _body(response: HttpResponse, masker: Masker) -> bytes:
    if not masker.spans(response.body):
        return response.body
    try:
        return json.encode(masker.value(json.decode(response.body)))
    except json.InvalidJson:
        try:
            response.body.decode()
        except UnicodeDecodeError:
            return masker.data(response.body, PLAIN_MASK)
        return masker.data(response.body)


class GuardedServices:
    """Service actions whose outputs and errors are masked; what they are given holds handles."""

    def __init__(self, services: Services, secrets: Secrets) -> None:
        self._services = services
        self._secrets = secrets

    async def call(self, call: ServiceCall, activity: Activity) -> Raw:
        """Do it, as the port says."""
        with covering(self._secrets):
            output = await self._services.call(call, activity)
        return self._secrets.masker.json(output)


class GuardedModels:
    """Models whose words are masked; what they are asked holds handles, never values."""

    def __init__(self, models: Models, secrets: Secrets) -> None:
        self._models = models
        self._secrets = secrets

    def identify(
        self, provider: str, model: str, connection_id: str | None = None
    ) -> tuple[str, str]:
        """Return the provider and model that will answer."""
        return self._models.identify(provider, model, connection_id)

    async def stream(
        self, request: ModelRequest, activity: Activity
    ) -> AsyncGenerator[ModelDelta | ModelReply, None]:
        """Yield deltas, then one reply, as the port says."""
        stream = self._models.stream(request, activity)
        async with aclosing(masked_stream(stream, request, self._secrets)) as masked:
            async for piece in masked:
                yield piece


async def masked_stream(
    stream: AsyncGenerator[ModelDelta | ModelReply, None], request: ModelRequest, secrets: Secrets
) -> AsyncGenerator[ModelDelta | ModelReply, None]:
    """Cover the values in what a model says, wherever its pieces are cut."""
    said = secrets.masker.stream()
    with covering(secrets):
        async with aclosing(stream):
            async for piece in stream:
                if isinstance(piece, ModelReply):
                    if rest := said.finish():
                        yield ModelDelta(rest)
                    yield masked_reply(piece, request, secrets.masker)
                    continue
                if piece.restart:
                    said = secrets.masker.stream()
                text = said.feed(piece.text)
                if text or piece.restart:
                    yield ModelDelta(text, piece.restart)


def masked_reply(reply: ModelReply, request: ModelRequest, masker: Masker) -> ModelReply:
    """Cover the values in a model's answer, in its calls' arguments, and in what is raw."""

    def text(words: str) -> str:
        return masker.text(words)

    message = text(reply.text)
    if message != reply.text and request.response_format == "json":
        message = bytes(masker.json(Raw(reply.text.encode("utf-8", "replace")))).decode()
    raw: Any = None if reply.raw is None else masker.value(dict(reply.raw))
    return replace(
        reply,
        text=message,
        tool_calls=tuple(
            ModelToolCall(text(call.id), text(call.name), masker.value(call.input))
            for call in reply.tool_calls
        ),
        refusal=None if reply.refusal is None else text(reply.refusal),
        raw=raw,
    )
