"""Recording what the outside answered a run, from its journal, and playing it to other runs.

An answer belongs to a unit of a step: to its first effect, by whose idempotency key it is found
again. What was asked does not count, so a test goes on when a prompt is changed. Nothing that is
not recorded is asked of anybody.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from insula.engine.context import effect_key, shortened
from insula.engine.events import (
    Event,
    FinalStatus,
    Interruption,
    StepEnded,
    StepStarted,
    UnitEnded,
    UnitStarted,
)
from insula.engine.failures import StepFailure
from insula.engine.ports import (
    Activity,
    Aspect,
    ChildOutcome,
    ChildRequest,
    Files,
    HttpRequest,
    HttpResponse,
    ModelDelta,
    ModelReply,
    ModelRequest,
    ModelToolCall,
    Ports,
    ServiceCall,
)
from insula.kit import json
from insula.kit.json import Raw

OUTSIDE = frozenset(("http_request", "service", "workflow"))
"""Types whose whole output is what the outside answered; of a model, each round is recorded."""
_NOT_RECORDED = "not_available"


class Answer(msgspec.Struct, omit_defaults=True):
    """What one unit was answered: an output, or an error with its code."""

    key: str
    index: int | None = None
    round: int | None = None
    call: str | None = None
    output: Any = None
    error: str | None = None
    code: str = "network"


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[Answer])


def record(events: Iterable[Event]) -> bytes:
    """Return what the outside answered, as it stands in a run's journal."""
    kinds: dict[str, str] = {}
    looped: set[str] = set()
    tools: dict[tuple[str, int | None, int | None, str | None], str] = {}
    answers: list[Answer] = []
    for event in events:
        if isinstance(event, StepStarted):
            kinds[event.key] = event.type
            if event.looped:
                looped.add(event.key)
        elif isinstance(event, UnitStarted) and event.call is not None:
            tools[(event.key, event.index, event.round, event.call)] = event.tool_type or ""
        elif isinstance(event, UnitEnded) and not event.again:
            address = (event.key, event.index, event.round, event.call)
            kind = tools.get(address) if event.call is not None else kinds.get(event.key)
            if kind in OUTSIDE or (kind == "model" and event.round is not None):
                answers.append(_answer(event))
        elif isinstance(event, StepEnded) and event.key not in looped:
            answers += _last(event, kinds.get(event.key), answers)
    return _encoder.encode(answers)


def _last(event: StepEnded, kind: str | None, before: Sequence[Answer]) -> list[Answer]:
    """Return what the end of a step tells of the outside: its answer, or why a round failed."""
    if kind in OUTSIDE and event.status in ("COMPLETED", "FAILED"):
        return [_answer(event)]
    if kind != "model" or event.status != "FAILED":
        return []
    failed = _answer(event)
    failed.round = sum(a.key == event.key and a.call is None for a in before)
    return [failed]


def _answer(event: UnitEnded | StepEnded) -> Answer:
    made = Answer(event.key, error=event.error)
    if event.output is not None and event.error is None:
        made.output = json.decode(event.output)
    if isinstance(event, UnitEnded):
        made.index, made.round, made.call = event.index, event.round, event.call
    elif event.code is not None:
        made.code = event.code
    return made


def play(recording: bytes, ports: Ports) -> Ports:
    """Return ports behind which there is nothing but the recording."""
    answers = _decoder.decode(recording)
    run_id = ports.run_id
    # Of a unit that was tried several times the last answer counts.
    known = {effect_key(run_id, a.key, (a.index, a.round, a.call), 1): a for a in answers}
    return replace(
        ports,
        http=_Http(known),
        models=_Models(known),
        services=_Services(known),
        children=_Children(answers),
        files=_Files(ports.files),
    )


def _found(known: Mapping[str, Answer], key: str | None, what: str) -> Answer:
    """Return what is recorded.

    Raises:
        StepFailure: nothing is, or a failure.
    """
    answer = known.get(key or "")
    if answer is None:
        raise StepFailure(
            f"{what} is not in this test's recording, and a recorded test asks nobody outside: "
            "record the test again from a newer run, or give the step's output in input_context",
            _NOT_RECORDED,
        )
    if answer.error is not None:
        raise StepFailure(answer.error, answer.code)
    return answer


class _Http:
    def __init__(self, known: Mapping[str, Answer]) -> None:
        self._known = known

    async def send(self, request: HttpRequest, activity: Activity) -> HttpResponse:
        what = f"The request {request.method} {shortened(request.url)}"
        output = _found(self._known, request.idempotency_key, what).output
        headers = {str(name): str(value) for name, value in output["headers"].items()}
        body = _body(output["body"], headers.get("content-type", ""))
        return HttpResponse(output["status"], tuple(headers.items()), body, request.url)


def _body(body: Any, kind: str) -> bytes:
    """Return bytes that give the same step output again."""
    if "json" in kind.lower() or not isinstance(body, str):
        return json.encode(body)
    charset = kind.lower().partition("charset=")[2].split(";")[0].strip().strip('"')
    single = charset in ("iso-8859-1", "latin-1", "windows-1252", "us-ascii")
    return body.encode(charset if single else "utf-8", "replace")


class _Models:
    def __init__(self, known: Mapping[str, Answer]) -> None:
        self._known = known

    def identify(
        self, provider: str, model: str, connection_id: str | None = None
    ) -> tuple[str, str]:
        return provider, model

    async def stream(
        self, request: ModelRequest, activity: Activity
    ) -> AsyncGenerator[ModelDelta | ModelReply, None]:
        what = f"The answer of {request.provider}/{request.model}"
        stored = _found(self._known, request.idempotency_key, what).output
        if stored["text"]:
            yield ModelDelta(stored["text"])
        yield ModelReply(
            provider=stored["provider"],
            model=stored["model"],
            text=stored["text"],
            tool_calls=tuple(
                ModelToolCall(call["id"], call["name"], call["input"])
                for call in stored["tool_calls"]
            ),
            refusal=stored["refusal"],
            raw=stored["raw"],
            connection_id=stored.get("connection_id"),
            connection_type=stored.get("connection_type"),
        )


class _Services:
    def __init__(self, known: Mapping[str, Answer]) -> None:
        self._known = known

    async def call(self, call: ServiceCall, activity: Activity) -> Raw:
        what = f"The answer of {call.type}.{call.action}"
        return json.raw(_found(self._known, call.idempotency_key, what).output)


class _Children:
    """Child runs are not run: their parents' steps get what they gave."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._left: dict[str, list[Answer]] = {}
        for answer in answers:
            if answer.call is None and answer.round is None:
                self._left.setdefault(answer.key, []).append(answer)

    async def run(self, request: ChildRequest, activity: Activity) -> ChildOutcome:
        left = self._left.get(request.parent_key)
        following = {"": left.pop(0)} if left else {}
        answer = _found(following, "", f"The child run of {request.parent_key}")
        output = answer.output if isinstance(answer.output, dict) else {}
        status: FinalStatus = "SKIPPED" if output.get("status") == "SKIPPED" else "COMPLETED"
        return ChildOutcome(status, json.raw(answer.output), None)

    def interruptions(self, run_id: str) -> tuple[Interruption, ...]:
        return ()


class _Files:
    """Reads the files that are stored here, and none by its address."""

    def __init__(self, inner: Files) -> None:
        self._inner = inner

    async def read(self, app_id: str, aspect: Aspect, file: Any, activity: Activity) -> Any:
        for one in file if isinstance(file, list) else [file]:
            given = one.get("id") if isinstance(one, dict) else one
            if not isinstance(given, str) or not given.startswith("file_"):
                _found({}, None, "A file that is not stored here")
        return await self._inner.read(app_id, aspect, file, activity)
