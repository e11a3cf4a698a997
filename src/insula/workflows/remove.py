"""Deletes a workflow: first what runs in it is cancelled, then nobody finds it any more."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from sqlalchemy import Connection, select

from insula.errors import NotFound
from insula.storage.database import Database
from insula.storage.tables import workflows
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

    Meanwhile nothing starts in it. Callers keep their runs and the versions in them.

    Raises:
        NotFound: there is no such workflow.
    """
    found = await database.read(lambda c: repository.find(c, app_id, workflow_id))
    if found is None:
        raise unknown()
    with resolver.closing(workflow_id):
        for hook in hooks:
            await hook(app_id, workflow_id)
        removed = await database.write(lambda c: _mark(c, app_id, workflow_id))
    if not removed:
        raise unknown()


async def remove_all(
    database: Database, resolver: Resolver, hooks: Sequence[BeforeDelete], app_id: str
) -> None:
    """Delete every workflow of an app that is about to be deleted itself."""
    while True:
        left = await database.read(lambda c: _some(c, app_id))
        if not left:
            return
        for workflow_id in left:
            with suppress(NotFound):  # it was deleted by somebody else just now
                removing = remove(database, resolver, hooks, app_id, workflow_id)
                await resolver.apply(workflow_id, removing)


def _some(connection: Connection, app_id: str) -> Sequence[str]:
    query = select(workflows.c.id).where(
        workflows.c.app_id == app_id, workflows.c.deleted.is_(False)
    )
    return connection.scalars(query.limit(_BATCH)).all()


def _mark(connection: Connection, app_id: str, workflow_id: str) -> bool:
    """The row stays, for the runs of callers; the draft, which only its owner could see, goes."""
    workflow = repository.find(connection, app_id, workflow_id)
    if workflow is None:
        return False
    if workflow.discoverable:
        counts.change_published(connection, workflow_id, -1)
    counts.change_owned(connection, app_id, -1)
    tags.take_off(connection, workflow_id)
    values = {"deleted": True, "discoverable": False, "body": _EMPTY, "problems": b"[]"}
    return repository.change(connection, workflow, values)
