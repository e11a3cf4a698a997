"""Versions in the database: deployed bodies, numbered from 1 in each workflow, never changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, insert, select, update

from insula.storage.tables import keys, versions, workflows
from insula.web.pagination import Page, bad_cursor


@dataclass(frozen=True, slots=True)
class Version:
    """A row of ``versions``, and the name of the key that deployed it."""

    id: str
    app_id: str
    workflow_id: str
    version: int
    rollback_version: int | None
    description: str | None
    notes: str | None
    created_by: str | None
    body: bytes
    body_hash: bytes
    withdrawn: bool
    created_at: int
    created_by_name: str | None = None


def _query() -> Select[Any]:
    named = [name for name in Version.__dataclass_fields__ if name in versions.c]
    return select(*(versions.c[name] for name in named), keys.c.name).select_from(
        versions.outerjoin(keys, keys.c.id == versions.c.created_by)
    )


def by_ids(connection: Connection, version_ids: Sequence[str]) -> dict[str, Version]:
    """Read versions by their ids, of whatever workflow."""
    rows = connection.execute(_query().where(versions.c.id.in_(version_ids)))
    return {row.id: Version(*row) for row in rows}


def find(connection: Connection, workflow_id: str, selector: int | str) -> Version | None:
    """Read one version of a workflow by number or id."""
    column = versions.c.version if isinstance(selector, int) else versions.c.id
    query = _query().where(versions.c.workflow_id == workflow_id, column == selector)
    row = connection.execute(query).one_or_none()
    return None if row is None else Version(*row)


def list_versions(
    connection: Connection, workflow_id: str, latest: int, page: Page
) -> tuple[list[Version], dict[str, object] | None]:
    """List versions, newest first. Numbers have no gaps, so that any page is found by number.

    Raises:
        BadInput: the cursor is another list's.
    """
    first = latest - page.offset
    if page.cursor is not None:
        before = page.cursor.get("before")
        if type(before) is not int or not 0 < before <= latest:
            raise bad_cursor()
        first = before - 1
    last = max(first - page.take, 0)
    query = _query().where(
        versions.c.workflow_id == workflow_id,
        versions.c.version <= first,
        versions.c.version > last,
    )
    rows = connection.execute(query.order_by(versions.c.version.desc())).all()
    return [Version(*row) for row in rows], {"before": last + 1} if last else None


def store(connection: Connection, version: Version) -> None:
    """Insert a version and make it its workflow's latest."""
    names = (name for name in Version.__dataclass_fields__ if name in versions.c)
    connection.execute(insert(versions).values(**{n: getattr(version, n) for n in names}))
    connection.execute(
        update(workflows)
        .where(workflows.c.id == version.workflow_id)
        .values(latest_version=version.version, latest_version_id=version.id)
    )


def mark_withdrawn(connection: Connection, version_id: str, withdrawn: bool) -> None:
    """Hide a version from other apps, or show it again."""
    connection.execute(
        update(versions).where(versions.c.id == version_id).values(withdrawn=withdrawn)
    )
