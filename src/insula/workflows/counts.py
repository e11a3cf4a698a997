"""How many workflows an app has, and how many stand in the catalogue: counter rows, changed in the
commit that changes the workflows. Their first column is a name that no app's id can have."""

from sqlalchemy import Connection, and_, func, literal, select

from insula.storage.counters import Bumps, bump, by_key, count
from insula.storage.tables import blocked_callers, workflows

_WORKFLOWS = "workflows"
_CATALOGUE = "catalogue"
_EVERYONE = ""


def owned(connection: Connection, app_id: str) -> int:
    """Count the workflows of an app."""
    return count(connection, _WORKFLOWS, app_id)


def change_owned(connection: Connection, app_id: str, by: int) -> None:
    """Note that workflows of an app came or went."""
    bump(connection, _WORKFLOWS, app_id, "", "", by)


def discoverable(connection: Connection, app_id: str) -> int:
    """Count what an app finds in the catalogue: everything published but what blocks it."""
    hidden = count(connection, _CATALOGUE, app_id)
    return count(connection, _CATALOGUE, _EVERYONE) - hidden


def change_published(connection: Connection, workflow_id: str, by: int) -> None:
    """Note that a workflow was published (1) or is so no longer (-1)."""
    bump(connection, _CATALOGUE, _EVERYONE, "", "", by)
    callers = connection.scalars(
        select(blocked_callers.c.app_id).where(blocked_callers.c.workflow_id == workflow_id)
    )
    for caller in callers.all():
        change_hidden(connection, caller, by)


def change_hidden(connection: Connection, caller_app_id: str, by: int) -> None:
    """Note that a published workflow is hidden from one app, or is so no longer."""
    bump(connection, _CATALOGUE, caller_app_id, "", "", by)


def rows_by_counter(connection: Connection) -> Bumps:
    """Count the rows themselves, as the counters should have them."""
    none = literal("")
    public = and_(workflows.c.discoverable, ~workflows.c.deleted)
    app_id, caller_id = workflows.c.app_id, blocked_callers.c.app_id
    own = select(literal(_WORKFLOWS), app_id, none, none, func.count()).group_by(app_id)
    hidden = select(literal(_CATALOGUE), caller_id, none, none, func.count()).group_by(caller_id)
    hidden = hidden.join(workflows, workflows.c.id == blocked_callers.c.workflow_id).where(public)
    everyone = select(func.count()).select_from(workflows).where(public)
    return {
        (_CATALOGUE, _EVERYONE, "", ""): connection.scalar(everyone) or 0,
        **by_key(connection, own.where(~workflows.c.deleted)),
        **by_key(connection, hidden),
    }
