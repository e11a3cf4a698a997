"""The apps that run a published workflow: who they are, how often, and whom its owner blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, text

from insula.errors import BadInput, Conflict, FieldError
from insula.kit.clock import now_ms
from insula.kit.ids import is_id
from insula.storage.database import Database
from insula.storage.tables import apps, blocked_callers, counters
from insula.web.auth import Principal, unknown
from insula.web.pagination import Page
from insula.workflows import counts, repository
from insula.workflows.repository import AppName, Slice

MOST_BLOCKED = 1_000
_COUNTED = 1_000

# Distinct callers by jumping along the index (workflow_id, app_id, …): one step a caller, however
# many runs each has.
RAN = text(
    """
    WITH RECURSIVE callers(app_id) AS (
        SELECT min(app_id) FROM runs WHERE workflow_id = :workflow AND app_id > :after
        UNION ALL
        SELECT (SELECT min(app_id) FROM runs
                WHERE workflow_id = :workflow AND app_id > callers.app_id)
        FROM callers WHERE callers.app_id IS NOT NULL
    )
    SELECT app_id FROM callers WHERE app_id IS NOT NULL AND app_id <> :owner LIMIT :most
    """
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Another app, as the owner of a workflow sees it: counts, not data."""

    app: AppName
    blocked: bool
    runs_count: int


async def block(
    database: Database, principal: Principal, workflow_id: str, caller_app_id: str
) -> None:
    """Make a workflow vanish for one app: it starts nothing there any more; its runs go on.

    Raises:
        BadInput: the id is not another app's.
        Conflict: 1,000 apps are blocked already.
        NotFound: there is no such workflow.
    """
    if not is_id("app", caller_app_id) or caller_app_id == principal.app_id:
        words = "must be the id of another app"
        problem = FieldError(("caller_app_id",), "app", words, "path")
        raise BadInput(f"The caller {words}", [problem])

    def unit(connection: Connection) -> None:
        workflow = repository.find(connection, principal.app_id, workflow_id)
        if workflow is None:
            raise unknown()
        blocked = _blocked(connection, workflow_id)
        if caller_app_id in blocked:
            return
        if len(blocked) >= MOST_BLOCKED:
            raise Conflict(f"At most {MOST_BLOCKED:,} apps can be blocked: unblock one first")
        connection.execute(
            insert(blocked_callers).values(
                workflow_id=workflow_id, app_id=caller_app_id, created_at=now_ms()
            )
        )
        if workflow.discoverable:
            counts.change_hidden(connection, caller_app_id, 1)

    await database.write(unit)


async def unblock(
    database: Database, principal: Principal, workflow_id: str, caller_app_id: str
) -> None:
    """Show a workflow to an app again; nothing happens if it was not blocked.

    Raises:
        NotFound: there is no such workflow.
    """

    def unit(connection: Connection) -> None:
        workflow = repository.find(connection, principal.app_id, workflow_id)
        if workflow is None:
            raise unknown()
        gone = connection.execute(
            delete(blocked_callers).where(
                blocked_callers.c.workflow_id == workflow_id,
                blocked_callers.c.app_id == caller_app_id,
            )
        )
        if gone.rowcount and workflow.discoverable:
            counts.change_hidden(connection, caller_app_id, -1)

    await database.write(unit)


def list_callers(connection: Connection, app_id: str, workflow_id: str, page: Page) -> Slice | None:
    """List the apps that ran a workflow or are blocked, by id; ``None``: no such workflow."""
    if repository.find(connection, app_id, workflow_id) is None:
        return None
    blocked = _blocked(connection, workflow_id)
    after = page.position("after") or ""
    wanted = page.offset + page.take + 1
    found = _callers(connection, app_id, workflow_id, blocked, after, wanted)[page.offset :]
    ids = found[: page.take]
    cursor = {"after": ids[-1]} if len(found) > page.take else None
    rows = _complete(connection, workflow_id, ids, blocked)
    number = len(_callers(connection, app_id, workflow_id, blocked, "", _COUNTED + 1))
    return Slice(rows, min(number, _COUNTED), number > _COUNTED, cursor)


def _callers(
    connection: Connection,
    owner: str,
    workflow_id: str,
    blocked: frozenset[str],
    after: str,
    most: int,
) -> list[str]:
    values = {"workflow": workflow_id, "after": after, "owner": owner, "most": most}
    ran = set(connection.scalars(RAN, values))
    return sorted(ran | {app_id for app_id in blocked if app_id > after})[:most]


def _blocked(connection: Connection, workflow_id: str) -> frozenset[str]:
    query = select(blocked_callers.c.app_id).where(blocked_callers.c.workflow_id == workflow_id)
    return frozenset(connection.scalars(query))


def _complete(
    connection: Connection, workflow_id: str, ids: Sequence[str], blocked: frozenset[str]
) -> list[Caller]:
    names = select(apps.c.id, apps.c.name, apps.c.verified).where(apps.c.id.in_(ids))
    known = {row.id: AppName(*row) for row in connection.execute(names).all()}
    numbers = (
        select(counters.c.app_id, func.sum(counters.c.count))
        .where(counters.c.app_id.in_(ids), counters.c.workflow_id == workflow_id)
        .group_by(counters.c.app_id)
    )
    runs = {app_id: int(number) for app_id, number in connection.execute(numbers).all()}
    return [
        Caller(known.get(each) or AppName(each, "", False), each in blocked, runs.get(each, 0))
        for each in ids
    ]
