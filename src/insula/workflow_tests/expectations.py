"""Shared expectations in the database. Every function takes a connection."""

from collections.abc import Mapping, Sequence
from typing import cast

from sqlalchemy import Connection, and_, delete, func, insert, select, update

from insula.errors import Conflict
from insula.kit.clock import now_ms
from insula.storage.tables import workflow_expectations as expectations
from insula.web.pagination import Page
from insula.workflow_tests.rows import Expectation

EXPECTATIONS_MAX = 1_000
"""Shared expectations of one workflow."""


def find(
    connection: Connection, app_id: str, workflow_id: str, expectation_id: str
) -> Expectation | None:
    """Return one shared expectation of an app's workflow."""
    mine = and_(expectations.c.app_id == app_id, expectations.c.workflow_id == workflow_id)
    query = select(expectations).where(expectations.c.id == expectation_id, mine)
    row = connection.execute(query).first()
    return None if row is None else Expectation(*row)


def list_own(
    connection: Connection, workflow_id: str, search: str | None, page: Page
) -> tuple[list[Expectation], int, dict[str, object] | None]:
    """Return a page, newest first, how many there are, and where it goes on."""
    wanted = expectations.c.workflow_id == workflow_id
    for word in (search or "").split():
        wanted = and_(wanted, expectations.c.name.icontains(word, autoescape=True))
    query = select(expectations).where(wanted).order_by(expectations.c.id.desc())
    if (before := page.position()) is not None:
        query = query.where(expectations.c.id < before)
    rows = connection.execute(query.offset(page.offset).limit(page.take + 1)).all()
    found = [Expectation(*row) for row in rows[: page.take]]
    count = connection.execute(select(func.count()).select_from(expectations).where(wanted))
    following = {"before": found[-1].id} if len(rows) > page.take else None
    return found, int(count.scalar_one()), cast(dict[str, object] | None, following)


def store(connection: Connection, made: Expectation) -> None:
    """Insert one.

    Raises:
        Conflict: the workflow has as many as it may have.
    """
    mine = expectations.c.workflow_id == made.workflow_id
    query = select(func.count()).select_from(expectations).where(mine)
    if connection.execute(query).scalar_one() >= EXPECTATIONS_MAX:
        raise Conflict(f"A workflow has at most {EXPECTATIONS_MAX:,} expectations. Delete some.")
    names = Expectation.__dataclass_fields__
    connection.execute(insert(expectations).values({n: getattr(made, n) for n in names}))


def change(connection: Connection, made: Expectation, values: Mapping[str, object]) -> None:
    """Change one that was read in this unit."""
    at = max(now_ms(), made.updated_at + 1)
    statement = update(expectations).where(expectations.c.id == made.id)
    connection.execute(statement.values(updated_at=at, **values))


def remove(connection: Connection, expectation_id: str) -> None:
    """Remove one; tests that share it fail from then on, and say so."""
    connection.execute(delete(expectations).where(expectations.c.id == expectation_id))


def remove_of_workflow(connection: Connection, workflow_id: str) -> None:
    """Remove all of a workflow."""
    connection.execute(delete(expectations).where(expectations.c.workflow_id == workflow_id))


def scripts_of(connection: Connection, workflow_id: str, ids: Sequence[str]) -> dict[str, str]:
    """Return the scripts of those of the workflow's expectations that there are, by id."""
    if not ids:
        return {}
    query = select(expectations.c.id, expectations.c.script).where(
        expectations.c.workflow_id == workflow_id, expectations.c.id.in_(ids)
    )
    return {row_id: script.decode() for row_id, script in connection.execute(query).all()}
