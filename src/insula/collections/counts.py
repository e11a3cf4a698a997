"""How many collections an app has, and how many records a collection: counter rows, changed in the
commit that changes the rows. Their first column is a name that no app's id can have."""

from collections.abc import Sequence

from sqlalchemy import Connection, and_, bindparam, delete, func, literal, select

from insula.storage import tables
from insula.storage.counters import Bumps, bump, by_key, count
from insula.storage.tables import counters
from insula.storage.together import Asked, Question

_COLLECTIONS = "collections"
_RECORDS = "records"
_HELD = select(func.coalesce(func.sum(counters.c.count), 0)).where(
    counters.c.app_id == _RECORDS, counters.c.workflow_id == bindparam("collection")
)
_ALL = Question(lambda _: _HELD)
_OF_STATUS = Question(lambda _: _HELD.where(counters.c.status == bindparam("status")))


def owned(connection: Connection, app_id: str) -> int:
    """Count the collections of an app."""
    return count(connection, _COLLECTIONS, app_id)


def change_owned(connection: Connection, app_id: str, by: int) -> None:
    """Note that a collection came or went."""
    bump(connection, _COLLECTIONS, app_id, "", "", by)


def records(connection: Connection, collection_id: str, status: str | None = None) -> int:
    """Count the records of a collection."""
    return count(connection, _RECORDS, collection_id, status=status)


def of_collection(collection_id: str, status: str | None = None) -> Asked:
    """Ask what ``records`` returns, together with something else."""
    if status is None:
        return _ALL.of(collection=collection_id)
    return _OF_STATUS.of(collection=collection_id, status=status)


def records_of(connection: Connection, collection_ids: Sequence[str]) -> dict[str, int]:
    """Count the records of some collections."""
    query = (
        select(counters.c.workflow_id, func.sum(counters.c.count))
        .where(counters.c.app_id == _RECORDS, counters.c.workflow_id.in_(collection_ids))
        .group_by(counters.c.workflow_id)
    )
    return {found: int(number) for found, number in connection.execute(query).all()}


def forget(connection: Connection, collection_id: str) -> None:
    """Remove the counts of a collection that has no records any more."""
    mine = and_(counters.c.app_id == _RECORDS, counters.c.workflow_id == collection_id)
    connection.execute(delete(counters).where(mine))


def change_records(connection: Connection, collection_id: str, status: str, by: int) -> None:
    """Note that a record came into a status, or left it."""
    bump(connection, _RECORDS, collection_id, status, "", by)


def rows_by_counter(connection: Connection) -> Bumps:
    """Count the rows themselves, as the counters should have them."""
    none, app_id = literal(""), tables.collections.c.app_id
    own = select(literal(_COLLECTIONS), app_id, none, none, func.count()).group_by(app_id)
    # Its app has one less from the moment in which a deletion begins.
    own = own.where(~tables.collections.c.deleting)
    of, status = tables.records.c.collection_id, tables.records.c.status
    held = select(literal(_RECORDS), of, status, none, func.count()).group_by(of, status)
    return by_key(connection, own) | by_key(connection, held)
