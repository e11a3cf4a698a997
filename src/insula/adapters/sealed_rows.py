"""The rows that hold something sealed: which keys they need, and sealing them anew."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog
from sqlalchemy import Connection, Row, Table, and_, delete, select, update

from insula.adapters.keyring import KeyRing, missing, sealed_by
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

    Where we keep the keys ourselves, the first one is made anew, and those before it go.

    Raises:
        Unreadable: something does not open; what was sealed anew until then stays so.
    """
    ring.renew()
    count = 0
    for one in TABLES:
        while batch := await database.read(partial(_stale, one=one, current=ring.current)):
            fresh = [(row, _anew(ring, one, row)) for row in batch]
            await database.write(partial(_replace, one=one, fresh=fresh))
            count += len(fresh)
    ring.forget(await database.read(needed))
    return count


def _anew(ring: KeyRing, one: SealedTable, row: Row[Any]) -> bytes:
    bound = one.bound_to(row)
    return ring.seal(ring.open(row.sealed, *bound), *bound)


def _stale(connection: Connection, one: SealedTable, current: str) -> Sequence[Row[Any]]:
    table = one.table
    columns = [*table.primary_key.columns, *(table.c[name] for name in one.bound), table.c.sealed]
    query = select(*dict.fromkeys(columns)).where(
        table.c.key_id.is_not(None), table.c.key_id != current
    )
    return connection.execute(query.limit(_BATCH)).all()


def _replace(
    connection: Connection, one: SealedTable, fresh: Sequence[tuple[Row[Any], bytes]]
) -> None:
    for row, sealed in fresh:
        same = [column == getattr(row, column.name) for column in one.table.primary_key.columns]
        connection.execute(
            update(one.table)
            .where(and_(*same), one.table.c.sealed == row.sealed)
            .values(sealed=sealed, key_id=sealed_by(sealed))
        )
