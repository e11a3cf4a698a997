"""Fakes of the engine's ports, for tests of workflows without processes, network or database."""

import asyncio
import itertools
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from insula.engine.events import Event, Interruption
from insula.engine.failures import NoRoom, StepFailure
from insula.engine.ports import (
    Activity,
    ChildOutcome,
    ChildRequest,
    Evaluated,
    Evaluation,
    HttpRequest,
    HttpResponse,
    ModelDelta,
    ModelReply,
    ModelRequest,
    Ports,
    ServiceCall,
)
from insula.kit import json
from insula.kit.json import Raw

Answer = Callable[[str, Mapping[str, Any]], Any]
UNDEFINED = object()
"""What a fake script returns for ``undefined``."""

_WORDS = re.compile(r"\S+\s*|\s+")


def answered(evaluation: Evaluation, value: Any) -> Raw | None:
    """Return a fake script's value as the port answers with it: by what is asked for."""
    if evaluation.asked in ("truth", "judged"):
        holds = isinstance(value, list | dict) or (value is not UNDEFINED and bool(value))
        told = None if value is UNDEFINED else value
        return json.raw([holds, told] if evaluation.asked == "judged" else holds)
    ends = evaluation.asked == "item" and (value is None or value is False)
    return None if value is UNDEFINED or ends else json.raw(value)


class ScriptedSandbox:
    """Answers each script from a function of its text and its scope, decoded.

    What the function returns may be awaitable; what it raises, the evaluation raises. ``pause``
    runs before every evaluation, so that a test decides who finishes first.
    """

    def __init__(self, answer: Answer, pause: Callable[[], Any] | None = None) -> None:
        self.evaluations: list[Evaluation] = []
        self._answer = answer
        self._pause = pause

    async def evaluate(self, evaluation: Evaluation, activity: Activity) -> Evaluated:
        """Answer every script in turn."""
        self.evaluations.append(evaluation)
        if self._pause is not None:
            await self._pause()
        scope = {name: json.decode(value) for name, value in evaluation.scope.items()}
        outputs = []
        for script in evaluation.scripts:
            value = self._answer(script, scope)
            if isinstance(value, Awaitable):
                value = await value
            outputs.append(answered(evaluation, value))
        return Evaluated(tuple(outputs))


class RecordedHttp:
    """Answers requests from a function, which may be asynchronous, and remembers them."""

    def __init__(
        self, answer: Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse]]
    ) -> None:
        self.requests: list[HttpRequest] = []
        self._answer = answer

    async def send(self, request: HttpRequest, activity: Activity) -> HttpResponse:
        """Answer; an effect is possible until then."""
        self.requests.append(request)
        activity.effect_possible = True
        answer = self._answer(request)
        response = await answer if isinstance(answer, Awaitable) else answer
        activity.effect_possible = False
        return response


Reply = ModelReply | Exception | Callable[[ModelRequest], ModelReply | Awaitable[ModelReply]]


class ScriptedModels:
    """Answers rounds in order; an exception among the replies is raised in its place, a function is
    asked for the reply."""

    def __init__(self, replies: Sequence[Reply]) -> None:
        self.requests: list[ModelRequest] = []
        self.closed = 0
        """How many streams were closed, however they ended."""
        self._replies = list(replies)

    async def stream(
        self, request: ModelRequest, activity: Activity
    ) -> AsyncGenerator[ModelDelta | ModelReply, None]:
        """Stream the next reply word by word."""
        self.requests.append(request)
        try:
            reply = await self._next(request)
            for word in _WORDS.findall(reply.text):
                yield ModelDelta(word)
            yield reply
        finally:
            self.closed += 1

    def identify(
        self, provider: str, model: str, connection_id: str | None = None
    ) -> tuple[str, str]:
        """Return what was asked for."""
        return provider, model

    async def _next(self, request: ModelRequest) -> ModelReply:
        if not self._replies:
            raise StepFailure("There are no more scripted replies", "provider")
        reply = self._replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, ModelReply):
            return reply
        made = reply(request)
        return await made if isinstance(made, Awaitable) else made


class ScriptedServices:
    """Answers service calls from a function, which may be asynchronous, and remembers them."""

    def __init__(self, answer: Callable[[ServiceCall], Any]) -> None:
        self.calls: list[ServiceCall] = []
        self._answer = answer

    async def call(self, call: ServiceCall, activity: Activity) -> Raw:
        """Answer; an effect is possible until then."""
        self.calls.append(call)
        activity.effect_possible = True
        answer = self._answer(call)
        output = await answer if isinstance(answer, Awaitable) else answer
        activity.effect_possible = False
        return json.raw(output)


class ScriptedFiles:
    """Answers what is asked of files from a function of aspect and file, and remembers it."""

    def __init__(self, answer: Callable[[str, Any], Any]) -> None:
        self.asked: list[tuple[str, Any]] = []
        self._answer = answer

    async def read(self, app_id: str, aspect: str, file: Any, room: int, activity: Activity) -> Any:
        """Answer, if there is room."""
        self.asked.append((aspect, file))
        answer = self._answer(aspect, file)
        found = answer if isinstance(answer, str) else json.raw(answer)
        if len(found) > room:
            raise NoRoom
        return found


class NoChildren:
    """Refuses child runs."""

    async def run(self, request: ChildRequest, activity: Activity) -> ChildOutcome:
        """Refuse."""
        raise StepFailure("There are no child runs here", "not_available")

    def interruptions(self, run_id: str) -> tuple[Interruption, ...]:
        """Return nothing."""
        return ()

    def credits(self, run_id: str) -> float:
        """Return nothing."""
        return 0.0

    def output(self, run_id: str) -> Raw | None:
        """Return nothing."""
        return None


class ScriptedChildren:
    """Answers child runs from a function, which may be asynchronous, and remembers them.

    A child that is cancelled says in its receipt that it was, and has cost ``stopped_at``.
    """

    def __init__(
        self,
        answer: Callable[[ChildRequest], ChildOutcome | Awaitable[ChildOutcome]],
        stopped_at: float = 0.0,
    ) -> None:
        self.requests: list[ChildRequest] = []
        self._answer = answer
        self._stopped_at = stopped_at
        self._receipts: dict[str, tuple[Interruption, ...]] = {}
        self._credits: dict[str, float] = {}

    async def run(self, request: ChildRequest, activity: Activity) -> ChildOutcome:
        """Answer."""
        self.requests.append(request)
        answer = self._answer(request)
        try:
            outcome = await answer if isinstance(answer, Awaitable) else answer
        except asyncio.CancelledError:
            self._credits[request.run_id] = self._stopped_at
            told = Interruption("CHILD", "code step", 1, path=(request.run_id,))
            self._receipts[request.run_id] = (told,)
            raise
        self._credits[request.run_id] = outcome.credits
        return outcome

    def interruptions(self, run_id: str) -> tuple[Interruption, ...]:
        """Return what the child was doing when it was cancelled."""
        return self._receipts.get(run_id, ())

    def credits(self, run_id: str) -> float:
        """Return what the child has cost."""
        return self._credits.get(run_id, 0.0)

    def output(self, run_id: str) -> Raw | None:
        """Return the id of a child that was cancelled."""
        return json.raw({"run_id": run_id}) if run_id in self._receipts else None


@dataclass(slots=True)
class ListRecorder:
    """Keeps events in a list; ``after`` is called with each, and may raise to play a crash."""

    events: list[Event] = field(default_factory=list)
    after: Callable[[Event], None] | None = None

    def record(self, event: Event) -> None:
        """Keep the event."""
        self.events.append(event)
        if self.after is not None:
            self.after(event)

    async def stored(self) -> None:
        """Return at once: a list is always stored."""


def fake_ports(sandbox: Any, recorder: Any = None, **others: Any) -> Ports:
    """Put fakes together; the clock counts events, ids are numbered."""
    clock, numbers = itertools.count(1), itertools.count(1)
    given: dict[str, Any] = {
        "run_id": "run_1",
        "app_id": "app_1",
        "recorder": recorder if recorder is not None else ListRecorder(),
        "sandbox": sandbox,
        "http": RecordedHttp(lambda request: HttpResponse(200, (), b"", request.url)),
        "models": ScriptedModels([]),
        "children": NoChildren(),
        "clock": lambda: next(clock),
        "new_id": lambda prefix: f"{prefix}_{next(numbers)}",
        "input": Raw(b"{}"),
    }
    return Ports(**{**given, **others})
