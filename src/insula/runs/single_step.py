"""One step by itself: no workflow, nothing stored, gone with its caller."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from functools import partial
from typing import Any

import structlog
from starlette.requests import Request

from insula.apps.repository import is_there
from insula.engine.document import Document, check, fill
from insula.engine.events import Event, Interruption
from insula.engine.execute import execute
from insula.engine.failures import StepFailure
from insula.engine.graph import plan
from insula.engine.ports import Activity, ChildOutcome, ChildRequest, Ports, Stop
from insula.engine.state import RunState
from insula.errors import BadInput, Conflict, FieldError, Unavailable
from insula.kit import json
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.kit.json import Raw
from insula.runs.render import Sight, shown_step
from insula.runs.services import RunServices
from insula.runs.stream import step_told
from insula.web.auth import unknown
from insula.web.incoming import while_present
from insula.web.sse import frame

_log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.5
"""How often it is looked whether the app is still there."""
_EVERYTHING = Sight(None, None)


class _Listener:
    """A recorder that stores nothing and hands events to whoever streams the step."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()

    def record(self, event: Event) -> None:
        self.events.put_nowait(event)

    async def stored(self) -> None:
        return


class _NoChildren:
    async def run(self, request: ChildRequest, activity: Activity) -> ChildOutcome:
        raise StepFailure("A single step cannot start child runs", "not_available")

    def interruptions(self, run_id: str) -> tuple[Interruption, ...]:
        return ()

    def credits(self, run_id: str) -> float:
        return 0.0

    def output(self, run_id: str) -> Raw | None:
        return None


def parse(step: dict[str, Any]) -> tuple[Document, str]:
    """Check a step definition; return it as a document of its own, and its key.

    Raises:
        BadInput: the definition cannot be used, or is of a type that does not run by itself.
    """
    document, problems = check(fill({"key": "single", "steps": [_alone({"key": "step", **step})]}))
    if document is None or problems:
        raise BadInput(
            "The step cannot be used",
            [FieldError(("step", *p.path[2:]), p.code, p.message) for p in problems],
        )
    only = document.steps[0]
    if only.type in ("note", "workflow"):
        message = f"a {only.type} step does not run by itself; send a step of another type"
        raise BadInput(message, [FieldError(("step", "type"), "invalid_step", message)])
    return document, only.key


def _alone(step: dict[str, Any]) -> dict[str, Any]:
    """Cut a step's edges: where it led to is not here."""
    alone = {**step, "destinations": []}
    conditions = step.get("conditions")
    if isinstance(conditions, dict):
        alone["conditions"] = {
            key: {**value, "destinations": []} if isinstance(value, dict) else value
            for key, value in conditions.items()
        }
    if isinstance(step.get("else"), list):
        alone["else"] = []
    return alone


def _ports(services: RunServices, app_id: str, recorder: _Listener) -> Ports:
    return Ports(
        run_id=new_id("run"),
        stop=Stop("cancel"),
        app_id=app_id,
        recorder=recorder,
        sandbox=services.sandbox,
        http=services.http,
        models=services.models,
        services=services.actions,
        files=services.file_reader,
        children=_NoChildren(),
        clock=now_ms,
        new_id=new_id,
        limits=services.limits,
        timeouts=services.timeouts,
        max_attempts=services.max_attempts,
        max_iterations=services.max_iterations,
        max_output=services.max_output,
    )


async def _execute(services: RunServices, document: Document, key: str, ports: Ports) -> RunState:
    """Run the step to its end, within the time that a run may take; then its place is free."""
    state = RunState()
    try:
        async with asyncio.timeout(services.run_timeout):
            equipped = await services.equip(ports, ports.app_id, ports.run_id, None)
            await _while_app_is_there(
                services, ports.app_id, execute(plan(document, key), state, equipped)
            )
    except StepFailure as failure:
        raise Conflict(failure.message) from None
    except TimeoutError:
        _log.info("step.timed_out", seconds=services.run_timeout)
    return state


async def _while_app_is_there(
    services: RunServices, app_id: str, work: Coroutine[Any, Any, object]
) -> None:
    """Do some work; stop it when the app is deleted, through whichever node.

    Raises:
        NotFound: it was.
    """
    working = asyncio.ensure_future(work)
    try:
        while not working.done():
            await asyncio.wait([working], timeout=LOOK_SECONDS)
            if not working.done() and not await services.database.read(
                partial(is_there, app_id=app_id)
            ):
                raise unknown()
        await working
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def run_step(
    services: RunServices, request: Request, app_id: str, step: dict[str, Any]
) -> bytes:
    """Run a step to its end and return it (``RunStepSchema``); its caller's going away stops it.

    Raises:
        BadInput: the definition cannot be used.
        TooMany: too many runs are live.
        ClientDisconnect: its caller went away, and it has stopped.
    """
    document, key = parse(step)
    with services.live.admit(app_id, "", None):
        ports = _ports(services, app_id, _Listener())
        executing = _execute(services, document, key, ports)
        state = await while_present(request.receive, executing, patience=0)
    return json.encode(_shown(state, key))


async def stream_step(
    services: RunServices, app_id: str, step: dict[str, Any]
) -> AsyncGenerator[bytes, None]:
    """Check a step and return what streams it: ``step`` RUNNING, ``chunk``s, ``step`` ended.

    Raises:
        BadInput, TooMany: as ``run_step``, before anything is answered.
    """
    document, key = parse(step)
    services.live.admit(app_id, "", None).release()
    return _frames(services, app_id, document, key)


async def _frames(
    services: RunServices, app_id: str, document: Document, key: str
) -> AsyncGenerator[bytes, None]:
    listener, shown = _Listener(), RunState()

    async def work() -> None:
        try:
            await _execute(services, document, key, _ports(services, app_id, listener))
        finally:
            listener.events.put_nowait(None)

    number = 0
    with services.live.take_place(app_id, ""):
        task = asyncio.ensure_future(work())
        try:
            while (event := await listener.events.get()) is not None:
                shown.apply(event)
                for name, data in step_told(event, shown, _EVERYTHING):
                    number += 1
                    yield frame(name, json.encode(data), number)
            await task
        finally:
            task.cancel()
            await asyncio.wait([task])


def _shown(state: RunState, key: str) -> dict[str, Any]:
    if key not in state.steps:
        raise Unavailable("The step did not begin in time; try again", retry_after=1)
    view = shown_step(state.steps[key], _EVERYTHING)
    return {name: value for name, value in view.items() if name not in ("calls", "attempts")}
