"""What is done with schedules that are made by hand: make, change, delete."""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy import Connection

from insula.engine.inputs import check_input
from insula.engine.timetable import BadTimetable, Timetable, check, moment_of
from insula.errors import BadInput, Conflict, FieldError
from insula.kit import json
from insula.kit.ids import new_id
from insula.runs.services import RunServices
from insula.runs.start import check_seen, definition_of
from insula.schedules import repository
from insula.schedules.fire import resolve
from insula.schedules.limit import check_room
from insula.schedules.repository import Schedule
from insula.schedules.schemas import CreateSchedule, UpdateSchedule
from insula.web.auth import Principal, unknown
from insula.web.idempotency import Idempotency, claim, made_before

INPUT_MAX = 256 * 1024
"""Bytes of a schedule's input; files larger than that are stored first and named by their id."""

_TIMES = ("at", "cron", "every")
_PLAIN = ("from_step_key", "missed", "enabled")


async def create(
    services: RunServices,
    principal: Principal,
    fields: CreateSchedule,
    idempotency: Idempotency | None = None,
) -> Schedule:
    """Make a schedule.

    Raises:
        BadInput: its times, its version or its input cannot be used.
        NotFound: there is no such workflow for this app.
        Conflict: the workflow is disabled, or the app has too many schedules.
    """
    earlier = await made_before(services.database, principal, idempotency)
    if earlier is not None:
        query = partial(repository.find, app_id=principal.app_id, schedule_id=earlier)
        return _there(await services.database.read(query))
    now = await services.database.read(repository.clock)
    blank = Schedule(
        id=new_id("sched"),
        app_id=principal.app_id,
        workflow_id=fields.workflow_id,
        step_key=None,
        version=None,
        from_step_key=None,
        cron=None,
        every=None,
        at=None,
        timezone="UTC",
        anchor=now,
        missed="once",
        input=None,
        enabled=True,
        next_at=None,
        last_at=None,
        last_run_id=None,
        last_error=None,
        runs=0,
        created_by=principal.key_id,
        created_at=now,
        updated_at=now,
    )
    made = await asyncio.to_thread(_changed, blank, fields, now)
    await _check_runs(services, made)

    def unit(connection: Connection) -> Schedule | None:
        if idempotency is not None:
            earlier = claim(connection, principal, idempotency, made.id)
            if earlier is not None:
                return repository.find(connection, principal.app_id, earlier)
        check_room(connection, principal.app_id, 1)
        repository.store(connection, made)
        return made

    return _there(await services.database.write(unit))


def _there(schedule: Schedule | None) -> Schedule:
    if schedule is None:
        raise Conflict("The schedule that this Idempotency-Key created is gone; use a new key")
    return schedule


async def update(
    services: RunServices, principal: Principal, schedule_id: str, fields: UpdateSchedule
) -> Schedule:
    """Change a schedule; with new times, or switched on again, it counts from now.

    Raises:
        BadInput, NotFound: as ``create``.
        Conflict: it comes from a workflow's trigger, or was changed meanwhile.
    """
    query = partial(repository.find, app_id=principal.app_id, schedule_id=schedule_id)
    now, read = await services.database.read(lambda c: (repository.clock(c), query(c)))
    stands = _by_hand(read)
    made = await asyncio.to_thread(_changed, stands, fields, now)
    if made.enabled:
        await _check_runs(services, made)
    values = {
        name: getattr(made, name)
        for name in repository.NAMES
        if getattr(made, name) != getattr(stands, name)
    }

    def unit(connection: Connection) -> Schedule | None:
        current = query(connection)
        if current is None or current.updated_at != stands.updated_at:
            return None
        if "anchor" in values or "next_at" in values:
            # A tick may have been dealt with since it was read.
            values["next_at"] = replace(made, last_at=current.last_at).follow(now)
        repository.change(connection, current, values)
        return query(connection)

    changed = await services.database.write(unit)
    if changed is None:
        raise Conflict("The schedule was changed meanwhile: read it again")
    return changed


async def delete(services: RunServices, principal: Principal, schedule_id: str) -> None:
    """Delete a schedule; runs that it started go on.

    Raises:
        NotFound: the app has none of that id.
        Conflict: it comes from a workflow's trigger.
    """

    def unit(connection: Connection) -> None:
        _by_hand(repository.find(connection, principal.app_id, schedule_id))
        repository.remove(connection, schedule_id)

    await services.database.write(unit)


def _by_hand(schedule: Schedule | None) -> Schedule:
    if schedule is None:
        raise unknown()
    if schedule.step_key is not None:
        raise Conflict(
            "This schedule comes from a trigger of its workflow: change the step and deploy, or "
            "disable the workflow"
        )
    return schedule


def _changed(stands: Schedule, fields: CreateSchedule | UpdateSchedule, now: int) -> Schedule:
    given = fields.model_fields_set
    values: dict[str, Any] = {
        name: getattr(fields, name)
        for name in _PLAIN
        if name in given and (name == "from_step_key" or getattr(fields, name) is not None)
    }
    if fields.timezone is not None:
        values["timezone"] = fields.timezone
    if "workflow_version_id" in given:
        version = fields.workflow_version_id
        values["version"] = None if version is None else str(version)
    if "input" in given:
        values["input"] = _encoded(fields.input)
    made = replace(stands, **values, **_times(stands, fields, values.get("timezone"), now))
    return replace(made, **_coming(stands, made, now))


def _times(
    stands: Schedule, fields: CreateSchedule | UpdateSchedule, zone: str | None, now: int
) -> dict[str, Any]:
    """Read the one of the three ways that is given; the others go."""
    given = [name for name in _TIMES if getattr(fields, name) is not None]
    if len(given) > 1 or (isinstance(fields, CreateSchedule) and not given):
        words = "give exactly one of at, cron and every"
        raise BadInput(words, [FieldError((given[-1] if given else "cron",), "one_of", words)])
    times: dict[str, Any] = {}
    try:
        if given == ["at"]:
            times = {"at": moment_of(fields.at or "", zone or stands.timezone)}
        elif given == ["cron"]:
            times = {"cron": " ".join((fields.cron or "").split())}
        elif given:
            times = {"every": fields.every}
        asked = {name: times.get(name) for name in _TIMES} if given else {}
        kept = {name: asked.get(name, getattr(stands, name)) for name in _TIMES}
        check(Timetable(**kept, timezone=zone or stands.timezone, anchor=now))
    except BadTimetable as error:
        words = f"{error.part} {error}"
        raise BadInput(words, [FieldError((error.part,), error.part, words)]) from error
    return asked


def _coming(stands: Schedule, made: Schedule, now: int) -> dict[str, Any]:
    """Return what follows from new times, or from switching on and off."""
    before = (*(getattr(stands, name) for name in _TIMES), stands.timezone)
    after = (*(getattr(made, name) for name in _TIMES), made.timezone)
    if before == after and stands.enabled == made.enabled:
        return {}
    if before != after or not stands.enabled:
        # Where the clock was set back, no tick comes again that was dealt with.
        made = replace(made, anchor=max(now, made.last_at or 0))
    next_at = made.follow(now)
    if made.enabled and next_at is None:
        words = "at lies in the past; give a time that is to come"
        raise BadInput(words, [FieldError(("at",), "past", words)])
    return {"anchor": made.anchor, "next_at": next_at, "last_error": None}


def _encoded(given: dict[str, Any] | None) -> bytes | None:
    if given is None:
        return None
    try:
        text = json.encode(given)
    except json.InvalidJson as error:
        raise BadInput(f"input cannot be stored: {error}") from error
    if len(text) > INPUT_MAX:
        words = f"input is over {INPUT_MAX:,} bytes; store files first and name them by their id"
        raise BadInput(words, [FieldError(("input",), "too_long", words)])
    return text


async def _check_runs(services: RunServices, made: Schedule) -> None:
    """Refuse what could not be started now; what can still change is seen when it is due."""
    runnable = await resolve(services, made.app_id, made.workflow_id, made.version)
    if made.from_step_key is not None:
        check_seen(runnable, made.app_id, made.from_step_key)
    plan = await services.plans.lay_out(runnable, made.from_step_key)
    given = {} if made.input is None else json.decode(made.input)
    definition = definition_of(runnable.document, plan)
    checked = check_input(definition, given, runnable.document.input_default or {})
    if checked.errors:
        raise BadInput("The input cannot be used", checked.errors)
