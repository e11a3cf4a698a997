"""Schedules in the database. Every function takes a connection: inside a unit, or a read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, cast

from sqlalchemy import Connection, and_, delete, func, insert, or_, select, update

from insula.engine.failures import plain
from insula.engine.timetable import Due, Policy, Timetable
from insula.kit.clock import now_ms
from insula.storage import dialect
from insula.storage.tables import schedules
from insula.web.pagination import Page

_ERROR_LENGTH = 1_000


@dataclass(frozen=True, slots=True)
class Schedule:
    """A row of ``schedules``, its fields in the order of the columns."""

    id: str
    app_id: str
    workflow_id: str
    step_key: str | None
    version: str | None
    from_step_key: str | None
    cron: str | None
    every: int | None
    at: int | None
    timezone: str
    anchor: int
    missed: str
    input: bytes | None
    enabled: bool
    next_at: int | None
    last_at: int | None
    last_run_id: str | None
    last_error: str | None
    runs: int
    created_by: str
    created_at: int
    updated_at: int

    @property
    def timetable(self) -> Timetable:
        """When it is due."""
        return Timetable(self.cron, self.every, self.at, self.timezone, self.anchor)

    @property
    def policy(self) -> Policy:
        """What is done about missed ticks."""
        return cast(Policy, self.missed)

    def follow(self, now: int) -> int | None:
        """Return when it is due next; never again at a tick that was dealt with."""
        return self.timetable.after(max(now, self.last_at or 0)) if self.enabled else None


NAMES = tuple(field.name for field in fields(Schedule))
assert tuple(column.name for column in schedules.columns) == NAMES


class Found(NamedTuple):
    """A part of the schedules that are due (id, app and time of each), when that was, and when the
    next one comes that is not due yet, where this is the last part."""

    now: int
    due: Sequence[tuple[str, str, int]]
    next_at: int | None


def clock(connection: Connection) -> int:
    """Return the database's time, which all who share it have in common."""
    return int(connection.execute(select(dialect.now_ms(connection))).scalar_one())


def due_after(connection: Connection, place: tuple[int, str], limit: int) -> Found:
    """Return up to ``limit`` schedules that are due, from the one after ``place`` on."""
    now = clock(connection)
    next_at, schedule_id = place
    rows = connection.execute(
        select(schedules.c.id, schedules.c.app_id, schedules.c.next_at)
        .where(schedules.c.next_at <= now, schedules.c.next_at >= next_at)
        .where(or_(schedules.c.next_at > next_at, schedules.c.id > schedule_id))
        .order_by(schedules.c.next_at, schedules.c.id)
        .limit(limit)
    )
    due = [(row.id, row.app_id, row.next_at) for row in rows]
    following = None
    if len(due) < limit:
        query = select(func.min(schedules.c.next_at)).where(schedules.c.next_at > now)
        following = connection.execute(query).scalar_one()
    return Found(now, due, following)


def find(connection: Connection, app_id: str, schedule_id: str) -> Schedule | None:
    """Return one schedule of an app."""
    query = select(schedules).where(schedules.c.id == schedule_id, schedules.c.app_id == app_id)
    row = connection.execute(query).first()
    return None if row is None else Schedule(*row)


def list_own(
    connection: Connection, app_id: str, workflow_id: str | None, page: Page
) -> tuple[list[Schedule], int, dict[str, object] | None]:
    """Return a page of an app's schedules, newest first, their number, and where it goes on."""
    mine = schedules.c.app_id == app_id
    if workflow_id is not None:
        mine = and_(mine, schedules.c.workflow_id == workflow_id)
    query = select(schedules).where(mine).order_by(schedules.c.id.desc())
    if (before := page.position()) is not None:
        query = query.where(schedules.c.id < before)
    rows = connection.execute(query.offset(page.offset).limit(page.take + 1)).all()
    found = [Schedule(*row) for row in rows[: page.take]]
    count = connection.execute(select(func.count()).select_from(schedules).where(mine))
    following = {"before": found[-1].id} if len(rows) > page.take else None
    return found, count.scalar_one(), cast(dict[str, object] | None, following)


def count_own(connection: Connection, app_id: str) -> int:
    """Count an app's schedules: at most so many as it may have."""
    query = select(func.count()).select_from(schedules).where(schedules.c.app_id == app_id)
    return int(connection.execute(query).scalar_one())


def of_workflow(connection: Connection, workflow_id: str) -> list[Schedule]:
    """Return the schedules that come from a workflow's triggers."""
    query = select(schedules).where(
        schedules.c.workflow_id == workflow_id, schedules.c.step_key.is_not(None)
    )
    return [Schedule(*row) for row in connection.execute(query).all()]


def store(connection: Connection, schedule: Schedule) -> None:
    """Insert a schedule."""
    connection.execute(insert(schedules).values({n: getattr(schedule, n) for n in NAMES}))


def change(connection: Connection, schedule: Schedule, values: Mapping[str, Any]) -> None:
    """Change a schedule that was read in this unit."""
    at = max(now_ms(), schedule.updated_at + 1)  # so that it names one state
    statement = update(schedules).where(schedules.c.id == schedule.id)
    connection.execute(statement.values(updated_at=at, **values))


def advance(
    connection: Connection,
    schedule: Schedule,
    due: Due,
    *,
    run_id: str | None = None,
    error: str | None = None,
    off: bool = False,
) -> bool:
    """Take what was due, unless somebody else has, or the schedule was changed; say whether it was
    taken. ``off`` switches the schedule off."""
    following = None if off else due.next_at
    taken = connection.execute(
        update(schedules)
        .where(schedules.c.id == schedule.id, schedules.c.next_at == schedule.next_at)
        .where(schedules.c.updated_at == schedule.updated_at)
        .values(
            next_at=following,
            enabled=following is not None,
            last_at=schedule.next_at if due.tick is None else due.tick,
            last_error=None if error is None else plain(error, _ERROR_LENGTH),
            runs=schedules.c.runs + (0 if run_id is None else 1),
            **({} if run_id is None else {"last_run_id": run_id}),
        )
    )
    return taken.rowcount == 1


def remove(connection: Connection, schedule_id: str) -> None:
    """Remove a schedule; no matter if it is gone."""
    connection.execute(delete(schedules).where(schedules.c.id == schedule_id))


def remove_of_workflow(connection: Connection, workflow_id: str) -> None:
    """Remove every schedule of a workflow, whosever it is."""
    connection.execute(delete(schedules).where(schedules.c.workflow_id == workflow_id))


def remove_of_app(connection: Connection, app_id: str) -> None:
    """Remove every schedule of an app."""
    connection.execute(delete(schedules).where(schedules.c.app_id == app_id))
