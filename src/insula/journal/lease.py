"""Who is alive: a row for each process, good for six seconds, renewed every two.

On SQLite the lock on the data folder says it first: whoever holds it lapses all the others. In a
cluster a lease that has run out is never renewed: its process takes a new one, and with it those of
its runs that nobody has taken over meanwhile.
"""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

import structlog
from sqlalchemy import ColumnElement, Connection, delete, select, text, update

from insula.errors import InsulaError
from insula.journal.database_clock import DatabaseClock
from insula.kit import clock
from insula.storage.database import Database
from insula.storage.dialect import insert, now_ms
from insula.storage.tables import nodes, runs

SECONDS = 6.0
MARGIN = 0.25
"""How much earlier than everybody else a process counts its own lease as run out."""
RENEWED_EVERY = 2.0
TRIED_EVERY = 0.25
"""How soon it is tried again where a renewal did not come through."""
ANSWERED_WITHIN = 3.0
GRACE_MS = 1_000
_RUNS_MAX = 10_000
_OWNERS = text(
    """
    WITH RECURSIVE owners(owner) AS (
        SELECT min(owner) FROM runs WHERE ended_at IS NULL AND owner > ''
        UNION ALL
        SELECT (SELECT min(runs.owner) FROM runs
                WHERE runs.ended_at IS NULL AND runs.owner > owners.owner)
        FROM owners WHERE owners.owner IS NOT NULL
    )
    SELECT owner FROM owners WHERE owner IS NOT NULL
    """
)

log = structlog.get_logger(__name__)


class LeaseLost(Exception):
    """Somebody else declared this process dead: its runs may be theirs by now."""


class Leased(Protocol):
    """What the lease is for: the journal."""

    token: str
    clock: Callable[[], float]

    def hold(self, until: float | None) -> None:
        """Count as living until then, in seconds of ``clock``; ``None``: for ever."""

    def lapse(self) -> None:
        """Count as dead until there is a lease again."""

    def adopt(self, token: str, until: float) -> None:
        """Go on under another token."""


class Lease:
    """The lease of one process, from ``take`` to ``release``.

    With ``exclusive`` the caller holds the lock on the data folder: every former owner is lapsed at
    once, and nothing here ever fences this process. ``cancel_requested`` hears, at each renewal, of
    the runs of this process that somebody asked to cancel. ``rejoined`` hears which runs this
    process kept when it had lost its lease and took another.
    """

    def __init__(
        self,
        database: Database,
        journal: Leased,
        name: str,
        exclusive: bool = False,
        cancel_requested: Callable[[list[str]], None] | None = None,
        rejoined: Callable[[frozenset[str]], None] | None = None,
    ) -> None:
        self.renewed = True
        """Whether the last renewal came through."""
        self._database = database
        self._journal = journal
        self._name = name
        self._exclusive = exclusive
        self._cancel_requested = cancel_requested
        self._rejoined = rejoined
        self._first = journal.token
        self._former: list[str] = []
        self._count = 0

    async def take(self) -> None:
        """Write the row."""
        begun = self._journal.clock()

        def unit(connection: Connection) -> None:
            if self._exclusive:
                lapse_others(connection, self._journal.token)
            _insert(connection, self._journal.token, self._name)

        await self._database.write(unit)
        self._extend(begun)

    async def keep(self) -> None:
        """Renew for ever, and rejoin where that comes too late; a task of the process's group.

        Raises:
            LeaseLost: the row is gone though this process holds the folder.
        """
        while True:
            # The first at once: it opens the connection, which may take long where much begins.
            try:
                await self._once()
                self.renewed = True
            except (InsulaError, TimeoutError) as error:
                # The deadline stands where it was; when it passes, the runs here pause.
                if self.renewed:
                    log.warning("lease.not_renewed", reason=str(error) or "no answer in time")
                self.renewed = False
            except LeaseLost:
                raise
            except Exception:  # the deadline stands; what runs here must not end with it
                log.exception("lease.renewing_broke")
                self.renewed = False
            await asyncio.sleep(RENEWED_EVERY if self.renewed else TRIED_EVERY)

    async def _once(self) -> None:
        if not self._former:
            try:
                await self.renew()
                return
            except LeaseLost as lost:
                if self._exclusive:
                    raise
                log.warning("lease.lost", reason=str(lost))
        await self.rejoin()

    async def renew(self) -> None:
        """Renew once, and pass on which runs are to be cancelled.

        Raises:
            LeaseLost: the row is gone, or had run out. From now on the journal counts as lapsed.
            Unavailable: nothing can be stored now.
            TimeoutError: the database does not answer.
        """
        token, begun = self._journal.token, self._journal.clock()
        async with asyncio.timeout(ANSWERED_WITHIN):
            renewed = await self._database.autocommit(partial(_renew, token, self._exclusive))
            if not renewed:
                self._journal.lapse()
                raise LeaseLost(f"The lease of {self._name} is gone.")
            self._extend(begun)
            if self._cancel_requested is None:
                return
            requested = await self._database.read(partial(cancel_requested, token=token))
        if requested:
            self._cancel_requested(requested)

    async def rejoin(self) -> None:
        """Take a new lease, and every run back that nobody has taken over meanwhile.

        Tried again after a failure it uses yet another token, and takes back what stands under any
        of the former ones.

        Raises:
            Unavailable: nothing can be stored now.
            TimeoutError: the database does not answer.
        """
        journal = self._journal
        journal.lapse()
        self._count += 1
        token = f"{self._first}~{self._count}"
        former = self._former or [journal.token]
        self._former = [*former, token]
        begun = journal.clock()
        async with asyncio.timeout(ANSWERED_WITHIN):
            # First the row is committed, then runs stand under it: whoever finds them finds a
            # living owner. They are taken back in a group, beside which nobody claims any.
            await self._database.autocommit(
                lambda connection: _insert(connection, token, self._name)
            )
            kept = await self._database.write(partial(_take_back, token, former))
        journal.adopt(token, begun + SECONDS - MARGIN)
        self._former = []
        log.warning("lease.taken_again", runs_kept=len(kept))
        if self._rejoined is not None:
            self._rejoined(kept)

    async def release(self) -> None:
        """Give the lease up, so that nobody waits for it to expire."""
        ours = delete(nodes).where(nodes.c.token == self._journal.token)

        def unit(connection: Connection) -> None:
            connection.execute(ours)

        async with asyncio.timeout(ANSWERED_WITHIN):
            await self._database.write(unit)

    def _extend(self, begun: float) -> None:
        self._journal.hold(None if self._exclusive else begun + SECONDS - MARGIN)


def node_of(token: str) -> str:
    """Return the name a process has throughout, whichever of its tokens this is."""
    return token.partition("~")[0]


def _insert(connection: Connection, token: str, name: str) -> None:
    expiry = now_ms(connection) + int(SECONDS * 1000)
    values = {"token": token, "name": name, "started_at": clock.now_ms()}
    row = insert(connection, nodes).values(expires_at=expiry, **values)
    # What runs beside the groups may run twice.
    connection.execute(row.on_conflict_do_nothing())


def _renew(token: str, exclusive: bool, connection: Connection) -> bool:
    """Renew in one statement, so that what was sent stands even if this process is paused."""
    now = now_ms(connection)
    renewed = update(nodes).where(nodes.c.token == token)
    if not exclusive:
        renewed = renewed.where(nodes.c.expires_at > now)
    return connection.execute(renewed.values(expires_at=now + int(SECONDS * 1000))).rowcount == 1


def _take_back(token: str, former: Iterable[str], connection: Connection) -> frozenset[str]:
    """Put what still stands under former tokens under this one; a child only with its root."""
    mine = runs.c.owner.in_(list(former)) & runs.c.ended_at.is_(None)
    connection.execute(update(runs).where(mine, runs.c.depth == 0).values(owner=token))
    roots = runs.alias()
    kept = select(roots.c.id).where(roots.c.owner == token, roots.c.ended_at.is_(None))
    below = update(runs).where(mine, runs.c.depth > 0, runs.c.root_id.in_(kept))
    connection.execute(below.values(owner=token))
    query = select(runs.c.id).where(runs.c.owner == token, runs.c.ended_at.is_(None))
    return frozenset(connection.scalars(query))


def lapse_others(connection: Connection, token: str) -> None:
    """Declare every other process dead. Only for whoever holds the lock on the data folder."""
    connection.execute(delete(nodes).where(nodes.c.token != token))


def database_clock(clock: Callable[[], float]) -> DatabaseClock:
    """Make the watch over the clock in whose time leases stand."""
    return DatabaseClock(clock, SECONDS + 2 * RENEWED_EVERY, 2 * RENEWED_EVERY)


def lives(connection: Connection, token: str, watch: DatabaseClock) -> bool:
    """Say whether a lease holds, its grace included. One that does not never will again."""
    return token in _living(connection, watch, nodes.c.token == token)


def remove_lapsed(connection: Connection, token: str, watch: DatabaseClock) -> None:
    """Remove the rows of leases that nobody needs to look at any more; never this process's own: if
    the machine slept, it is about to be renewed."""
    living = {token} | _living(connection, watch)
    long_ago = now_ms(connection) - 60 * GRACE_MS
    gone = (nodes.c.expires_at < long_ago) & nodes.c.token.not_in(living)
    connection.execute(delete(nodes).where(gone))


def orphans(connection: Connection, token: str, watch: DatabaseClock) -> list[str]:
    """List the runs that have not ended and whose owner is neither this process nor a living one.

    A lease counts as lapsed a second after its expiry. Runs without an owner are queued, not lost.
    """
    # It jumps from owner to owner along the index of live runs, however many each of them has; and
    # asks for no order, for whose sake SQLite would go through all runs there ever were.
    owners = set(connection.scalars(_OWNERS))
    if not owners - {token}:
        return []
    dead = owners - {token} - _living(connection, watch)
    found: list[str] = []
    for owner in sorted(dead):
        theirs = select(runs.c.id).where(runs.c.owner == owner, runs.c.ended_at.is_(None))
        found += connection.scalars(theirs.limit(_RUNS_MAX - len(found)))
        if len(found) >= _RUNS_MAX:
            break
    return sorted(found)


def count_living(connection: Connection, watch: DatabaseClock) -> int:
    """Return how many processes live."""
    return len(_living(connection, watch))


def _living(connection: Connection, watch: DatabaseClock, *which: ColumnElement[bool]) -> set[str]:
    """Return the tokens of those who live; after a step of the clock, of all who have a row."""
    asked_at = watch.clock()
    query = select(nodes.c.token, nodes.c.expires_at, now_ms(connection)).where(*which)
    found = connection.execute(query).all()
    if not found or not watch.is_steady(found[-1][2], asked_at):
        return {token for token, _, _ in found}
    # Further ahead than a lease lasts is one from before the clock went back.
    most = SECONDS * 1000 + GRACE_MS
    return {token for token, expiry, now in found if -GRACE_MS < expiry - now <= most}


def cancel_requested(connection: Connection, token: str) -> list[str]:
    """List the live runs of a process that somebody asked to cancel."""
    asked = (runs.c.owner == token) & runs.c.cancel_requested_at.is_not(None)
    query = select(runs.c.id).where(asked, runs.c.ended_at.is_(None))
    return list(connection.scalars(query.limit(_RUNS_MAX)))
