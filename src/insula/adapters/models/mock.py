"""Provider ``mock``: answers from a script, offline and the same every time.

The script stands in the step's ``provider`` as ``mock``, or in the file that ``INSULA_MOCK_FILE``
names. Which reply is given depends on the conversation alone (the number of assistant messages in
it), so that a run that is resumed gets the same answer again.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from insula.engine.credits import MOST
from insula.engine.failures import StepFailure
from insula.engine.ports import ModelDelta, ModelReply, ModelRequest, ModelToolCall
from insula.kit.json import encode

T = TypeVar("T")
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=86_400_000)]

_MAX_FILE = 16 * 1024 * 1024
_WORD = re.compile(r"\s*\S+|\s+\Z")


class MockToolCall(msgspec.Struct, forbid_unknown_fields=True):
    """A tool that the model asks for; without ``id`` one is made from its place."""

    name: str
    input: Any = {}
    id: str | None = None


class MockError(msgspec.Struct, forbid_unknown_fields=True):
    """An error as a provider's HTTP status; after so many tokens, or else at once."""

    status: int = 500
    message: str = "scripted error"
    after_tokens: Count = 0


class MockUsage(msgspec.Struct, forbid_unknown_fields=True):
    """Tokens, as a provider would count them."""

    input_tokens: Count = 0
    output_tokens: Count = 0


class MockReply(msgspec.Struct, forbid_unknown_fields=True):
    """One answer; see ``docs/reference/models.md``."""

    text: str = ""
    json: Any = msgspec.UNSET
    tool_calls: list[MockToolCall] = []
    refusal: str | None = None
    delay_ms: Milliseconds = 0
    token_delay_ms: Milliseconds = 0
    tokens: Count | None = None
    restart_after: Count | None = None
    error: MockError | None = None
    usage: MockUsage = msgspec.field(default_factory=MockUsage)
    credits: Annotated[float, msgspec.Meta(ge=0, le=MOST)] | None = None


class MockScript(msgspec.Struct, forbid_unknown_fields=True):
    """Replies in order; the last one repeats."""

    replies: Annotated[list[MockReply], msgspec.Meta(min_length=1, max_length=10_000)]


class MockFile(msgspec.Struct, forbid_unknown_fields=True):
    """A file of scripts: one for each model name, and one for all others."""

    replies: list[MockReply] = []
    models: dict[str, MockScript] = {}


class Mock:
    """The provider ``mock``."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._read: tuple[int, MockFile] | None = None

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta | ModelReply, None]:
        """Yield the scripted answer, token by token, then the reply."""
        round_number = sum(message.get("role") == "assistant" for message in request.messages)
        reply = await self._reply(request, round_number)
        await _pause(reply.delay_ms)
        text = reply.text if reply.json is msgspec.UNSET else encode(reply.json).decode()
        pieces = split_tokens(text, reply.tokens)
        if reply.restart_after is not None:
            for piece in pieces[: reply.restart_after]:
                yield ModelDelta(piece)
            yield ModelDelta("", restart=True)
        for number, piece in enumerate(pieces):
            _fail_if_due(reply, number)
            if number:
                await _pause(reply.token_delay_ms)
            yield ModelDelta(piece)
        if reply.error is not None:
            raise scripted_failure(reply.error)
        yield _finished(request, reply, round_number, text)

    async def _reply(self, request: ModelRequest, round_number: int) -> MockReply:
        own = request.options.get("mock")
        if own is not None:
            replies = read_script(own, MockScript, "the step's provider.mock").replies
        elif self._file is not None:
            file = await asyncio.to_thread(self._load, self._file)
            script = file.models.get(request.model)
            replies = script.replies if script is not None else file.replies
        else:
            replies = []
        if not replies:
            return _echo(request)
        return replies[min(round_number, len(replies) - 1)]

    def _load(self, path: Path) -> MockFile:
        """Read the file, again if it has changed."""
        try:
            status = path.stat()
            if self._read is None or self._read[0] != status.st_mtime_ns:
                if status.st_size > _MAX_FILE:
                    raise StepFailure(f"INSULA_MOCK_FILE has more than {_MAX_FILE} bytes", "input")
                value = msgspec.yaml.decode(path.read_bytes())
                self._read = (
                    status.st_mtime_ns,
                    read_script(value, MockFile, "INSULA_MOCK_FILE"),
                )
        except (OSError, msgspec.DecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise StepFailure(f"INSULA_MOCK_FILE cannot be read: {reason}", "input") from None
        return self._read[1]


def read_script(value: object, kind: type[T], where: str) -> T:
    """Check a script. Raises ``StepFailure`` with code ``input``, naming the place."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise StepFailure(f"{where} is no script: {error}", "input") from None


def split_tokens(text: str, count: int | None) -> list[str]:
    """Split into words, or into so many pieces of nearly equal length."""
    if count is None:
        return _WORD.findall(text)
    count = min(max(count, 1), len(text))
    return [text[len(text) * i // count : len(text) * (i + 1) // count] for i in range(count)]


def scripted_failure(error: MockError) -> StepFailure:
    """Make of a scripted error what a real provider's would become."""
    code = {429: "rate_limited", 408: "timeout", 504: "timeout"}.get(error.status, "provider")
    return StepFailure(f"mock answered {error.status}: {error.message}", code)


async def _pause(milliseconds: float) -> None:
    if milliseconds:
        await asyncio.sleep(milliseconds / 1000)


def _fail_if_due(reply: MockReply, number: int) -> None:
    if reply.error is not None and number == reply.error.after_tokens:
        raise scripted_failure(reply.error)


def _finished(request: ModelRequest, reply: MockReply, number: int, text: str) -> ModelReply:
    usage = reply.usage
    tokens = usage.input_tokens + usage.output_tokens
    return ModelReply(
        provider="mock",
        model=request.model,
        text=text,
        tool_calls=tuple(
            ModelToolCall(call.id or f"call_{number}_{place}", call.name, call.input)
            for place, call in enumerate(reply.tool_calls)
        ),
        refusal=reply.refusal,
        credits=reply.credits if reply.credits is not None else tokens / 1000,
        raw={"reply": number, "usage": msgspec.to_builtins(usage)},
    )


def _echo(request: ModelRequest) -> MockReply:
    """Say back the last message of the user: what ``mock`` does without a script."""
    asked = [message for message in request.messages if message.get("role") == "user"]
    text = _text_of(asked[-1]) if asked else ""
    if request.response_format == "json":
        return MockReply(json={"echo": text})
    return MockReply(text=text)


def _text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content", "")
    if isinstance(content, str):
        return content
    parts = [part.get("text", f"[{part.get('type')}]") for part in content]
    return "".join(part for part in parts if isinstance(part, str))
