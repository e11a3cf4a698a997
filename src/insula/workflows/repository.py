"""Workflows in the database: one row each, found by app, listed newest first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    func,
    insert,
    or_,
    select,
    update,
)

from insula.storage.tables import apps, counters, workflows
from insula.tags import repository as tags
from insula.web.pagination import REACH, Page
from insula.workflows import counts
from insula.workflows.tests_of import tests_stats
from insula.workflows.version_repository import Version, by_ids


@dataclass(frozen=True, slots=True)
class Workflow:
    """A row of ``workflows``."""

    id: str
    app_id: str
    name: str
    description: str | None
    body: bytes
    problems: bytes
    latest_version_id: str | None
    latest_version: int
    retention: bytes | None
    tags: bytes
    enabled: bool
    discoverable: bool
    open: bool
    published_from_version: int | None
    caller_limit: int | None
    deleted: bool
    created_at: int
    updated_at: int
    require_tests: bool | None


@dataclass(frozen=True, slots=True)
class AppName:
    """What everybody may know of an app."""

    id: str
    name: str
    verified: bool


@dataclass(frozen=True, slots=True)
class Shown:
    """A workflow with the rows that an answer needs beside its own."""

    workflow: Workflow
    version: Version | None
    app: AppName
    runs_count: int
    tags: Sequence[Any]
    tests_stats: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a list: its rows, how long the whole is, and where it goes on."""

    rows: Sequence[Any]
    count: int
    capped: bool
    next_cursor: Mapping[str, object] | None


COLUMNS = tuple(workflows.c[name] for name in Workflow.__dataclass_fields__)


def find(connection: Connection, app_id: str, workflow_id: str) -> Workflow | None:
    """Read one workflow of an app, unless it is deleted."""
    row = connection.execute(select(*COLUMNS).where(own(app_id, workflow_id))).one_or_none()
    return None if row is None else Workflow(*row)


def own(app_id: str, workflow_id: str) -> ColumnElement[bool]:
    """Match one workflow of an app, unless it is deleted."""
    return and_(
        workflows.c.id == workflow_id,
        workflows.c.app_id == app_id,
        workflows.c.deleted.is_(False),
    )


def store(connection: Connection, workflow: Workflow) -> None:
    """Insert a new workflow and count it."""
    values = {name: getattr(workflow, name) for name in Workflow.__dataclass_fields__}
    connection.execute(insert(workflows).values(**values))
    counts.change_owned(connection, workflow.app_id, 1)


def change(connection: Connection, workflow: Workflow, values: Mapping[str, object]) -> bool:
    """Update a workflow unless it changed since it was read; say whether that was so."""
    statement = update(workflows).where(
        own(workflow.app_id, workflow.id), workflows.c.updated_at == workflow.updated_at
    )
    return connection.execute(statement.values(**values)).rowcount == 1


def show(connection: Connection, app_id: str, workflow_id: str) -> Shown | None:
    """Read one workflow of an app with what its answer needs."""
    workflow = find(connection, app_id, workflow_id)
    if workflow is None:
        return None
    pairs = [(workflow, workflow.latest_version_id)]
    return complete(connection, pairs, app_id)[0]


def list_own(
    connection: Connection, app_id: str, search: str | None, tag_ids: Sequence[str], page: Page
) -> Slice:
    """List an app's workflows, newest first."""
    query = select(*COLUMNS).where(workflows.c.app_id == app_id, workflows.c.deleted.is_(False))
    found, counted = narrow(query, search, tag_ids)
    rows, next_cursor = cut(connection, found, page)
    total, capped = counts.owned(connection, app_id), False
    if counted:
        total, capped = count_matches(connection, found)
    loaded = [Workflow(*row) for row in rows]
    pairs = [(workflow, workflow.latest_version_id) for workflow in loaded]
    return Slice(complete(connection, pairs, app_id), total, capped, next_cursor)


def narrow(
    query: Select[Any], search: str | None, tag_ids: Sequence[str]
) -> tuple[Select[Any], bool]:
    """Keep what holds every word of ``search`` and has every tag; the flag says whether anything
    was asked for."""
    words = (search or "").split()
    for word in words:
        query = query.where(
            or_(
                workflows.c.name.icontains(word, autoescape=True),
                workflows.c.description.icontains(word, autoescape=True),
            )
        )
    for tag_id in tag_ids:
        query = query.where(tags.has(workflows.c.id, tag_id))
    return query, bool(words or tag_ids)


def cut(
    connection: Connection, query: Select[Any], page: Page
) -> tuple[Sequence[Any], dict[str, object] | None]:
    """Take a page of workflows out of a query, newest first, and say where it goes on."""
    if (before := page.position()) is not None:
        query = query.where(workflows.c.id < before)
    query = query.order_by(workflows.c.id.desc()).offset(page.offset).limit(page.take + 1)
    rows = connection.execute(query).all()
    if len(rows) <= page.take:
        return rows, None
    return rows[: page.take], {"before": rows[page.take - 1].id}


def count_matches(connection: Connection, query: Select[Any]) -> tuple[int, bool]:
    """Count the rows of a query exactly up to 10,000; the flag says that there are more."""
    bounded = query.with_only_columns(workflows.c.id).limit(REACH + 1).subquery()
    found = connection.execute(select(func.count()).select_from(bounded)).scalar_one()
    return min(found, REACH), found > REACH


def complete(
    connection: Connection, pairs: Sequence[tuple[Workflow, str | None]], viewer_app_id: str
) -> list[Shown]:
    """Add the version that is shown, the app's name, and how often the viewer ran it."""
    versions = by_ids(connection, [version for _, version in pairs if version is not None])
    names = _app_names(connection, {workflow.app_id for workflow, _ in pairs})
    ids = [workflow.id for workflow, _ in pairs]
    labels = tags.of_things(connection, ids)
    runs = _runs_counts(connection, viewer_app_id, ids)
    stats = tests_stats(connection, ids)
    return [
        Shown(
            workflow,
            versions.get(version or ""),
            names[workflow.app_id],
            runs.get(workflow.id, 0),
            labels.get(workflow.id, ()),
            stats[workflow.id],
        )
        for workflow, version in pairs
    ]


def _app_names(connection: Connection, app_ids: set[str]) -> dict[str, AppName]:
    query = select(apps.c.id, apps.c.name, apps.c.verified).where(apps.c.id.in_(app_ids))
    return {row.id: AppName(*row) for row in connection.execute(query).all()}


def _runs_counts(
    connection: Connection, app_id: str, workflow_ids: Sequence[str]
) -> dict[str, int]:
    query = (
        select(counters.c.workflow_id, func.sum(counters.c.count))
        .where(counters.c.app_id == app_id, counters.c.workflow_id.in_(workflow_ids))
        .group_by(counters.c.workflow_id)
    )
    return {workflow_id: int(number) for workflow_id, number in connection.execute(query).all()}
