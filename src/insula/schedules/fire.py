"""What happens when a schedule is due: its run is created, in the unit that takes the tick.

So a tick has one run at most, whoever else looks at it at the same time, and is not lost if the
process dies before: until the unit is committed it is still due.
"""

from functools import partial

import structlog
from sqlalchemy import Connection

from insula.engine.timetable import Due, due
from insula.errors import BadInput, Conflict, InsulaError, NotFound, TooMany, Unavailable
from insula.kit import json
from insula.kit.clock import iso
from insula.runs.creation import Before
from insula.runs.options import RunOptions
from insula.runs.services import RunServices
from insula.runs.start import Start, check_seen, queue
from insula.schedules import repository
from insula.schedules.repository import Schedule
from insula.web.auth import Principal
from insula.web.idempotency import Idempotency, claim
from insula.workflows.resolve import Runnable

_log = structlog.get_logger(__name__)

_METHOD = "TICK"


class _Overtaken(Exception):
    """Another process took the tick, or the schedule was changed meanwhile."""


async def fire(services: RunServices, schedule: Schedule, now: int) -> bool:
    """Deal with a schedule that is due at ``now``; say whether it may be due again already.

    A workflow that cannot be run now costs the tick its run, and the schedule says why; one that
    is gone switches it off.

    Raises:
        TooMany: too many runs of the app wait: it stays due.
        Unavailable: nothing can be stored now: it stays due.
    """
    assert schedule.next_at is not None
    found = due(schedule.timetable, schedule.next_at, now, schedule.policy)
    if found.tick is None:
        await _pass_over(services, schedule, found, f"{found.missed} ticks were missed")
        return False
    try:
        runnable = await _resolve(services, schedule)
        await _start(services, schedule, runnable, found, now)
    except _Overtaken:
        return False
    except NotFound as error:
        await _pass_over(services, schedule, found, error.message, off=True)
    except (TooMany, Unavailable):
        raise
    except InsulaError as error:
        await _pass_over(services, schedule, found, error.message)
    return found.next_at is not None and found.next_at <= now


async def _pass_over(
    services: RunServices, schedule: Schedule, found: Due, reason: str, *, off: bool = False
) -> None:
    _log.warning("schedule.passed_over", schedule_id=schedule.id, reason=reason)
    unit = partial(repository.advance, schedule=schedule, due=found, error=reason, off=off)
    await services.database.write(unit)


async def _resolve(services: RunServices, schedule: Schedule) -> Runnable:
    wanted = (schedule.app_id, schedule.workflow_id, schedule.version)
    try:
        return await resolve(services, *wanted)
    except (NotFound, BadInput, Conflict):
        # Another node may have changed it a moment ago. What costs the tick its run, or switches
        # the schedule off for good, is decided by what is stored, and not by what was kept.
        services.resolver.forget(schedule.workflow_id)
        return await resolve(services, *wanted)


async def resolve(
    services: RunServices, app_id: str, workflow_id: str, version: str | None
) -> Runnable:
    """Return what a schedule of this app runs: its own workflow, or one from the catalogue.

    Raises:
        NotFound, BadInput, Conflict: as ``Resolver.resolve``.
    """
    facts = await services.resolver.facts(workflow_id)
    through_catalogue = facts is None or facts.app_id != app_id
    return await services.resolver.resolve(app_id, workflow_id, version, through_catalogue)


async def _start(
    services: RunServices, schedule: Schedule, runnable: Runnable, found: Due, now: int
) -> None:
    assert found.tick is not None
    told = {
        "scheduled_at": iso(found.tick),
        "fired_at": iso(now),
        "timezone": schedule.timezone,
        "missed": found.missed,
    }
    asked = Start(
        input=None if schedule.input is None else json.decode(schedule.input),
        from_step_key=schedule.from_step_key,
        identifier=schedule.id,
        background=True,
        options=RunOptions(trigger=told),
        origin="TRIGGER",
    )
    if asked.from_step_key is not None:
        check_seen(runnable, schedule.app_id, asked.from_step_key)
    plan = await services.plans.lay_out(runnable, asked.from_step_key)
    principal = Principal(schedule.app_id, schedule.id)
    await queue(services, principal, runnable, plan, asked, partial(_taking, schedule, found))


def _taking(schedule: Schedule, found: Due, run_id: str) -> Before:
    """Return what takes the tick, in the unit that creates its run."""
    key = Idempotency(str(found.tick), _METHOD, f"/schedules/{schedule.id}", b"")
    principal = Principal(schedule.app_id, schedule.id)

    def unit(connection: Connection) -> str | None:
        earlier = claim(connection, principal, key, run_id)
        if not repository.advance(connection, schedule, found, run_id=earlier or run_id):
            raise _Overtaken
        return earlier

    return unit
