"""Replacing the journals of ended runs by one compressed row each, where that was too much for the
run's last write: off everybody's path, in steps that hold the writer for a few milliseconds.
"""

import asyncio
import zlib
from functools import partial

import structlog
from sqlalchemy import Connection

from insula.errors import InsulaError
from insula.storage.database import Database
from insula.storage.dialect import driver

# A longer journal stays in its rows: writing it as one would hold the writer for too long.
JOURNAL_MAX = 2 * 1024 * 1024
COMPRESSED_MAX = 512 * 1024
_BYTES_A_STEP = 512 * 1024
_LEFT_MAX = 1_000
_RETRY = 1.0

log = structlog.get_logger(__name__)


class Compactor:
    """Compacts what it is told of, and at its start what an earlier process left."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: asyncio.Queue[str] = asyncio.Queue()

    def add(self, run_id: str) -> None:
        """Compact this run's journal soon."""
        self._waiting.put_nowait(run_id)

    async def run(self) -> None:
        """Work for ever; to be run as a task of the process's task group."""
        await self._find_left()
        while True:
            run_id = await self._waiting.get()
            try:
                await self.compact(run_id)
            except InsulaError as error:
                log.warning("journal.not_compacted", run_id=run_id, reason=error.message)
                self.add(run_id)
                await asyncio.sleep(_RETRY)
            except Exception:  # it stays as it is; what runs here must not end with it
                log.exception("journal.compacting_broke", run_id=run_id)

    async def _find_left(self) -> None:
        """Take in what an earlier process left, once the database answers."""
        while True:
            try:
                for run_id in await self._database.read(left):
                    self.add(run_id)
            except InsulaError as error:
                log.warning("journal.not_looked_through", reason=error.message)
                await asyncio.sleep(_RETRY)
            except Exception:  # they stay as they are
                log.exception("journal.looking_through_broke")
                return
            else:
                return

    async def compact(self, run_id: str) -> bool:
        """Compact one journal; say whether it is in one row now."""
        found = await self._database.read(partial(_squeeze, run_id=run_id))
        if found is None:
            return False
        journal, steps = found
        if not await self._database.write(partial(_replace, run_id=run_id, journal=journal)):
            return False
        for last in steps:
            await self._database.write(partial(_delete_to, run_id=run_id, last=last))
        return True


def left(connection: Connection) -> list[str]:
    """List ended runs whose journals still stand in rows and are not too long to be replaced."""
    rows = driver(connection).execute(
        "SELECT run_events.run_id FROM run_events JOIN runs ON runs.id = run_events.run_id"
        " WHERE runs.ended_at IS NOT NULL AND runs.erased_at IS NULL"
        " GROUP BY run_events.run_id HAVING sum(length(run_events.events)) <= ? LIMIT ?",
        (JOURNAL_MAX, _LEFT_MAX),
    )
    return [run_id for (run_id,) in rows]


def _squeeze(connection: Connection, run_id: str) -> tuple[bytes, list[int]] | None:
    """Return the journal as one row, and up to which numbers to delete in one step each."""
    raw = driver(connection)
    sizes = raw.execute(
        "SELECT seq, length(events) FROM run_events WHERE run_id = ? ORDER BY seq", (run_id,)
    ).fetchall()
    if not sizes or sum(size for _, size in sizes) > JOURNAL_MAX:
        return None
    squeezer = zlib.compressobj(1)
    pieces = [squeezer.compress(b"[")]
    between = b""
    rows = raw.execute("SELECT events FROM run_events WHERE run_id = ? ORDER BY seq", (run_id,))
    for (events,) in rows:
        pieces.append(squeezer.compress(between + events[1:-1]))
        between = b","
    pieces += (squeezer.compress(b"]"), squeezer.flush())
    journal = b"".join(pieces)
    return (journal, _steps(sizes)) if len(journal) <= COMPRESSED_MAX else None


def _steps(sizes: list[tuple[int, int]]) -> list[int]:
    steps, held = [], 0
    for seq, size in sizes:
        held += size
        if held >= _BYTES_A_STEP:
            steps.append(seq)
            held = 0
    if held:
        steps.append(sizes[-1][0])
    return steps


def _replace(connection: Connection, run_id: str, journal: bytes) -> bool:
    # Rows that an erasure took in the meantime must not come back: only a journal whose rows
    # are there is replaced. Rows beside a whole journal are those that are still to be deleted.
    cursor = driver(connection).execute(
        "UPDATE run_data SET events = coalesce(events, :journal) WHERE run_id = :run_id"
        " AND EXISTS (SELECT 1 FROM runs WHERE id = :run_id AND ended_at IS NOT NULL"
        " AND erased_at IS NULL)"
        " AND EXISTS (SELECT 1 FROM run_events WHERE run_events.run_id = :run_id)",
        {"run_id": run_id, "journal": journal},
    )
    return cursor.rowcount == 1


def _delete_to(connection: Connection, run_id: str, last: int) -> None:
    driver(connection).execute(
        "DELETE FROM run_events WHERE run_id = ? AND seq <= ?", (run_id, last)
    )
