"""What every app finds: published workflows, each with the latest version that others may see."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Select, exists, select, text

from insula.storage.tables import blocked_callers, workflows
from insula.web.pagination import Page
from insula.workflows import counts
from insula.workflows.facts import public_version_id
from insula.workflows.repository import (
    COLUMNS,
    Shown,
    Slice,
    Workflow,
    complete,
    count_matches,
    cut,
    narrow,
)

# As the partial index says it, or the planner does not use the index.
_PUBLISHED = text("workflows.discoverable AND NOT workflows.deleted")


def found_by(app_id: str) -> Select[Any]:
    """Select every published workflow that does not block this app, and its public version."""
    blocked = exists().where(
        blocked_callers.c.workflow_id == workflows.c.id, blocked_callers.c.app_id == app_id
    )
    return select(*COLUMNS, public_version_id().label("public_version_id")).where(
        _PUBLISHED, ~blocked
    )


def discover(
    connection: Connection, app_id: str, search: str | None, tags: Sequence[str], page: Page
) -> Slice:
    """List what an app finds in the catalogue, newest workflow first."""
    query, narrowed = narrow(found_by(app_id), search, tags)
    rows, next_cursor = cut(connection, query, page)
    total, capped = counts.discoverable(connection, app_id), False
    if narrowed:
        total, capped = count_matches(connection, query)
    pairs = [(Workflow(*row[:-1]), row[-1]) for row in rows if row[-1] is not None]
    return Slice(complete(connection, pairs, app_id), total, capped, next_cursor)


def find(connection: Connection, app_id: str, workflow_id: str) -> Shown | None:
    """Read one published workflow, as an app finds it."""
    row = connection.execute(found_by(app_id).where(workflows.c.id == workflow_id)).one_or_none()
    if row is None or row[-1] is None:
        return None
    return complete(connection, [(Workflow(*row[:-1]), row[-1])], app_id)[0]
