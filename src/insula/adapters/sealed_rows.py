"""The rows that hold something sealed: which keys they need, and sealing them anew."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog
from sqlalchemy import Connection, Row, Table, and_, delete, select, update

from insula.adapters.keyring import KeyRing, missing, sealed_by
from insula.errors import Unavailable
from insula.settings import SettingsError
from insula.storage.database import Database
from insula.storage.tables import connections, hook_tokens, variables, webhooks

_log = structlog.get_logger(__name__)
_BATCH = 200


@dataclass(frozen=True, slots=True)
class SealedTable:
    """A table with the columns ``sealed`` and ``key_id``; ``bound`` columns bind what is sealed."""

    table: Table
    kind: str
    bound: tuple[str, ...]

    def bound_to(self, row: Row[Any]) -> tuple[str, ...]:
        """Return what a row's text is bound to."""
        return (self.kind, *(str(getattr(row, name)) for name in self.bound))


TABLES: Final = (
    SealedTable(variables, "variable", ("app_id", "key")),
    SealedTable(connections, "connection", ("app_id", "id")),
    SealedTable(webhooks, "webhook", ("app_id", "id")),
    SealedTable(hook_tokens, "hook", ("app_id", "workflow_id", "target")),
)


def needed(connection: Connection) -> frozenset[str]:
    """Return the ids of all keys that something is sealed with."""
    return frozenset(
        found
        for one in TABLES
        for found in connection.scalars(
            select(one.table.c.key_id).where(one.table.c.key_id.is_not(None)).distinct()
        )
    )


async def check_keys(database: Database, ring: KeyRing, *, lost: bool = False) -> None:
    """Refuse to go on without a key that something needs; ``lost``: remove what it sealed.

    Raises:
        SettingsError: a key is missing; says which, and what to do.
    """
    absent = sorted(await database.read(needed) - ring.ids)
    if not absent:
        return
    if not lost:
        raise SettingsError(missing(absent))
    removed = await database.write(partial(_remove, absent=absent))
    _log.warning("secrets.lost", rows=removed, keys=absent)


def _remove(connection: Connection, absent: Sequence[str]) -> int:
    return sum(
        connection.execute(delete(one.table).where(one.table.c.key_id.in_(absent))).rowcount
        for one in TABLES
    )


async def rotate(database: Database, ring: KeyRing) -> int:
    """Seal everything with the ring's first key, in batches beside live traffic; return how much.

    Where we keep the keys ourselves, the first one is made anew, and those before it go. A unit
    that is under way may have sealed with one of those: what is left to be done, and what is still
    needed, is asked in units of writing, which come behind it and see what it stored.

    Raises:
        Unreadable: something does not open; what was sealed anew until then stays so.
        Unavailable: the keys' file cannot be written.
    """
    with _storing():
        before = ring.renew()
    count = 0
    for one in TABLES:
        while sealed := await database.write(partial(_seal_anew, ring=ring, one=one)):
            count += sealed
    unneeded = before - await database.write(needed)
    with _storing():
        ring.forget(unneeded)
    return count


@contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _log.exception("secrets.keys_not_stored")
        raise Unavailable(
            f"The keys cannot be stored: {error.strerror or 'the disk fails'}. Every secret can "
            "still be read. Try again."
        ) from None


def _seal_anew(connection: Connection, ring: KeyRing, one: SealedTable) -> int:
    """Seal a batch of rows with the current key; return how many there were."""
    batch = _stale(connection, one, ring.current)
    for row in batch:
        bound = one.bound_to(row)
        sealed = ring.seal(ring.open(bytes(row.sealed), *bound), *bound)
        same = [column == getattr(row, column.name) for column in one.table.primary_key.columns]
        connection.execute(
            update(one.table).where(and_(*same)).values(sealed=sealed, key_id=sealed_by(sealed))
        )
    return len(batch)


def _stale(connection: Connection, one: SealedTable, current: str) -> Sequence[Row[Any]]:
    table = one.table
    columns = [*table.primary_key.columns, *(table.c[name] for name in one.bound), table.c.sealed]
    query = select(*dict.fromkeys(columns)).where(
        table.c.key_id.is_not(None), table.c.key_id != current
    )
    return connection.execute(query.limit(_BATCH)).all()
