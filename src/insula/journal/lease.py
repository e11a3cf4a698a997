"""Who is alive: a row for each process, good for six seconds, renewed every two.

On SQLite the lock on the data folder says it first: whoever holds it lapses all the others.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import structlog
from sqlalchemy import Connection, delete, insert, update

from insula.errors import InsulaError
from insula.kit.clock import now_ms
from insula.storage.database import Database
from insula.storage.dialect import driver
from insula.storage.tables import nodes

SECONDS = 6.0
RENEWED_EVERY = 2.0
_GRACE_MS = 1_000
_RUNS_MAX = 10_000

# Two ranges round the own token, so that the index of live runs passes over what runs here; and no
# order, for whose sake SQLite would go through all runs there ever were.
_DEAD = "owner NOT IN (SELECT nodes.token FROM nodes WHERE expires_at + :grace > :now)"
_ORPHANS = (
    f"SELECT id FROM runs WHERE ended_at IS NULL AND owner < :token AND {_DEAD}"  # noqa: S608  # a constant
    f" UNION ALL SELECT id FROM runs WHERE ended_at IS NULL AND owner > :token AND {_DEAD}"
    " LIMIT :most"
)

log = structlog.get_logger(__name__)


class LeaseLost(Exception):
    """Somebody else declared this process dead: its runs may be theirs by now."""


class Leased(Protocol):
    """What the lease is for: the journal."""

    token: str
    lease_until: float | None


class Lease:
    """The lease of one process, from ``take`` to ``release``.

    With ``exclusive`` the caller holds the lock on the data folder: every former owner is lapsed at
    once, and nothing here ever fences this process. ``cancel_requested`` hears, at each renewal, of
    the runs of this process that somebody asked to cancel.
    """

    def __init__(
        self,
        database: Database,
        journal: Leased,
        name: str,
        exclusive: bool = False,
        cancel_requested: Callable[[list[str]], None] | None = None,
    ) -> None:
        self._database = database
        self._journal = journal
        self._name = name
        self._exclusive = exclusive
        self._cancel_requested = cancel_requested

    async def take(self) -> None:
        """Write the row."""
        token, name = self._journal.token, self._name

        def unit(connection: Connection) -> None:
            if self._exclusive:
                lapse_others(connection, token)
            connection.execute(
                insert(nodes).values(
                    token=token, name=name, expires_at=_expiry(), started_at=now_ms()
                )
            )

        begun = time.clock_gettime(time.CLOCK_BOOTTIME)
        await self._database.write(unit)
        self._extend(begun)

    async def keep(self) -> None:
        """Renew for ever; to be run as a task of the process's task group.

        Raises:
            LeaseLost: the row is gone. From then on the journal counts as fenced.
        """
        while True:
            await asyncio.sleep(RENEWED_EVERY)
            try:
                await self.renew()
            except InsulaError as error:
                # The deadline stands where it was; if it passes, the journal fences itself.
                log.warning("lease.not_renewed", reason=error.message)

    async def renew(self) -> None:
        """Renew once, and pass on which runs are to be cancelled.

        Raises:
            LeaseLost: the row is gone.
            Unavailable: nothing can be stored now.
        """
        token = self._journal.token

        def unit(connection: Connection) -> list[str] | None:
            renewed = update(nodes).where(nodes.c.token == token).values(expires_at=_expiry())
            if connection.execute(renewed).rowcount == 0:
                return None
            return cancel_requested(connection, token)

        begun = time.clock_gettime(time.CLOCK_BOOTTIME)
        requested = await self._database.write(unit)
        if requested is None:
            self._journal.lease_until = begun
            raise LeaseLost(f"The lease of {self._name} is gone.")
        self._extend(begun)
        if requested and self._cancel_requested is not None:
            self._cancel_requested(requested)

    async def release(self) -> None:
        """Give the lease up, so that nobody waits for it to expire."""
        ours = delete(nodes).where(nodes.c.token == self._journal.token)

        def unit(connection: Connection) -> None:
            connection.execute(ours)

        await self._database.write(unit)

    def _extend(self, begun: float) -> None:
        if not self._exclusive:
            self._journal.lease_until = begun + SECONDS


def lapse_others(connection: Connection, token: str) -> None:
    """Declare every other process dead. Only for whoever holds the lock on the data folder."""
    connection.execute(delete(nodes).where(nodes.c.token != token))


def orphans(connection: Connection, token: str) -> list[str]:
    """List the runs that have not ended and whose owner is neither this process nor a living one.

    A lease counts as lapsed a second after its expiry. Runs without an owner are queued, not lost.
    """
    rows = driver(connection).execute(
        _ORPHANS,
        {"token": token, "grace": _GRACE_MS, "now": now_ms(), "most": _RUNS_MAX},
    )
    return sorted(run_id for (run_id,) in rows)


def cancel_requested(connection: Connection, token: str) -> list[str]:
    """List the live runs of a process that somebody asked to cancel."""
    rows = driver(connection).execute(
        "SELECT id FROM runs WHERE ended_at IS NULL AND owner = ?"
        " AND cancel_requested_at IS NOT NULL LIMIT ?",
        (token, _RUNS_MAX),
    )
    return [run_id for (run_id,) in rows]


def _expiry() -> int:
    # On SQLite the database's clock is this machine's.
    return now_ms() + int(SECONDS * 1000)
