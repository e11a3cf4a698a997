"""Starting a run: resolve the version, check the input, store the run, begin to execute it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
from msgspec.structs import replace

from insula.engine.document import Document, InputStep
from insula.engine.events import Event, encode_events
from insula.engine.graph import Plan, check_start
from insula.engine.inputs import Checked, check_input, place
from insula.errors import BadInput, Conflict, InsulaError, Unavailable
from insula.files.resolve import check_number
from insula.journal.subscription import Subscription
from insula.kit import json
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.kit.json import Raw
from insula.kit.tasks import uninterrupted
from insula.runs import repository
from insula.runs.cancel import cancel_many
from insula.runs.configured import note_configured
from insula.runs.creation import Before, check_room, create, create_waiting
from insula.runs.execution import prepare
from insula.runs.live import LiveRun
from insula.runs.options import RunOptions, options_of
from insula.runs.render import visible_steps
from insula.runs.repository import NewRun
from insula.runs.rows import RunRow
from insula.runs.services import RunServices
from insula.web.auth import Principal, unknown
from insula.web.idempotency import Idempotency, claim, made_before
from insula.workflows.resolve import Runnable

_log = structlog.get_logger(__name__)

DELETED = "deleted"
"""Who asked for a cancel where the deletion of what ran did."""


@dataclass(frozen=True, slots=True)
class Start:
    """What is asked for when a run is started; ``text`` says that its input came as text."""

    input: object = None
    version: str | int | None = None
    from_step_key: str | None = None
    identifier: str | None = None
    background: bool = False
    stream: bool = False
    """Whether its events are to be heard from the first one on."""
    retention: bytes | None = None
    """As the row holds it; ``None`` leaves it to the workflow."""
    options: RunOptions = field(default_factory=RunOptions)
    origin: str = "ENDPOINT"
    through_catalogue: bool = False
    text: bool = False
    watched: Callable[[Coroutine[Any, Any, Raw]], Awaitable[Raw]] | None = None
    """Of a caller whose going away ends it: does so while the input is taken in, too."""
    idempotency: Idempotency | None = None
    default: Mapping[str, Any] = field(default_factory=dict)
    """Goes before the workflow's own ``input_default``."""
    kept: Sequence[Event] = ()
    """Of a run that waits: the events that it begins with."""


@dataclass(frozen=True, slots=True)
class Started:
    """A run that was created, or that an earlier request with the same key created.

    ``live`` is there if this process executes it now, ``heard`` if it was asked for: it hears all
    that is stored of the run after ``kept``, which a replay begins with. Close it.
    """

    row: RunRow
    live: LiveRun | None
    heard: Subscription | None = None
    kept: Sequence[Event] = ()


async def start(
    services: RunServices, principal: Principal, workflow_id: str, asked: Start
) -> Started:
    """Create a run and begin it here, or queue it if it may wait and there is no room.

    Raises:
        NotFound: no such workflow or version for this caller.
        BadInput: the input, the version or the first step cannot be used.
        Conflict: the workflow is disabled.
        TooMany: too many runs are live.
        KeyReused: the idempotency key came with another body before.
    """
    if earlier := await made_before(services.database, principal, asked.idempotency):
        return await attach(services, earlier)
    check_taken(services)
    runnable = await services.resolver.resolve(
        principal.app_id, workflow_id, asked.version, asked.through_catalogue
    )
    if asked.from_step_key is not None:
        check_seen(runnable, principal.app_id, asked.from_step_key)
    plan = await services.plans.lay_out(runnable, asked.from_step_key)
    if waits(services, principal.app_id, asked):
        return await queue(
            services, principal, runnable, plan, asked, partial(claiming, principal, asked)
        )
    limit = caller_limit(runnable, principal.app_id)
    with services.live.admit(principal.app_id, workflow_id, limit) as held:
        row = _row(services, principal, runnable, asked, waits=False)
        given = await _input(services, row, runnable, plan, asked)
        live = prepare(services, row, runnable, given, place=held)
        draft = runnable.body if runnable.version_id is None else None
        new = NewRun(row, bytes(given), draft)
        return await begin(services, live, new, principal, asked)


async def begin(
    services: RunServices,
    live: LiveRun,
    new: NewRun,
    principal: Principal,
    asked: Start,
    kept: Sequence[Event] = (),
) -> Started:
    """Store a run and begin it, or return the one that the same request made before."""
    row = live.row
    heard = live.log.subscribe() if asked.stream else None
    try:
        async with _unless_refused(services, row.id):
            earlier = await create(services, live, new, claiming(principal, asked, row.id))
    except BaseException:
        _close(heard)
        raise
    if earlier is not None:
        _close(heard)
        await _discard(services, row.id)
        return await attach(services, earlier)
    if not await services.resolver.admits(row.workflow_id):
        # Deleted since it was resolved: whoever deletes it has not seen this run.
        live.stop("cancel")
    return Started(row, live, heard, kept)


def check_taken(services: RunServices) -> None:
    """Check that new runs are taken here.

    Raises:
        Unavailable: the server is stopping, or nothing can be stored.
    """
    if services.draining:
        raise Unavailable("The server is stopping; try again", retry_after=2)
    if not services.can_store:
        raise Unavailable("Nothing can be stored now; try again", retry_after=2)


def _close(heard: Subscription | None) -> None:
    if heard is not None:
        heard.close()


def waits(services: RunServices, app_id: str, asked: Start) -> bool:
    """Say whether a run is queued: it may wait, and there is no room or others wait before it, or
    its app has a limit that counts at all nodes, or this process is gone before it would end."""
    if not asked.background:
        return False
    if services.only_asked:
        return True
    if services.live.app_maximum is not None:
        return True  # whoever may begin it begins it: how many are live elsewhere is not known here
    return services.queue.has(app_id) or not services.live.has_room(app_id)


async def queue(
    services: RunServices,
    principal: Principal,
    runnable: Runnable,
    plan: Plan,
    asked: Start,
    claims: Callable[[str], Before | None],
) -> Started:
    """Create a run that waits for a place, or return the one that stands for it: what ``claims``
    makes of the new run's id says which, in the unit that creates it.

    Raises:
        BadInput: the input cannot be used.
        TooMany: too many runs of the app wait already.
    """
    row = _row(services, principal, runnable, asked, waits=True)
    row.seq = len(asked.kept)
    given = await _input(services, row, runnable, plan, asked)
    draft = runnable.body if runnable.version_id is None else None
    kept = encode_events(list(asked.kept)) if asked.kept else None
    new = NewRun(row, bytes(given), draft, kept)
    return await enqueue(services, new, claims(row.id))


async def enqueue(services: RunServices, new: NewRun, claims: Before | None) -> Started:
    """Store a run that waits for a place, or return the one that stands for it.

    Raises:
        TooMany: too many runs of the app wait already.
    """
    row = new.row
    async with _unless_refused(services, row.id):
        earlier = await create_waiting(services, new, claims)
    if earlier is not None:
        await _discard(services, row.id)
        return await attach(services, earlier)
    if not await services.resolver.admits(row.workflow_id):
        # As in ``begin``; a place may have been free at once.
        await cancel_many(services, [row.id], DELETED)
    return Started(row, None)


def caller_limit(runnable: Runnable, app_id: str) -> int | None:
    """Return how many live runs the workflow's owner allows an app; itself any number."""
    return None if runnable.workflow_app_id == app_id else runnable.caller_limit


def check_seen(runnable: Runnable, app_id: str, step_key: str) -> None:
    """Refuse a start at a step that the caller does not see.

    Raises:
        NotFound: of a workflow that is not open, a hidden step, a note, or no step at all: which
            of them is not told.
    """
    if runnable.open or runnable.workflow_app_id == app_id:
        return
    document = runnable.document
    seen = visible_steps(document) | {s.key for s in document.steps if s.type == "input"}
    if step_key not in seen:
        raise unknown()
    try:
        check_start(document, step_key, "from_step_key")
    except BadInput:
        raise unknown() from None


def _row(
    services: RunServices, principal: Principal, runnable: Runnable, asked: Start, *, waits: bool
) -> RunRow:
    now = now_ms()
    run_id = new_id("run")
    return RunRow(
        id=run_id,
        app_id=principal.app_id,
        workflow_app_id=runnable.workflow_app_id,
        workflow_id=runnable.workflow_id,
        version_id=runnable.version_id,
        version=runnable.version,
        root_id=run_id,
        parent_id=None,
        parent_key=None,
        depth=0,
        hidden=False,
        status="PENDING" if waits else "RUNNING",
        origin=asked.origin,
        identifier=asked.identifier,
        from_step_key=asked.from_step_key,
        replay_of=None,
        background=asked.background,
        options=_options(asked, runnable, principal.app_id),
        owner=None if waits else services.token,
        seq=0,
        error=None,
        credits=0.0,
        retention=runnable.retention if asked.retention is None else asked.retention,
        retention_due_at=None,
        erased_at=None,
        cancel_requested_at=None,
        cancel_requested_by=None,
        started_at=None if waits else now,
        ended_at=None,
        created_at=now,
        updated_at=now,
    )


def _options(asked: Start, runnable: Runnable, app_id: str) -> bytes:
    options = asked.options
    if runnable.workflow_app_id != app_id:
        options = replace(options, closed=not runnable.open)
    return options.encoded()


async def _input(
    services: RunServices, row: RunRow, runnable: Runnable, plan: Plan, asked: Start
) -> Raw:
    given = {} if asked.input is None else asked.input
    taking = checked_input(
        services,
        row,
        runnable,
        plan,
        given,
        from_text=asked.text,
        default=asked.default,
        through_catalogue=asked.through_catalogue,
    )
    return await (taking if asked.watched is None else asked.watched(taking))


async def checked_input(
    services: RunServices,
    row: RunRow,
    runnable: Runnable,
    plan: Plan,
    given: object,
    *,
    from_text: bool = False,
    default: Mapping[str, Any] | None = None,
    caller_app_id: str | None = None,
    through_catalogue: bool = False,
) -> Raw:
    """Check a run's input against its first input step, and store the files in it. ``default``
    goes before the document's own ``input_default``. The row notes what is not to be shown of it.

    ``caller_app_id`` is with whose rights the workflow is run, without it the run's app's. That it
    may still be run is checked when the files are there: they may have taken long.

    Raises:
        BadInput: one entry a field that cannot be used, or there are too many files.
        NotFound, Conflict: it may not be run any more.
    """
    if not isinstance(given, dict):
        raise BadInput("input must be an object; send the workflow's fields by their keys")
    definition = definition_of(runnable.document, plan)
    defaults = {**(runnable.document.input_default or {}), **(default or {})}
    checked = check_input(definition, given, defaults, from_text=from_text)
    if checked.errors:
        raise BadInput("The input cannot be used", checked.errors)
    check_number(checked.files, ("input",))
    if options_of(row).outfit is not None:  # it is given nothing of the world
        services.files.check_at_hand(checked.files)
    if checked.files:
        await check_room(services, row)
    async with taking_in(services, row.id):
        value = await _with_files(services, row, checked)
        await services.resolver.check_still(
            caller_app_id or row.app_id, runnable, through_catalogue
        )
    return value


async def _with_files(services: RunServices, row: RunRow, checked: Checked) -> Raw:
    value: Any = checked.value
    keyless = row.origin == "WEBHOOK"
    for slot in checked.files:
        stored = await services.files.resolve(
            row.app_id, row.id, slot, row.workflow_app_id, keyless=keyless
        )
        place(value, slot.path, stored)
    note_configured(row, checked.configured)
    try:
        return json.raw(value)
    except json.InvalidJson as error:
        raise BadInput(f"input cannot be stored: {error}") from error


@asynccontextmanager
async def taking_in(services: RunServices, run_id: str) -> AsyncIterator[None]:
    """Let what was stored for a run go again if it does not come to be."""
    try:
        yield
    except BaseException:
        await uninterrupted(_discard(services, run_id))
        raise


@asynccontextmanager
async def _unless_refused(services: RunServices, run_id: str) -> AsyncIterator[None]:
    """Let what was stored for a run go again where the run is refused. One whose storing was not
    waited for to the end may come to be yet."""
    try:
        yield
    except (Unavailable, asyncio.CancelledError):
        raise
    except BaseException:
        await uninterrupted(_discard(services, run_id))
        raise


async def _discard(services: RunServices, run_id: str) -> None:
    try:
        await services.files.discard(run_id)
    except (InsulaError, OSError) as error:  # they expire: the sweep removes them
        _log.warning("files.not_removed", run_id=run_id, reason=str(error))


def definition_of(document: Document, plan: Plan) -> dict[str, Any]:
    """Return the fields of a run's input: the document's own, and its entry input steps'."""
    fields: dict[str, Any] = dict(document.input or {})
    for key in plan.entries:
        step = plan.nodes[key].step
        if isinstance(step, InputStep):
            fields.update(step.input)
    return fields


def claiming(principal: Principal, asked: Start, run_id: str) -> Before | None:
    """Return what records the request's idempotency key in the unit that creates the run."""
    if asked.idempotency is None:
        return None
    return partial(claim, principal=principal, idempotency=asked.idempotency, resource_id=run_id)


async def attach(services: RunServices, run_id: str) -> Started:
    """Return the run that an earlier request with the same key created."""
    row = await services.database.read(partial(repository.find, run_id=run_id))
    if row is None:
        raise Conflict("The run that this Idempotency-Key created is gone; use a new key")
    return Started(row, services.live.get(run_id))
