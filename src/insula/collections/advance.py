"""Going on with a record that is being analysed: one step, which any node may take at any time.

The rows are the truth. A rule's run is created in the unit that takes the rule, so it has one run,
whoever else tries at the same time; the verdict lands in the commit of the run's end
(``landing``); and what is to be done next follows from the rules' rows alone.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection

from insula.collections import landing, record_repository, repository
from insula.collections.analysis import UNCANCELLED, ended_as
from insula.collections.records import LOST
from insula.collections.rows import RecordRow, RuleRow, Standing
from insula.collections.services import Event, RecordServices
from insula.collections.verdict import STATUSES
from insula.collections.workflows import behind, digest
from insula.errors import BadInput, Conflict, InsulaError, NotFound, TooLarge
from insula.kit import json
from insula.kit.clock import now_ms
from insula.runs.creation import Before
from insula.runs.options import RunOptions
from insula.runs.start import Start, check_seen, queue
from insula.web.auth import Principal

_STARTED_AT_ONCE = 8
_CANNOT = (BadInput, Conflict, NotFound, TooLarge)
"""What will not be otherwise if it is tried again."""


class _Overtaken(Exception):
    """Another took the rule, or the record is not analysed any more."""


async def advance(services: RecordServices, record_id: str) -> None:
    """Start the rules that are due next; where none is left, end the analysis.

    Raises:
        TooMany, Unavailable: it cannot go on now; the sweep comes back to it.
    """
    while True:
        found = await services.runs.database.read(partial(_read, record_id=record_id))
        if found is None or not found[0].is_live:
            return
        row, rules = found
        waited_for = [rule for rule in rules if rule.is_open]
        if not waited_for:
            end = partial(conclude, services, record_id=record_id, analysis=row.analysis)
            await services.runs.database.write(end)
            services.rests(record_id)
            return
        if row.cancel_requested_at is not None:
            return  # who cancels goes on with it
        phase = min(rule.phase for rule in waited_for)
        due = [rule.key for rule in waited_for if rule.due and rule.phase == phase]
        if not due or not await _start_all(services, row, due):
            return


def _read(connection: Connection, record_id: str) -> tuple[RecordRow, list[Standing]] | None:
    row = record_repository.by_id(connection, record_id)
    return None if row is None else (row, record_repository.standing(connection, record_id))


async def _start_all(services: RecordServices, row: RecordRow, due: Sequence[str]) -> bool:
    """Start rules; say whether there may be more to do, because none of them runs."""
    database = services.runs.database
    config = await database.read(lambda c: repository.config(c, row.config_id))
    if config is None:  # the record was deleted meanwhile, or has lost it
        await database.write(partial(_fail_lost, row=row))
        return True
    gate = asyncio.Semaphore(_STARTED_AT_ONCE)
    known = {rule["key"]: rule for rule in config.rules}

    async def one(key: str) -> BaseException | bool:
        async with gate:
            try:
                held = await database.read(lambda c: record_repository.rule(c, row.id, key))
                return held is not None and await _start(services, row, known[key], held)
            except InsulaError as error:  # told when all have had their turn
                return error

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(key)) for key in due]
    results = [task.result() for task in tasks]
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return not any(results)


async def _start(
    services: RecordServices, row: RecordRow, rule: dict[str, Any], held: RuleRow
) -> bool:
    """Start a rule's run; say whether it runs now, or somebody else deals with it."""
    try:
        runnable = await behind(services.runs, row.app_id, rule)
        step = rule["step_key"]
        if step is not None:
            check_seen(runnable, row.app_id, step)
        plan = await services.runs.plans.lay_out(runnable, step)
        asked = Start(
            input=held.given(),
            from_step_key=step,
            identifier=row.id,
            background=True,
            options=RunOptions(rule=landing.mark(row, rule)),
            origin="RECORD",
        )
        ran = digest(rule, runnable.version_id, held.input)
        principal = Principal(row.app_id, row.created_by or row.id)
        begun = partial(landing.begun, rule, workflow_app_id=runnable.workflow_app_id)
        claims = partial(_taking, services, row, held.key, ran, begun)
        await queue(services.runs, principal, runnable, plan, asked, claims)
    except _Overtaken:
        return True
    except _CANNOT as error:
        unit = partial(_fail, row=row, rule=rule, words=error.message)
        await services.runs.database.write(unit)
        return False
    return True


def _taking(
    services: RecordServices,
    row: RecordRow,
    key: str,
    ran: bytes,
    begun: Callable[[str], bytes],
    run_id: str,
) -> Before:
    """Return what takes a rule, in the unit that creates its run."""

    def unit(connection: Connection) -> None:
        now = record_repository.by_id(connection, row.id)
        if now is None or now.analysis != row.analysis or now.cancel_requested_at is not None:
            raise _Overtaken
        if not record_repository.take(connection, row.id, key, run_id, ran, begun(run_id)):
            raise _Overtaken
        if now.status == "QUEUED":
            record_repository.change(connection, now, {"status": "RUNNING"})
            services.told(connection, "record.running", now)

    return unit


def _fail(connection: Connection, *, row: RecordRow, rule: dict[str, Any], words: str) -> None:
    """Give a rule that cannot be run the verdict of its failure."""
    if _is_still(connection, row):
        changed = _failed(STATUSES[rule["on_fail"]], words)
        record_repository.settle(connection, row.id, rule["key"], changed)


def _fail_lost(connection: Connection, *, row: RecordRow) -> None:
    """Fail whatever is due of a record whose rules the database does not hold."""
    if _is_still(connection, row):
        changed = _failed("FAILED", f"The rule cannot be run: {LOST}")
        record_repository.settle_due(connection, row.id, changed)


def _is_still(connection: Connection, row: RecordRow) -> bool:
    """Whether a record is in the analysis in which it was read, on the same rules."""
    now = record_repository.by_id(connection, row.id)
    return (
        now is not None
        and (now.analysis, now.config_id) == (row.analysis, row.config_id)
        and now.cancel_requested_at is None
    )


def _failed(status: str, words: str) -> dict[str, Any]:
    outcome = json.encode({"error": words})
    return {"due": False, "status": status, "ended": "FAILED", "outcome": outcome}


def conclude(
    services: RecordServices, connection: Connection, *, record_id: str, analysis: int
) -> bool:
    """In a unit: end an analysis of which nothing is left; say whether it has ended."""
    row = record_repository.by_id(connection, record_id)
    if row is None or not row.is_live or row.analysis != analysis:
        return True
    rules = record_repository.standing(connection, record_id)
    if any(rule.is_open for rule in rules):
        return False
    status = ended_as(rules)
    changed = {"status": status, **record_repository.tally(rules)}
    if status != "CANCELLED":
        changed |= UNCANCELLED
    record_repository.change(connection, row, changed)
    if status != "CANCELLED":
        told: Event = "record.failed" if status == "FAILED" else "record.completed"
        services.told(connection, told, row)
    return True


def request_cancel(connection: Connection, *, row: RecordRow, by: str) -> list[str]:
    """In a unit: let no rule of a record begin any more, and ask for the cancel of what runs, so
    that whoever finds it after a crash stops it; return the ids of the runs to stop."""
    if row.cancel_requested_at is None:
        asked = {"cancel_requested_at": now_ms(), "cancel_requested_by": by}
        record_repository.change(connection, row, asked)
    rules = record_repository.standing(connection, row.id)
    changed = {
        "due": False,
        "status": "DRAFT",
        "ended": "CANCELLED",
        "ran": None,
        "outcome": json.encode({"error": landing.NOT_BEGUN}),
    }
    record_repository.settle_due(connection, row.id, changed)
    running = [r.run_id for r in rules if r.status == "RUNNING" and r.run_id is not None]
    record_repository.request_cancels(connection, running, by)
    return running
