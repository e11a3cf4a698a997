"""Carries a run from wherever it stands to its stored end, as one task of this process."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection

from insula.engine.ending import cancel_open_steps, end, end_at_rest
from insula.engine.events import RunEnded
from insula.engine.execute import execute
from insula.engine.failures import StepFailure
from insula.engine.ports import Fenced, Limits, Ports, Stop
from insula.engine.state import RunState
from insula.errors import InsulaError, Unavailable
from insula.journal.log import RunLog
from insula.journal.store import Counted
from insula.kit import json
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.kit.json import Raw
from insula.kit.tasks import uninterrupted
from insula.runs import retention
from insula.runs.children import ChildRuns
from insula.runs.deadline import seconds_left
from insula.runs.live import LiveRun, Place
from insula.runs.options import RunOptions, options_of
from insula.runs.rows import RunRow
from insula.runs.services import RunServices
from insula.workflows.resolve import Runnable

_log = structlog.get_logger(__name__)

_ENDS_TRIED = 2
"""Ends of a run that are tried with all that others store with them."""
DEFECT = "Internal error; the server's log has more"


def prepare(
    services: RunServices,
    row: RunRow,
    runnable: Runnable,
    given: Raw,
    state: RunState | None = None,
    place: Place | None = None,
) -> LiveRun:
    """Put together what a run needs. ``state`` is given for a run that has begun already, ``place``
    for one that was admitted just now.

    Raises:
        BadInput: the run's start is no step that a run can start from.
    """
    plan = services.plans.plan_of(runnable, row.from_step_key)
    options = options_of(row)
    replayed = options.replay_step
    # One that was interrupted is counted at once, lest what ends the process does so for ever.
    lingers = state is None and plan.may_repeat
    log, ports = _ports(services, row, given, options, lingers=lingers)
    return LiveRun(
        row=row,
        runnable=runnable,
        plan=plan,
        state=state or RunState(),
        ports=ports,
        log=log,
        input=given,
        forced=frozenset((replayed,)) if replayed else frozenset(),
        finished=asyncio.get_running_loop().create_future(),
        place=place,
    )


def _ports(
    services: RunServices,
    row: RunRow,
    given: Raw,
    options: RunOptions,
    *,
    lingers: bool = False,
) -> tuple[RunLog, Ports]:
    counted = Counted(row.app_id, row.workflow_id, row.status, row.origin)
    log = services.journal.open(row.id, row.seq, None if row.hidden else counted, lingers=lingers)
    stop = Stop()
    ports = Ports(
        run_id=row.id,
        app_id=row.app_id,
        recorder=log,
        sandbox=services.sandbox,
        http=services.http,
        models=services.models,
        services=services.actions,
        files=services.file_reader,
        workflow_app_id=row.workflow_app_id,
        children=ChildRuns(row, stop, services.begin_child, services.patience),
        stop=stop,
        clock=now_ms,
        new_id=new_id,
        input=given,
        trigger=None if options.trigger is None else json.raw(options.trigger),
        limits=_limits(services.limits, options.limits or {}),
        timeouts=services.timeouts,
        prices=services.prices,
        max_attempts=services.max_attempts,
        max_iterations=services.max_iterations,
        max_output=services.max_output,
    )
    return log, ports


def launch(services: RunServices, live: LiveRun) -> LiveRun:
    """Begin to execute a run whose row is stored and owned by this process."""
    services.live.add(live)
    if live.row.depth == 0:
        left = seconds_left(live.row, services.run_timeout)
        live.deadline = asyncio.get_running_loop().call_later(left, live.stop, "deadline")
    services.metrics.started.inc()
    live.task = services.group.create_task(_carry(services, live))
    return live


def forget(services: RunServices, live: LiveRun) -> None:
    """Undo ``prepare`` for a run that was not stored."""
    live.log.drop()
    _gone(services, live, fenced=True)


async def _carry(services: RunServices, live: LiveRun) -> None:
    ours = False
    try:
        live.entered = True
        ended = await _ended(services, live)
        live.ending = True
        if live.end_below is not None and ended.status != "COMPLETED":
            await uninterrupted(live.end_below())
        ours = await _store_some_end(services, live, ended)
    except Fenced:
        _log.warning("run.fenced", run_id=live.row.id)
    except asyncio.CancelledError:
        _log.debug("run.left", run_id=live.row.id)  # whoever recovers the run goes on
    except Unavailable as error:  # it has not begun: the sweeper finds it
        _log.warning("run.left", run_id=live.row.id, reason=error.message)
        live.log.drop()
    except Exception:  # one run's defect must not take the others down; the sweeper finds it
        _log.exception("run.not_ended", run_id=live.row.id)
        live.log.drop()
    finally:
        if live.log.fenced:
            services.metrics.fenced.inc()
        _gone(services, live, fenced=not ours and live.row.ended_at is None)


def _gone(services: RunServices, live: LiveRun, *, fenced: bool) -> None:
    live.fenced = fenced
    if live.deadline is not None:
        live.deadline.cancel()
    services.live.remove(live)
    services.room()
    if not live.finished.done():
        live.finished.set_result(None)


async def _ended(services: RunServices, live: LiveRun) -> RunEnded:
    """Execute to the end; a defect of ours ends in a failed run, not in a stuck one."""
    try:
        return await _execute(services, live)
    except (Fenced, Unavailable):
        raise
    except StepFailure as failure:  # what it needs before any step
        told = cancel_open_steps(live.state, live.ports)
        words, code = failure.message, failure.code
        return end(live.state, live.ports, "FAILED", error=words, code=code, interruptions=told)
    except Exception:
        _log.exception("run.broke", run_id=live.row.id)
        told = cancel_open_steps(live.state, live.ports)
        return end(
            live.state, live.ports, "FAILED", error=DEFECT, code="internal", interruptions=told
        )


async def _execute(services: RunServices, live: LiveRun) -> RunEnded:
    if live.stopping or live.row.cancel_requested_at is not None:
        if live.ports.stop.kind == "shutdown":
            raise asyncio.CancelledError
        return end_at_rest(live.state, live.ports)
    row = live.row
    options = options_of(row)
    seed = options.handles or row.root_id
    try:
        live.ports = await services.equip(
            live.ports, row.workflow_app_id, seed, live.state.started_at
        )
        if options.outfit is not None:
            live.ports = await services.outfit(options.outfit, live.ports)
    except asyncio.CancelledError:
        if live.ports.stop.kind in (None, "shutdown"):
            raise
        return end_at_rest(live.state, live.ports)
    return await execute(live.plan, live.state, live.ports, live.forced)


async def end_unrunnable(services: RunServices, row: RunRow, state: RunState, reason: str) -> None:
    """End a run of this process as FAILED that cannot go on: its version is gone."""
    log, ports = _ports(services, row, Raw(b"{}"), RunOptions())
    told = cancel_open_steps(state, ports)
    ended = end(state, ports, "FAILED", error=reason, code="not_available", interruptions=told)
    await uninterrupted(_store_end(services, row, state, log, ended))


async def _store_some_end(services: RunServices, live: LiveRun, ended: RunEnded) -> bool:
    """Write the run's end; where that cannot be stored, that it failed, in the end that alone.

    Whoever found the run again would come to the same end, and so for ever.
    """
    store = partial(_store_end, services, live.row, live.state, live.log, runnable=live.runnable)
    for _ in range(_ENDS_TRIED):
        try:
            return await uninterrupted(store(ended))
        except (Fenced, Unavailable):
            raise
        except Exception:
            _log.exception("run.end_not_stored", run_id=live.row.id)
        ended = end(live.state, live.ports, "FAILED", error=DEFECT, code="internal")
    return await uninterrupted(store(ended, alone=True))


async def _store_end(
    services: RunServices,
    row: RunRow,
    state: RunState,
    log: RunLog,
    ended: RunEnded,
    runnable: Runnable | None = None,
    *,
    alone: bool = False,
) -> bool:
    """Write the run's end, the one write that decides what became of it; ``alone`` without what
    others store with it."""
    columns: dict[str, Any] = {
        "status": ended.status,
        "error": ended.error,
        "credits": state.credits,
        "ended_at": ended.at,
        "updated_at": ended.at,
        "retention_due_at": retention.due_at(
            row.retention,
            ended.status,
            ended.at,
            services.retention,
            held=row.depth > 0 and services.live.get(row.root_id) is not None,
        ),
    }
    files: list[str] = []
    gone: list[str] = []
    hooks = () if alone else services.at_end
    units = [unit for hook in hooks if (unit := hook(row, state, ended, runnable)) is not None]

    def erase(connection: Connection) -> None:
        gone[:] = [row.id, *retention.due_below(connection, row.id, ended.at)]
        files[:] = retention.erase(connection, gone, ended.at)

    # A child's data stays until its root has ended: should the process die before the parent has
    # stored what its child gave, whoever recovers it reads that again.
    if row.depth == 0 and not alone and _may_have_children(runnable):
        units.append(partial(retention.let_go_below, root_id=row.id, default=services.retention))
    erased = columns["retention_due_at"] == ended.at and row.depth == 0 and not alone
    if erased:
        units.append(erase)
    stored = await log.end(ended, columns, partial(_each, units) if units else None)
    if stored:
        for name, value in columns.items():
            setattr(row, name, value)
        row.erased_at = ended.at if erased else None
        row.seq = log.seq
        services.metrics.ended.labels(ended.status).inc()
        if gone:
            services.metrics.note_erased(len(gone))
        for told in services.after_end:
            told(row)
        await _remove(services, files)
    return stored


def _may_have_children(runnable: Runnable | None) -> bool:
    return runnable is None or any(step.type == "workflow" for step in runnable.document.steps)


def _each(units: list[Callable[[Connection], None]], connection: Connection) -> None:
    for unit in units:
        unit(connection)


async def _remove(services: RunServices, files: list[str]) -> None:
    try:
        await services.files.remove(files)
    except (InsulaError, OSError) as error:  # their rows are gone: the sweep tries again
        _log.warning("files.not_removed", reason=str(error))


def _limits(installed: Limits, asked: Mapping[str, Any]) -> Limits:
    lowered = {name: min(getattr(installed, name), value) for name, value in asked.items() if value}
    return Limits(
        cpu=lowered.get("cpu", installed.cpu),
        wall=lowered.get("wall", installed.wall),
        memory=lowered.get("memory", installed.memory),
        output=lowered.get("output", installed.output),
        logs=lowered.get("logs", installed.logs),
    )
