"""Carries a run from wherever it stands to its stored end, as one task of this process."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection

from insula.engine.events import RunEnded
from insula.engine.execute import end_at_rest, execute
from insula.engine.ports import Fenced, Limits, Ports, Stop
from insula.engine.state import RunState
from insula.journal.store import Counted
from insula.kit import json
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.kit.json import Raw
from insula.runs import retention
from insula.runs.children import ChildRuns
from insula.runs.live import LiveRun
from insula.runs.rows import RunRow
from insula.runs.services import RunServices
from insula.workflows.resolve import Runnable

_log = structlog.get_logger(__name__)
T = TypeVar("T")


def prepare(
    services: RunServices,
    row: RunRow,
    runnable: Runnable,
    given: Raw,
    state: RunState | None = None,
) -> LiveRun:
    """Put together what a run needs. ``state`` is given for a run that has begun already.

    Raises:
        BadInput: the run's start is no step that a run can start from.
    """
    options = json.decode(row.options)
    counted = Counted(row.app_id, row.workflow_id, row.status, row.origin)
    log = services.journal.open(row.id, row.seq, None if row.hidden else counted)
    replayed = options.get("replay_step")
    stop = Stop()
    ports = Ports(
        run_id=row.id,
        app_id=row.app_id,
        recorder=log,
        sandbox=services.sandbox,
        http=services.http,
        models=services.models,
        children=ChildRuns(row, stop, services.begin_child),
        stop=stop,
        clock=now_ms,
        new_id=new_id,
        input=given,
        limits=_limits(services.limits, options.get("limits") or {}),
        timeouts=services.timeouts,
        max_attempts=services.max_attempts,
        max_iterations=services.max_iterations,
        max_output=services.max_output,
    )
    return LiveRun(
        row=row,
        runnable=runnable,
        plan=services.plan_of(runnable, row.from_step_key),
        state=state or RunState(),
        ports=ports,
        log=log,
        input=given,
        forced=frozenset((replayed,)) if replayed else frozenset(),
        finished=asyncio.get_running_loop().create_future(),
        chargeable=row.depth == 0,
    )


def launch(services: RunServices, live: LiveRun) -> LiveRun:
    """Begin to execute a run whose row is stored and owned by this process."""
    services.live.add(live)
    if live.chargeable:
        seconds = live.row.option("timeout") or services.run_timeout
        spent = (now_ms() - (live.row.started_at or now_ms())) / 1000
        loop = asyncio.get_running_loop()
        live.deadline = loop.call_later(max(0.0, seconds - spent), live.stop, "deadline")
    live.task = services.group.create_task(_carry(services, live))
    return live


async def _carry(services: RunServices, live: LiveRun) -> None:
    try:
        live.entered = True
        ended = await _execute(live)
        live.ending = True
        live.fenced = not await uninterrupted(_store_end(services, live, ended))
    except Fenced:
        live.fenced = True
        _log.warning("run.fenced", run_id=live.row.id)
    except asyncio.CancelledError:
        live.fenced = True  # shutting down: whoever recovers the run goes on
    finally:
        if live.deadline is not None:
            live.deadline.cancel()
        services.live.remove(live)
        services.queue.wake()
        if not live.finished.done():
            live.finished.set_result(None)


async def _execute(live: LiveRun) -> RunEnded:
    if live.stopping or live.row.cancel_requested_at is not None:
        if live.ports.stop.kind == "shutdown":
            raise asyncio.CancelledError
        return end_at_rest(live.state, live.ports)
    return await execute(live.plan, live.state, live.ports, live.forced)


async def _store_end(services: RunServices, live: LiveRun, ended: RunEnded) -> bool:
    """Write the run's end, the one write that decides what became of it."""
    row = live.row
    columns: dict[str, Any] = {
        "status": ended.status,
        "error": ended.error,
        "credits": live.state.credits,
        "ended_at": ended.at,
        "updated_at": ended.at,
        "retention_due_at": retention.due_at(row, ended.status, ended.at, services.retention),
    }
    files: list[str] = []

    def erase(connection: Connection) -> None:
        files[:] = retention.erase(connection, [row.id], ended.at)

    erased = columns["retention_due_at"] == ended.at
    stored = await live.log.end(ended, columns, erase if erased else None)
    if stored:
        for name, value in columns.items():
            setattr(row, name, value)
        row.erased_at = ended.at if erased else None
        row.seq = live.log.seq
        await services.files.remove(files)
    return stored


def _limits(installed: Limits, asked: dict[str, Any]) -> Limits:
    lowered = {name: min(getattr(installed, name), value) for name, value in asked.items() if value}
    return Limits(
        cpu=lowered.get("cpu", installed.cpu),
        wall=lowered.get("wall", installed.wall),
        memory=lowered.get("memory", installed.memory),
        output=lowered.get("output", installed.output),
        logs=lowered.get("logs", installed.logs),
    )


async def uninterrupted(work: Awaitable[T]) -> T:
    """Await to the end even if this task is cancelled meanwhile; then let the cancel out."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
            cancelled = True
        except Exception:  # raised below, from the task's own result
            break
    result = task.result()
    if cancelled:
        raise asyncio.CancelledError
    return result
