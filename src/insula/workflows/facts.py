"""What must be known of a workflow to say who may run which version of it; without any body."""

import msgspec
from sqlalchemy import Connection, ScalarSelect, select

from insula.storage.tables import blocked_callers, versions, workflows


class Facts(msgspec.Struct, frozen=True):
    """A workflow's row without its draft, with what follows from its other rows."""

    id: str
    app_id: str
    name: str
    latest_version_id: str | None
    retention: bytes | None
    enabled: bool
    discoverable: bool
    open: bool
    published_from_version: int | None
    caller_limit: int | None
    deleted: bool
    public_version_id: str | None
    """The latest version that exists for other apps."""
    blocked: frozenset[str]
    """Ids of the apps to which this workflow does not exist."""


def public_version_id() -> ScalarSelect[str]:
    """Select the latest version that other apps may see, of the workflow of the outer query."""
    return (
        select(versions.c.id)
        .where(
            versions.c.workflow_id == workflows.c.id,
            versions.c.version >= workflows.c.published_from_version,
            versions.c.withdrawn.is_(False),
        )
        .order_by(versions.c.version.desc())
        .limit(1)
        .correlate(workflows)
        .scalar_subquery()
    )


_COLUMNS = [workflows.c[name] for name in Facts.__struct_fields__ if name in workflows.c]


def load(connection: Connection, workflow_id: str) -> Facts | None:
    """Read the facts of one workflow, deleted or not."""
    query = select(*_COLUMNS, public_version_id().label("public_version_id"))
    row = connection.execute(query.where(workflows.c.id == workflow_id)).one_or_none()
    if row is None:
        return None
    blocked = connection.scalars(
        select(blocked_callers.c.app_id).where(blocked_callers.c.workflow_id == workflow_id)
    )
    return Facts(**row._mapping, blocked=frozenset(blocked))
