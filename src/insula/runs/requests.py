"""What the run endpoints share: reading requests, and the three ways to answer a started run."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime
from functools import partial

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from insula.engine.events import Event, RunEnded
from insula.engine.ports import Fenced
from insula.errors import BadInput, FieldError, InsulaError, Unavailable
from insula.journal.subscription import SlowReader, Subscription
from insula.runs import repository
from insula.runs import stream as wire
from insula.runs.cancel import cancel
from insula.runs.live import LiveRun
from insula.runs.options import RunOptions
from insula.runs.reading import Look, Stored, look_at, look_live, look_stored, numbered, read_stored
from insula.runs.rows import RunRow
from insula.runs.schemas import CreateRun, ReplayRun
from insula.runs.services import RunServices
from insula.runs.start import Start, Started
from insula.web.auth import Principal
from insula.web.idempotency import read_key
from insula.web.incoming import while_present
from insula.web.respond import json_answer
from insula.web.sse import EventStream, until_disconnected
from insula.workflows import retention

_log = structlog.get_logger(__name__)

LAST_EVENT = "last-event-id"
DISCONNECTED = "disconnect"
"""Who asked for a cancel where the caller's going away did."""
_PATIENCE = 1.0
"""Seconds after which it is watched whether the caller who waits is still there."""


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


def asked_start(
    request: Request, body: CreateRun | ReplayRun, *, through_catalogue: bool, text: bool = False
) -> Start:
    """Turn a request's body into what a start asks for."""
    options = RunOptions()
    created = isinstance(body, CreateRun)
    if isinstance(body, CreateRun):
        limits = None if body.limits is None else body.limits.model_dump(exclude_none=True)
        options = RunOptions(timeout=body.timeout, limits=limits)
    return Start(
        input=body.input if isinstance(body, CreateRun) else None,
        version=body.workflow_version_id if isinstance(body, CreateRun) else None,
        from_step_key=body.from_step_key if isinstance(body, CreateRun) else None,
        identifier=body.identifier,
        background=bool(body.background) and not body.stream,
        stream=bool(body.stream),
        retention=retention.stored(body.retention),
        options=options,
        through_catalogue=through_catalogue,
        text=text and created,
        watched=partial(while_present, request.receive) if body.on_disconnect == "cancel" else None,
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


async def ended_look(
    services: RunServices, request: Request, viewer: str, started: Started
) -> Look:
    """Wait for a run's end and look at it; the run goes on if the caller goes away.

    Raises:
        ClientDisconnect: the caller went away.
    """
    await _wait(services, request, started, cancel=False)
    return await _look_ended(services, started, viewer)


async def _look_begun(services: RunServices, started: Started, viewer: str) -> Look:
    return await look_stored(services, partial(repository.find, run_id=started.row.id), viewer)


async def _look_ended(services: RunServices, started: Started, viewer: str) -> Look:
    live = started.live
    if live is not None and not live.fenced:
        return await look_live(services, live, viewer)
    look = await _look_begun(services, started, viewer)
    if look.row.is_final:
        return look
    if not services.draining:
        raise Unavailable("The run has not ended yet; read it, or follow its stream", retry_after=2)
    where = "when it is back" if services.cluster is None else "at another node"
    raise Unavailable(f"The server is stopping; the run goes on {where}", retry_after=2)


async def _wait(services: RunServices, request: Request, started: Started, *, cancel: bool) -> None:
    """Wait for a run's end; with ``cancel`` it is stopped when the caller goes away.

    Raises:
        ClientDisconnect: the caller went away; the run goes on.
    """
    live = started.live
    if live is not None and not cancel:
        # Most end soon: only with the others is it worth while to watch the caller, too.
        await asyncio.wait([live.finished], timeout=_PATIENCE)
        if live.finished.done() and not _moved(services, live):
            return
    ended = asyncio.ensure_future(_until_ended(services, started))
    gone = asyncio.ensure_future(until_disconnected(request.receive))
    try:
        await asyncio.wait([ended, gone], return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            return
        if cancel:
            await cancel_abandoned(services, started.row)
        raise ClientDisconnect
    finally:
        ended.cancel()
        gone.cancel()
        await asyncio.wait([ended, gone])


async def _until_ended(services: RunServices, started: Started) -> None:
    live = started.live
    if live is not None:
        await asyncio.shield(live.finished)
        if not _moved(services, live):
            return
    async with contextlib.aclosing(_batches(services, started.row.id)) as batches:
        async for events in batches:
            if events and isinstance(events[-1], RunEnded):
                return


def _moved(services: RunServices, live: LiveRun) -> bool:
    """Say whether a run was dropped here because it goes on at another node."""
    return live.fenced and services.cluster is not None and not services.draining


async def cancel_abandoned(services: RunServices, row: RunRow) -> None:
    """Cancel a run, wherever it is, whose caller asked for that when it went away; nobody hears of
    an error."""
    caller = Principal(row.app_id, DISCONNECTED)
    try:
        await cancel(services, caller, row.workflow_id, row.id, own_workflow=False)
    except InsulaError as error:
        _log.warning("cancel.not_done", run_id=row.id, reason=error.message)


async def stream_answer(
    services: RunServices, started: Started, viewer: str, cancels: bool
) -> Response:
    """Stream a run from its first event."""
    live = started.live
    if live is not None and started.heard is not None:
        look = await look_live(services, live, viewer)
        batches = _heard(services, started.kept, started.heard)
    else:
        find = partial(repository.find, run_id=started.row.id)
        look = await look_at(services, await read_stored(services, find), viewer)
        batches = _batches(services, started.row.id)
    look = await numbered(services, look)
    return _RunStream(wire.from_start(services, look, batches), services, started, cancels)


class _RunStream(EventStream):
    """A stream whose run, if it ``cancels``, is cancelled when its reader goes away; for one that
    is only slow it goes on."""

    def __init__(
        self,
        source: AsyncGenerator[bytes, None],
        services: RunServices,
        started: Started,
        cancels: bool,
    ) -> None:
        super().__init__(source)
        self._services = services
        self._started = started
        self._cancels = cancels

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = True
        try:
            await super().__call__(scope, receive, send)
            gone = self.disconnected
        finally:
            # Not left to the generator: it may never have begun.
            if self._started.heard is not None:
                self._started.heard.close()
            if gone and self._cancels and not self.stalled:
                await self._cancel()

    async def _cancel(self) -> None:
        live, services = self._started.live, self._services
        over = live is not None and (live.ending or live.finished.done())
        if live is None or not over or _moved(services, live):
            work = cancel_abandoned(services, self._started.row)
            await asyncio.shield(services.group.create_task(work))


async def _heard(
    services: RunServices, kept: Sequence[Event], subscription: Subscription
) -> AsyncGenerator[list[Event], None]:
    last = len(kept)
    if kept:
        yield list(kept)
    async for number, events in subscription:
        last = number
        yield events
    if subscription.reason == "fenced" and services.cluster is not None:
        # Another node has taken the run over; its events go on where these end.
        async with contextlib.aclosing(_batches(services, subscription.run_id, last)) as batches:
            async for events in batches:
                yield events


async def _batches(
    services: RunServices, run_id: str, after: int = 0
) -> AsyncGenerator[list[Event], None]:
    """Yield what is stored of a run after event ``after``, then what is stored from now on.

    It ends before the run does where the reader is too slow, or the run goes to another process:
    the reader may resume.
    """
    with contextlib.suppress(SlowReader, Fenced):
        async with contextlib.aclosing(services.journal.follow(run_id, after)) as batches:
            async for _, events in batches:
                yield events


async def resume_answer(
    services: RunServices, request: Request, stored: Stored, viewer: str
) -> Response:
    """Stream a run from ``Last-Event-ID`` or ``from``, or from its current fold.

    204 after the last event: there is nothing more to come.
    """
    after = _after(request)
    look = await numbered(services, await look_at(services, stored, viewer))
    row = stored.row
    if row.is_final and after is not None and after >= wire.final_number(look, stored):
        return Response(status_code=204)
    if row.erased_at is not None and row.is_final:
        return EventStream(_one(wire.erased(look)))
    batches = _batches(services, row.id, stored.seq)
    return EventStream(wire.resumed(services, look, stored, batches, after))


async def _one(piece: bytes) -> AsyncGenerator[bytes, None]:
    yield piece


def _after(request: Request) -> int | None:
    name, where = LAST_EVENT, "header"
    given = request.headers.get(name)
    if not given:
        name, where = "from", "query"
        given = request.query_params.get(name)
    if given is None:
        return None
    if given.isascii() and given.isdigit() and len(given) <= 15:
        return int(given)
    message = "must be the number of an event of this stream"
    raise BadInput(f"{name} {message}", [FieldError((name,), "number", message, where)])


def instant(given: str | None, name: str, where: str = "query") -> int | None:
    """Read a time, as Unix milliseconds; ``where`` it stands is told with the error.

    Raises:
        BadInput: it is no ISO 8601 time.
    """
    if given is None:
        return None
    try:
        moment = datetime.fromisoformat(given)
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return int(aware.timestamp() * 1000)
    except (ValueError, OverflowError, OSError) as error:
        message = "must be a time such as 2026-01-31T12:00:00Z"
        raise BadInput(
            f"{name} {message}", [FieldError((name,), "time", message, where)]
        ) from error
