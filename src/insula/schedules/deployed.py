"""Schedules that come from workflows: those of the triggers in the version that is the latest."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, select

from insula.engine.triggers import BadTrigger, Trigger, is_schedule, read_schedule
from insula.errors import BadInput, FieldError
from insula.kit import json
from insula.kit.ids import new_id
from insula.schedules import repository
from insula.schedules.limit import check_room
from insula.schedules.repository import Schedule
from insula.storage.tables import versions, workflows

_MENTIONED = b"ON_SCHEDULE"
_LATEST = (
    select(workflows.c.id, workflows.c.app_id, versions.c.id.label("version_id"), versions.c.body)
    .join(versions, versions.c.id == workflows.c.latest_version_id)
    .where(workflows.c.enabled.is_(True), workflows.c.deleted.is_(False))
)


def settle(connection: Connection, workflow_id: str) -> None:
    """In the unit that changes what a workflow runs: let its schedules follow.

    One whose times are what they were goes on where it stands; any other counts from now.

    Raises:
        BadInput: a trigger cannot be used.
        Conflict: the app has too many schedules.
    """
    row = connection.execute(_LATEST.where(workflows.c.id == workflow_id)).first()
    triggers = {} if row is None else dict(_triggers(bytes(row.body)))
    existing = {each.step_key: each for each in repository.of_workflow(connection, workflow_id)}
    for key, schedule in existing.items():
        if key not in triggers:
            repository.remove(connection, schedule.id)
    if row is None or not triggers:
        return
    check_room(connection, row.app_id, sum(key not in existing for key in triggers))
    now = repository.clock(connection)
    for key, trigger in triggers.items():
        stands = existing.get(key)
        if stands is None:
            made = _schedule(row, key, trigger, now)
            repository.store(connection, replace(made, next_at=made.follow(now)))
        else:
            repository.change(connection, stands, _renewed(stands, row.version_id, trigger, now))


def _triggers(body: bytes) -> Iterator[tuple[str, Trigger]]:
    if _MENTIONED not in body:
        return
    for place, step in enumerate(json.decode(body)["steps"]):
        service = step.get("service")
        if step.get("type") != "service" or not is_schedule(service or {}):
            continue
        try:
            yield step["key"], read_schedule(service)
        except BadTrigger as error:
            path = ("steps", str(place), *error.path)
            words = f"The trigger {step['key'][:40]} cannot be used: {path[-1]} {error}"
            raise BadInput(words, [FieldError(path, error.code, str(error))]) from error


def _schedule(row: Any, key: str, trigger: Trigger, now: int) -> Schedule:
    timetable = trigger.timetable
    return Schedule(
        id=new_id("sched"),
        app_id=row.app_id,
        workflow_id=row.id,
        step_key=key,
        version=row.version_id,
        from_step_key=key,
        cron=timetable.cron,
        every=timetable.every,
        at=None,
        timezone=timetable.timezone,
        anchor=now,
        missed=trigger.missed,
        input=None,
        enabled=True,
        next_at=None,
        last_at=None,
        last_run_id=None,
        last_error=None,
        runs=0,
        created_by="",
        created_at=now,
        updated_at=now,
    )


def _renewed(stands: Schedule, version_id: str, trigger: Trigger, now: int) -> dict[str, Any]:
    """Return what changes in a schedule whose workflow was deployed again."""
    timetable = trigger.timetable
    values: dict[str, Any] = {"version": version_id, "missed": trigger.missed, "enabled": True}
    asked = (timetable.cron, timetable.every, timetable.timezone)
    if asked == (stands.cron, stands.every, stands.timezone) and stands.next_at is not None:
        return values
    made = replace(
        stands,
        cron=timetable.cron,
        every=timetable.every,
        timezone=timetable.timezone,
        anchor=now,
        enabled=True,
    )
    changed = {name: getattr(made, name) for name in ("cron", "every", "timezone", "anchor")}
    return {**values, **changed, "next_at": made.follow(now)}
