"""What the run endpoints share: reading requests, and the three ways to answer a started run."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from insula.engine.events import Event, RunEnded
from insula.engine.ports import Fenced
from insula.errors import BadInput, FieldError, Unavailable
from insula.journal.subscription import SlowReader
from insula.kit import json
from insula.runs import stream as wire
from insula.runs.cancel import cancel
from insula.runs.live import LiveRun
from insula.runs.reading import Look, find, look_live, look_stored
from insula.runs.rows import RunRow
from insula.runs.schemas import CreateRun, ReplayRun, Retention, retention_value
from insula.runs.services import RunServices
from insula.runs.start import Start, Started
from insula.web.auth import Principal
from insula.web.idempotency import read_key
from insula.web.respond import json_answer
from insula.web.sse import EventStream, until_disconnected

LAST_EVENT = "last-event-id"
DISCONNECTED = "disconnect"
"""Who asked for a cancel where the caller's going away did."""


def is_verbose(request: Request) -> bool:
    """Say whether ``verbose`` asks for everything.

    Raises:
        BadInput: it asks for something else.
    """
    if not request.scope["query_string"]:
        return False
    asked = request.query_params.getlist("verbose")
    if any(word != "all" for word in asked):
        message = "must be `all`, or left out"
        raise BadInput(
            f"verbose {message}", [FieldError(("verbose",), "verbose", message, "query")]
        )
    return bool(asked)


def retention_row(given: int | Retention | None) -> bytes | None:
    """Return retention as the row holds it, ``None`` if it was not given."""
    value = retention_value(given)
    return None if value is None else json.encode(value)


def asked_start(
    request: Request, body: CreateRun | ReplayRun, *, through_catalogue: bool, text: bool = False
) -> Start:
    """Turn a request's body into what a start asks for."""
    options: dict[str, Any] = {}
    created = isinstance(body, CreateRun)
    if isinstance(body, CreateRun):
        if body.timeout is not None:
            options["timeout"] = body.timeout
        if body.limits is not None:
            options["limits"] = body.limits.model_dump(exclude_none=True)
    return Start(
        input=body.input if isinstance(body, CreateRun) else None,
        version=body.workflow_version_id if isinstance(body, CreateRun) else None,
        from_step_key=body.from_step_key if isinstance(body, CreateRun) else None,
        identifier=body.identifier,
        background=bool(body.background) and not body.stream,
        retention=retention_row(body.retention),
        options=options,
        through_catalogue=through_catalogue,
        text=text and created,
        idempotency=read_key(request),
    )


async def answer(
    services: RunServices,
    request: Request,
    viewer: str,
    started: Started,
    body: CreateRun | ReplayRun,
    *,
    verbose: bool,
) -> Response:
    """Answer a started run: as a stream, at once, or when it has ended."""
    if body.stream:
        return await stream_answer(services, started, viewer, body.on_disconnect == "cancel")
    if body.background:
        look = await _look_begun(services, started, viewer)
        return json_answer(look.encoded(verbose=verbose))
    await _wait(services, request, started, cancel=body.on_disconnect == "cancel")
    look = await _look_ended(services, started, viewer)
    return json_answer(look.encoded(verbose=verbose))


async def _look_begun(services: RunServices, started: Started, viewer: str) -> Look:
    return await look_stored(services, started.row, viewer)


async def _look_ended(services: RunServices, started: Started, viewer: str) -> Look:
    live = started.live
    if live is not None and not live.fenced:
        return await look_live(services, live, viewer)
    row = started.row
    row = await find(services, row.app_id, row.workflow_id, row.id, own_workflow=False)
    if not row.is_final:
        raise Unavailable("The server is stopping; the run goes on when it is back", retry_after=2)
    return await look_stored(services, row, viewer)


async def _wait(services: RunServices, request: Request, started: Started, *, cancel: bool) -> None:
    """Wait for a run's end; with ``cancel`` it is stopped when the caller goes away."""
    if started.live is None:
        async with contextlib.aclosing(_batches(services, started.row.id)) as batches:
            async for events in batches:
                if _is_over(events):
                    return
        return
    finished = started.live.finished
    if not cancel:
        await asyncio.shield(finished)
        return
    gone = asyncio.create_task(until_disconnected(request.receive))
    try:
        await asyncio.wait([finished, gone], return_when=asyncio.FIRST_COMPLETED)
        if not finished.done():
            await cancel_abandoned(services, started.live)
    finally:
        gone.cancel()


async def cancel_abandoned(services: RunServices, live: LiveRun) -> None:
    """Cancel a run whose caller asked for that when it went away; the caller is who asked."""
    row = live.row
    caller = Principal(row.app_id, DISCONNECTED)
    await cancel(services, caller, row.workflow_id, row.id, own_workflow=False)


async def stream_answer(
    services: RunServices, started: Started, viewer: str, cancels: bool
) -> Response:
    """Stream a run from its first event."""
    look = await wire.look_for_stream(services, started.row, viewer)
    batches = _batches(services, started.row.id)
    source = wire.from_start(services, look, batches)
    return EventStream(_abandoning(services, started, source) if cancels else source)


async def _abandoning(
    services: RunServices, started: Started, source: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """Pass a stream on; when its reader goes away before the end, cancel the run."""
    try:
        async for piece in source:
            yield piece
    finally:
        await source.aclose()
        live = started.live
        if live is not None and not live.finished.done():
            await asyncio.shield(services.group.create_task(cancel_abandoned(services, live)))


async def _batches(services: RunServices, run_id: str) -> AsyncGenerator[list[Event], None]:
    """Yield what is stored of a run, then what is stored from now on.

    It ends before the run does where the reader is too slow, or the run goes to another process:
    the reader may resume.
    """
    with contextlib.suppress(SlowReader, Fenced):
        async with contextlib.aclosing(services.journal.follow(run_id)) as batches:
            async for _, events in batches:
                yield events


def _is_over(events: list[Event]) -> bool:
    return bool(events) and isinstance(events[-1], RunEnded)


async def resume_answer(
    services: RunServices, request: Request, row: RunRow, viewer: str
) -> Response:
    """Stream a run from ``Last-Event-ID`` or ``from``, or from its current fold.

    204 after the last event: there is nothing more to come.
    """
    after = _after(request)
    look = await wire.look_for_stream(services, row, viewer)
    if row.erased_at is not None:
        return EventStream(_one(wire.erased(look))) if after is None else Response(status_code=204)
    if row.is_final and after is not None and after >= await wire.final_number(services, look):
        return Response(status_code=204)
    return EventStream(wire.resumed(services, look, _batches(services, row.id), after))


async def _one(piece: bytes) -> AsyncGenerator[bytes, None]:
    yield piece


def _after(request: Request) -> int | None:
    given = request.headers.get(LAST_EVENT) or request.query_params.get("from")
    if given is None:
        return None
    if given.isascii() and given.isdigit() and len(given) <= 15:
        return int(given)
    message = "must be the number of an event of this stream"
    raise BadInput(f"Last-Event-ID {message}", [FieldError((LAST_EVENT,), "number", message)])


def instant(given: str | None, name: str) -> int | None:
    """Read a time, as Unix milliseconds.

    Raises:
        BadInput: it is no ISO 8601 time.
    """
    if given is None:
        return None
    try:
        moment = datetime.fromisoformat(given)
        return int(moment.timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        message = "must be a time such as 2026-01-31T12:00:00Z"
        raise BadInput(
            f"{name} {message}", [FieldError((name,), "time", message, "query")]
        ) from error
