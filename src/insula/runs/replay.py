"""Replaying: a new run of the same version and input, that keeps what its start does not touch."""

from contextlib import nullcontext
from dataclasses import replace

from insula.engine.document import Document
from insula.engine.events import (
    Event,
    RunStarted,
    StepEnded,
    StepSkipped,
    StepStarted,
    UnitEnded,
    UnitStarted,
    decode_events,
    encode_events,
)
from insula.engine.graph import Plan, check_start
from insula.engine.state import Address, CallState, RunState, StepState, fold
from insula.errors import BadInput, Conflict, FieldError
from insula.files.copies import copy_held
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.kit.json import Raw
from insula.runs.creation import check_room
from insula.runs.execution import prepare
from insula.runs.options import change_options, options_of
from insula.runs.reading import Find, read_stored
from insula.runs.repository import NewRun
from insula.runs.rows import RunRow
from insula.runs.services import RunServices
from insula.runs.start import (
    Start,
    Started,
    attach,
    begin,
    caller_limit,
    check_seen,
    check_taken,
    claiming,
    enqueue,
    taking_in,
    waits,
)
from insula.web.auth import Principal, unknown
from insula.web.idempotency import made_before
from insula.workflows.access import DRAFT
from insula.workflows.resolve import Runnable


async def replay(
    services: RunServices, principal: Principal, find: Find, step_key: str, asked: Start
) -> Started:
    """Start a run anew from one of its steps.

    Raises:
        Conflict: the source is not final, or was erased.
        BadInput: no run of this version can start from that step.
        NotFound: there is no such run, or the workflow is deleted, or, through the catalogue, not
            published any more.
        TooMany: too many runs are live.
    """
    if earlier := await made_before(services.database, principal, asked.idempotency):
        return await attach(services, earlier)
    check_taken(services)
    # Row, input and events are of one moment: what is erased in between is not taken for a run
    # that had done nothing.
    stored = await read_stored(services, find)
    source, given = stored.row, stored.input
    if not source.is_final:
        raise Conflict("The run has not ended; cancel it or wait, then replay it")
    if not await services.resolver.admits(source.workflow_id):
        raise unknown()  # of what is deleted the data goes, too, and that is no reason to tell
    if source.erased_at is not None or given is None:
        raise Conflict("The run's data was erased; start a new run")
    runnable = await _runnable(services, principal, source, stored.draft, asked)
    check_seen(runnable, principal.app_id, step_key)
    plan = await services.plans.lay_out(runnable, source.from_step_key)
    _check(runnable.document, plan, step_key)
    kept = kept_events(plan, fold(stored.events), step_key, now_ms())
    queued = waits(services, principal.app_id, asked)
    row = _row(services, source, step_key, asked, len(kept), waits=queued)
    limit = caller_limit(runnable, row.app_id)
    admitted = nullcontext() if queued else services.live.admit(row.app_id, row.workflow_id, limit)
    with admitted as held:
        await check_room(services, row)
        async with taking_in(services, row.id):
            given, kept = await _own_files(services, row, given, kept)
            await services.resolver.check_still(principal.app_id, runnable, asked.through_catalogue)
        new = NewRun(row, given, stored.draft, encode_events(kept))
        if queued:
            return await enqueue(services, new, claiming(principal, asked, row.id))
        live = prepare(services, row, runnable, Raw(given), fold(kept), held)
        return await begin(services, live, new, principal, asked, kept)


async def _own_files(
    services: RunServices, row: RunRow, given: bytes, kept: list[Event]
) -> tuple[bytes, list[Event]]:
    """Return what a replay takes over with files of its own: the source's go with the source."""
    events = encode_events(kept)
    own = await copy_held(services.files.store, row.app_id, row.id, (given, events))
    return own[0], kept if own[1] is events else decode_events(own[1])


async def _runnable(
    services: RunServices, principal: Principal, source: RunRow, draft: bytes | None, asked: Start
) -> Runnable:
    """Return what the source ran, if a run of it may be started today."""
    selector = DRAFT if source.version_id is None else source.version_id
    today = await services.resolver.resolve(
        principal.app_id, source.workflow_id, selector, asked.through_catalogue
    )
    if source.version_id is not None:
        return today
    return await services.resolver.stored(source.workflow_id, None, draft)


def _check(document: Document, plan: Plan, step_key: str) -> None:
    check_start(document, step_key, "stepKey")
    if step_key not in plan.nodes:
        message = "stepKey names a step that this run never reaches; name another step"
        raise BadInput(message, [FieldError(("stepKey",), "invalid_step", message)])


def kept_events(plan: Plan, source: RunState, step_key: str, now: int) -> list[Event]:
    """Return the events that a replay begins with: its start, and the steps that it keeps.

    Kept are steps not downstream of ``step_key`` that COMPLETED, were SKIPPED, or FAILED and were
    continued; they cost nothing again.
    """
    redone = plan.downstream(step_key)
    events: list[Event] = [RunStarted(now)]
    for step in source.steps.values():
        node = plan.nodes.get(step.key)
        if node is None or step.key in redone:
            continue
        continued = step.status == "FAILED" and not node.step.throw_on_error
        if step.status in ("COMPLETED", "SKIPPED") or continued:
            events += _kept(step)
    return events


def _kept(step: StepState) -> list[Event]:
    if step.status == "SKIPPED":
        logs = step.all_logs()
        return [StepSkipped(step.start, step.key, step.type, step.conditional, logs)]
    begun = StepStarted(step.start, step.key, step.type, looped=step.looped)
    ended = StepEnded(
        step.end or step.start,
        step.key,
        "FAILED" if step.status == "FAILED" else "COMPLETED",
        output=step.output,
        error=step.error,
        code=step.code,
        logs=step.all_logs(),
    )
    calls = (event for address, call in step.calls.items() for event in _call(step, address, call))
    return [begun, *calls, ended]


def _call(step: StepState, address: Address, call: CallState) -> tuple[UnitStarted, UnitEnded]:
    index, round_number, name = address
    begun = UnitStarted(
        call.start,
        step.key,
        1,
        index=index,
        round=round_number,
        call=name,
        tool=call.key,
        tool_type=call.type,
    )
    ended = UnitEnded(
        call.end or call.start,
        step.key,
        index=index,
        round=round_number,
        call=name,
        output=call.output,
        error=call.error,
        logs=call.logs,
    )
    return begun, ended


def _row(
    services: RunServices, source: RunRow, step_key: str, asked: Start, seq: int, *, waits: bool
) -> RunRow:
    now = now_ms()
    run_id = new_id("run")
    # Its limits and its timeout are the source's, as its version and its input are.
    # What is kept may hold its handles of secrets, which are to mean the same here.
    handles = options_of(source).handles or source.root_id
    options = change_options(source, handles=handles, spent=None, replay_step=step_key)
    return replace(
        source,
        id=run_id,
        root_id=run_id,
        parent_id=None,
        parent_key=None,
        depth=0,
        status="PENDING" if waits else "RUNNING",
        origin=asked.origin,
        identifier=asked.identifier,
        replay_of=source.id,
        background=asked.background,
        options=options,
        owner=None if waits else services.token,
        seq=seq,
        error=None,
        credits=0.0,
        retention=source.retention if asked.retention is None else asked.retention,
        retention_due_at=None,
        cancel_requested_at=None,
        cancel_requested_by=None,
        started_at=None if waits else now,
        ended_at=None,
        created_at=now,
        updated_at=now,
    )
