"""Deletes a workflow: from its first commit on nobody finds it; then what runs in it is stopped."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    delete,
    exists,
    func,
    or_,
    select,
    text,
    update,
)

from insula.errors import NotFound
from insula.kit.clock import now_ms
from insula.storage.database import Database
from insula.storage.tables import blocked_callers, runs, versions, workflows
from insula.tags import repository as tags
from insula.web.auth import unknown
from insula.workflows import counts, repository
from insula.workflows.resolve import Resolver

BeforeDelete = Callable[[str, str], Awaitable[None]]
"""Called with the ids of an app and of its workflow; returns when nothing of it runs any more."""

_EMPTY = b'{"key":"deleted","input":{},"input_default":null,"input_options":null,"steps":[]}'
_BATCH = 100


async def remove(
    database: Database,
    resolver: Resolver,
    hooks: Sequence[BeforeDelete],
    app_id: str,
    workflow_id: str,
) -> None:
    """Delete a workflow; to be called through ``Resolver.apply``.

    Callers keep their runs and the versions in them.

    Raises:
        NotFound: there is no such workflow.
        Unavailable: what runs in it has not stopped; it is gone on with.
    """
    with resolver.closing(workflow_id):
        if not await database.write(partial(_mark, app_id=app_id, workflow_id=workflow_id)):
            raise unknown()
        resolver.changed(workflow_id)
        for hook in hooks:
            await hook(app_id, workflow_id)
        await database.write(partial(_rest, workflow_id=workflow_id))


async def remove_all(
    database: Database, resolver: Resolver, hooks: Sequence[BeforeDelete], app_id: str
) -> None:
    """Delete every workflow of an app that is about to be deleted itself."""
    mine = and_(
        workflows.c.app_id == app_id,
        or_(workflows.c.deleted.is_(False), workflows.c.stopping.is_(True)),
    )
    while left := await database.read(partial(_some, mine=mine)):
        await _remove_each(database, resolver, hooks, left)


async def go_on(
    database: Database, resolver: Resolver, hooks: Sequence[BeforeDelete], stale_ms: int
) -> None:
    """Go on with deletions that nobody has been at for some time: whoever began them has died."""
    found = await database.read(partial(being_deleted, stale_ms=stale_ms))
    mine = [each for each in found if not resolver.is_closing(each[1])]
    await _remove_each(database, resolver, hooks, mine)


def being_deleted(connection: Connection, stale_ms: int) -> list[tuple[str, str]]:
    """Return the workflows whose deletion was begun, or gone on with, some time ago, with their
    apps."""
    left = and_(text("stopping"), workflows.c.updated_at <= now_ms() - stale_ms)
    return _some(connection, left)


async def _remove_each(
    database: Database,
    resolver: Resolver,
    hooks: Sequence[BeforeDelete],
    found: Sequence[tuple[str, str]],
) -> None:
    for app_id, workflow_id in found:
        with suppress(NotFound):  # it was deleted by somebody else just now
            removing = remove(database, resolver, hooks, app_id, workflow_id)
            await resolver.apply(workflow_id, removing)


def _some(connection: Connection, mine: ColumnElement[bool]) -> list[tuple[str, str]]:
    query = select(workflows.c.app_id, workflows.c.id).where(mine)
    return [(app_id, found) for app_id, found in connection.execute(query.limit(_BATCH)).all()]


def _mark(connection: Connection, app_id: str, workflow_id: str) -> bool:
    """The row stays, for the runs of callers; the draft, which only its owner could see, goes.

    One whose deletion was begun counts as there: whoever began may have died.
    """
    workflow = repository.find(connection, app_id, workflow_id)
    if workflow is None:
        mine = and_(workflows.c.id == workflow_id, workflows.c.app_id == app_id)
        begun = select(workflows.c.id).where(mine, workflows.c.stopping.is_(True))
        return connection.execute(begun).first() is not None
    if workflow.discoverable:
        counts.change_published(connection, workflow_id, -1)
    counts.change_owned(connection, app_id, -1)
    tags.take_off(connection, workflow_id)
    return repository.change(
        connection,
        workflow,
        {
            "deleted": True,
            "stopping": True,
            "discoverable": False,
            "description": None,
            "body": _EMPTY,
            "problems": b"[]",
            "updated_at": max(now_ms(), workflow.updated_at),
        },
    )


def _rest(connection: Connection, workflow_id: str) -> None:
    """Nothing of it runs any more."""
    connection.execute(delete(blocked_callers).where(blocked_callers.c.workflow_id == workflow_id))
    connection.execute(update(workflows).where(workflows.c.id == workflow_id).values(stopping=None))


async def forget(database: Database, at_once: int = _BATCH) -> None:
    """Remove what is left of deleted workflows: versions that no run shows any more, and the row
    when the last run's is gone.

    Looked for beside the writer, for it takes long where there are many erased runs; and what no
    run shows, none ever will again.
    """
    found: Sequence[Left] | None = None
    while found is None or len(found) == at_once:
        after = found[-1].id if found else ""
        found = await database.read(partial(left, after=after, limit=at_once))
        for one in found:
            if one.has_versions and await database.read(partial(_is_shown, workflow_id=one.id)):
                continue
            if one.has_versions or not one.has_runs:
                await database.write(partial(_forget, workflow_id=one.id))


class Left(NamedTuple):
    """What is left of a deleted workflow beside its row."""

    id: str
    has_versions: bool
    has_runs: bool


def left(connection: Connection, after: str, limit: int) -> list[Left]:
    """Return up to ``limit`` deleted workflows of which nothing runs, from the one after ``after``
    on."""
    resting = and_(text("deleted"), workflows.c.stopping.is_(None), workflows.c.id > after)
    has_versions = exists().where(versions.c.workflow_id == workflows.c.id)
    has_runs = exists().where(runs.c.workflow_id == workflows.c.id)
    query = select(workflows.c.id, has_versions, has_runs).where(resting)
    found = connection.execute(query.order_by(workflows.c.id).limit(limit))
    return [Left(*row) for row in found]


def _is_shown(connection: Connection, *, workflow_id: str) -> bool:
    """Say whether a run whose data is there shows versions; the newest are erased last."""
    mine = and_(runs.c.workflow_id == workflow_id, runs.c.erased_at.is_(None))
    newest = select(runs.c.id).where(mine).order_by(runs.c.app_id.desc(), runs.c.id.desc())
    return connection.execute(newest.limit(1)).first() is not None


def _forget(connection: Connection, *, workflow_id: str) -> None:
    connection.execute(delete(versions).where(versions.c.workflow_id == workflow_id))
    if not connection.scalar(select(exists().where(runs.c.workflow_id == workflow_id))):
        connection.execute(delete(workflows).where(workflows.c.id == workflow_id))


def forget_caller(connection: Connection, app_id: str) -> None:
    """Remove the blocks of an app that goes: nobody has its id again."""
    mine = blocked_callers.c.app_id == app_id
    hidden = connection.scalar(
        select(func.count())
        .select_from(
            blocked_callers.join(workflows, workflows.c.id == blocked_callers.c.workflow_id)
        )
        .where(mine, workflows.c.discoverable.is_(True), workflows.c.deleted.is_(False))
    )
    connection.execute(delete(blocked_callers).where(mine))
    counts.change_hidden(connection, app_id, -int(hidden or 0))
