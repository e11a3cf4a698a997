"""Every provider that speaks OpenAI's chat protocol, through pydantic-ai's direct model layer.

Loads the library (55 MiB, over a second): ``providers`` imports this module late, in a thread.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any

import httpx2
from openai import AsyncOpenAI
from pydantic_ai import direct
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError
from pydantic_ai.messages import (
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIChatModelSettings
from pydantic_ai.profiles.openai import OpenAIModelProfile
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.usage import RequestUsage

from insula.adapters.http.pool import Pool
from insula.adapters.models.configured import Endpoint
from insula.adapters.models.conversation import AppsDownload, convert
from insula.adapters.models.prices import credits_of
from insula.adapters.models.transport import Wire
from insula.engine.failures import StepFailure, plain
from insula.engine.ports import Activity, ModelDelta, ModelReply, ModelRequest, ModelToolCall
from insula.kit.json import InvalidJson, decode
from insula.kit.json_bounds import OverBounds, bound

_LONGEST_MESSAGE = 500
_NO_TEXT = "answered with text that is not Unicode (half a surrogate pair)"
_MOST_TOKENS = 1_000_000_000
_CODES = {429: "rate_limited", 408: "timeout", 504: "timeout"}

# A stream that ends without saying why was cut off, even if the connection closed in good order.
_PROFILE = OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True)
_OTHERS = OpenAIModelProfile(
    openai_chat_streaming_requires_finish_reason=True,
    openai_chat_supports_max_completion_tokens=False,
)


_REHEARSED = b"".join(
    b"data: " + line + b"\n\n"
    for line in (
        b'{"id":"x","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":'
        b'[{"index":0,"delta":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}',
        b'{"id":"x","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[],'
        b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}',
        b"[DONE]",
    )
)


class OpenAICompatible:
    """One provider: where it is, its key, and its connections."""

    def __init__(self, endpoint: Endpoint, pool: Pool, download: AppsDownload) -> None:
        self._endpoint = endpoint
        self._pool = pool
        self._download = download

    async def stream(
        self, request: ModelRequest, activity: Activity
    ) -> AsyncGenerator[ModelDelta | ModelReply, None]:
        """Yield deltas as they arrive, then the reply; close the socket however it ends."""
        if request.options.get("features"):
            raise StepFailure("provider.features is not available yet: remove it", "not_available")
        authorized = self._endpoint.key is not None
        wire = Wire(self._pool, request.app_id, activity, authorized)
        try:
            messages = await convert(
                request.messages,
                request.response_format == "json",
                partial(self._download, request.app_id),
            )
            with self._model(request.model, wire) as model:
                async with direct.model_request_stream(
                    model,
                    messages,
                    model_settings=_settings(request),
                    model_request_parameters=_parameters(request),
                ) as stream:
                    async with aclosing(aiter(stream)) as events:  # type: ignore[type-var]  # a generator
                        async for event in events:
                            if text := _text_of(event):
                                if not _is_text(text):
                                    raise self._unusable(_NO_TEXT)
                                yield ModelDelta(text)
                    response = stream.get()
            yield self._reply(request, response)
        except Exception as error:
            raise self._failure(error) from None
        finally:
            wire.close_now()

    @contextmanager
    def _model(self, name: str, wire: httpx2.AsyncBaseTransport) -> Iterator[OpenAIChatModel]:
        endpoint = self._endpoint
        client = AsyncOpenAI(
            base_url=endpoint.url,
            api_key=endpoint.key or "none",
            max_retries=0,
            timeout=None,  # the round's own deadline holds
            http_client=httpx2.AsyncClient(transport=wire, trust_env=False),
        )
        try:
            if endpoint.name == "openai":
                provider = OpenAIProvider(openai_client=client)
                yield OpenAIChatModel(name, provider=provider, profile=_PROFILE)
            else:
                others = OpenAICompatibleProvider(endpoint.name, openai_client=client)
                yield OpenAIChatModel(name, provider=others, profile=_OTHERS)
        finally:
            # The client keeps a part that keeps the client, and so the round and all it held.
            vars(client).pop("chat", None)

    async def rehearse(self) -> None:
        """Go through one round without a network, so that the first real one finds all ready."""

        def answer(_: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(
                200, headers={"content-type": "text/event-stream"}, content=_REHEARSED
            )

        async def nothing(url: str) -> tuple[bytes, str]:
            raise AssertionError(url)

        messages = await convert([{"role": "user", "content": "x"}], False, nothing)
        with self._model("gpt-4o", httpx2.MockTransport(answer)) as model:
            async with direct.model_request_stream(model, messages) as stream:
                async for _ in stream:
                    continue
        credits_of(stream.get().usage, "openai", "gpt-4o", "")

    def _reply(self, request: ModelRequest, response: ModelResponse) -> ModelReply:
        """Make the reply of what the library found.

        Raises:
            StepFailure: ``provider``, nothing can be made of it.
        """
        details = response.provider_details or {}
        calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
        refusal = details.get("refusal")
        usage = _believed(response.usage)
        credits = credits_of(usage, self._endpoint.name, request.model, self._endpoint.url)
        if (fault := _fault_in(response)) is not None:
            raise self._unusable(fault, credits)
        return ModelReply(
            provider=request.provider,
            model=request.model,
            text="".join(p.content for p in response.parts if isinstance(p, TextPart)),
            tool_calls=tuple(
                ModelToolCall(part.tool_call_id, part.tool_name, self._arguments(part, credits))
                for part in calls
            ),
            refusal=refusal if _is_text(refusal) else None,
            credits=credits,
            raw={
                "id": _named(response.provider_response_id),
                "model": _named(response.model_name),
                "finish_reason": response.finish_reason,
                "usage": {
                    "input_tokens": usage.input_tokens,
                    "output_tokens": usage.output_tokens,
                },
            },
        )

    def _arguments(self, part: ToolCallPart, credits: float) -> Any:
        """Return a call's arguments as a value; text that is not JSON stays text.

        Raises:
            StepFailure: ``provider``, they are over the bounds of JSON.
        """
        given = part.args
        if not isinstance(given, str):
            return given or {}
        try:
            bound(given.encode("utf-8", "surrogatepass"))
            return decode(given) if given.strip() else {}
        except OverBounds as error:
            fault = f"called a tool with arguments that cannot be taken: {error}"
            raise self._unusable(fault, credits) from error
        except InvalidJson:
            return given

    def _unusable(self, fault: str, credits: float = 0.0) -> StepFailure:
        return StepFailure(f"{self._endpoint.name} {fault}", "provider", credits=credits)

    def _failure(self, error: Exception) -> StepFailure:
        """Make the step's failure of whatever the library raised."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, StepFailure):
                return cause
            if isinstance(cause, httpx2.TransportError):
                where = self._endpoint.place
                return StepFailure(f"the connection with {where} broke: {cause}", "network")
            cause = cause.__cause__ or cause.__context__
        name = self._endpoint.name
        if isinstance(error, ModelHTTPError):
            code = _CODES.get(error.status_code, "provider")
            said = self._clean(_message_in(error.body))
            return StepFailure(f"{name} answered {error.status_code}: {said}", code)
        said = self._clean(error.message if isinstance(error, ModelAPIError) else str(error))
        return StepFailure(f"{name} failed: {said or type(error).__name__}", "provider")

    def _clean(self, text: str) -> str:
        """Shorten a provider's words and take the key out of them."""
        if self._endpoint.key:
            text = text.replace(self._endpoint.key, "•••")
        return text if len(text) <= _LONGEST_MESSAGE else text[:_LONGEST_MESSAGE] + "…"


def _settings(request: ModelRequest) -> OpenAIChatModelSettings:
    settings = OpenAIChatModelSettings()
    if request.temperature is not None:
        settings["temperature"] = request.temperature
    if request.max_tokens is not None:
        settings["max_tokens"] = request.max_tokens
    if request.tools:
        settings["tool_choice"] = request.tools_mode
        settings["parallel_tool_calls"] = request.tools_parallel
    if request.response_format == "json":
        settings["extra_body"] = {"response_format": {"type": "json_object"}}
    if request.idempotency_key is not None:
        settings["extra_headers"] = {"Idempotency-Key": request.idempotency_key}
    return settings


def _parameters(request: ModelRequest) -> ModelRequestParameters:
    tools = [
        ToolDefinition(
            name=tool.name,
            description=tool.description,
            parameters_json_schema=dict(tool.schema),
            strict=False,
        )
        for tool in request.tools
    ]
    return ModelRequestParameters(function_tools=tools)


def _fault_in(response: ModelResponse) -> str | None:
    """Say what is wrong with an answer: the library takes everything as it comes."""
    calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
    texts = [part.content for part in response.parts if isinstance(part, TextPart)]
    if not all(map(_is_text, texts)):
        return _NO_TEXT
    # A call that has no name at all is not among the parts.
    if response.finish_reason == "tool_call" and not calls:
        return "asked for a tool and named none"
    for call in calls:
        if not _is_text(call.tool_name) or not call.tool_name:
            return "called a tool whose name is no text"
        if not _is_text(call.tool_call_id):
            return "called a tool under an id that is no text"
    return None


def _is_text(value: object) -> bool:
    """Say whether something is text that UTF-8 can hold, which half a surrogate pair is not."""
    return isinstance(value, str) and value == value.encode("utf-8", "replace").decode()


def _named(value: object) -> str | None:
    """Return a name that a provider gives, if it is one."""
    return plain(value, _LONGEST_MESSAGE) if isinstance(value, str) else None


def _believed(usage: RequestUsage) -> RequestUsage:
    """Return what was counted; nothing where it is more than any answer can have."""
    counts = (usage.input_tokens, usage.output_tokens)
    return usage if all(0 <= count <= _MOST_TOKENS for count in counts) else RequestUsage()


def _text_of(event: ModelResponseStreamEvent) -> str:
    if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
        return event.part.content
    if isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
        return event.delta.content_delta
    return ""


def _message_in(body: object) -> str:
    """Find the words in an error body of any of the usual shapes."""
    while isinstance(body, dict):
        body = body.get("error") or body.get("message") or body.get("detail") or ""
    return str(body) if body else "no message"
