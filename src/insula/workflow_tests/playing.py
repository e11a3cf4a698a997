"""Playing to a run what was recorded of another one: behind its ports is nothing else, and nobody
outside is asked or told anything.

An answer is found again by the idempotency key of its unit's first effect; one to a request of
code by the request's own, which is made of method, URL and body.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from insula.engine.context import effect_key, shortened
from insula.engine.events import FinalStatus, Interruption
from insula.engine.failures import StepFailure, Unanswerable
from insula.engine.fetched import BODY_MAX, STEP_MAX, Fetched
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
from insula.workflow_tests.recording import Answer, answers_in

_NOT_RECORDED = "not_available"


def play(recording: bytes, ports: Ports) -> Ports:
    """Return ports behind which there is nothing but the recording."""
    known: dict[str, Answer] = {}
    requests: dict[str, Fetched] = {}
    for answer in answers_in(recording):
        if not answer.fetched:
            # Of a unit that was tried several times the last answer counts.
            known[effect_key(ports.run_id, answer.key, answer.address, 1)] = answer
            continue
        same: Counter[str] = Counter()
        for one in answer.fetched:
            same[one.asked] += 1
            number = same[one.asked]
            key = effect_key(ports.run_id, answer.key, answer.address, number, one.asked)
            requests[key] = one
    return replace(
        ports,
        http=_Http(known, requests),
        models=_Models(known),
        services=_Services(known),
        children=_Children(known),
        files=_Files(ports.files),
        prices={},
        backs_off=False,  # time changes nothing
    )


def _found(known: Mapping[str, Answer], key: str | None, what: str) -> Answer:
    """Return what is recorded.

    Raises:
        StepFailure: nothing is, or a failure.
    """
    answer = known.get(key or "")
    if answer is None:
        _refuse(what)
    if answer.error is not None:
        raise StepFailure(answer.error, answer.code)
    return answer


def _refuse(what: str, why: str = "") -> NoReturn:
    raise Unanswerable(
        f"{what} is not in this test's recording{why}, and a recorded test asks nobody outside: "
        "record the test again from a newer run, or give the step's output in input_context",
        _NOT_RECORDED,
    )


class _Http:
    def __init__(self, known: Mapping[str, Answer], requests: Mapping[str, Fetched]) -> None:
        self._known = known
        self._requests = requests

    async def send(self, request: HttpRequest, activity: Activity) -> HttpResponse:
        what = f"The request {request.method} {shortened(request.url)}"
        of_code = self._requests.get(request.idempotency_key or "")
        if of_code is not None:
            return await _fetched(of_code, what)
        output = _found(self._known, request.idempotency_key, what).output
        if not isinstance(output, dict) or not {"status", "headers", "body"} <= output.keys():
            _refuse(what)
        headers = {str(name): str(value) for name, value in output["headers"].items()}
        body = _body(output["body"], headers.get("content-type", ""))
        return HttpResponse(output["status"], tuple(headers.items()), body, request.url)


async def _fetched(one: Fetched, what: str) -> HttpResponse:
    if one.omitted:
        why = f": of what code fetches, answers up to {BODY_MAX >> 10} KiB are kept, and up to "
        _refuse(what, f"{why}{STEP_MAX >> 20} MiB for a step")
    if one.open:  # the code ended without it
        await asyncio.Event().wait()
    return one.response()


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

    def __init__(self, known: Mapping[str, Answer]) -> None:
        self._known = known

    async def run(self, request: ChildRequest, activity: Activity) -> ChildOutcome:
        what = f"The child run of {request.parent_key}"
        answer = _found(self._known, request.idempotency_key, what)
        output = answer.output if isinstance(answer.output, dict) else {}
        status: FinalStatus = "SKIPPED" if output.get("status") == "SKIPPED" else "COMPLETED"
        return ChildOutcome(status, json.raw(answer.output), None)

    def interruptions(self, run_id: str) -> tuple[Interruption, ...]:
        return ()

    def credits(self, run_id: str) -> float:
        return 0.0

    def output(self, run_id: str) -> Raw | None:
        return None


class _Files:
    """Reads the files that are stored here, and none by its address."""

    def __init__(self, inner: Files) -> None:
        self._inner = inner

    async def read(
        self, app_id: str, aspect: Aspect, file: Any, room: int, activity: Activity
    ) -> Any:
        for one in file if isinstance(file, list) else [file]:
            given = one.get("id") if isinstance(one, dict) else one
            if not isinstance(given, str) or not given.startswith("file_"):
                _refuse("A file that is not stored here")
        return await self._inner.read(app_id, aspect, file, room, activity)
