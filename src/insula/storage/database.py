"""What a database offers to the concepts: units of writing, and reading.

A *unit* is a plain function of a connection that awaits nothing and may be run a second time (its
first try rolled back): it touches nothing but the connection. Units that arrive together are
committed together; ``write`` returns after the commit.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")


class Database(Protocol):
    """SQLite or PostgreSQL."""

    background_is_free: bool
    """Whether what is done in the ``background`` holds up nobody else."""

    async def write(self, unit: Callable[[Connection], T]) -> T:
        """Run the unit in the next group and return its value once the group is committed.

        An exception of the unit undoes the unit alone and is raised here. Cancelling the awaiting
        task does not withdraw the unit.
        """
        ...

    def submit(self, unit: Callable[[Connection], T], fenced: bool = False) -> asyncio.Future[T]:
        """Queue the unit for the next group without waiting; as ``write`` otherwise.

        Units see what all units before them stored, and no other unit of any process runs beside
        them; except that ``fenced`` ones, whose statements each hold by themselves, may.
        """
        ...

    async def autocommit(self, unit: Callable[[Connection], T]) -> T:
        """Run the unit at once and not in a group; each of its statements is a transaction.

        For leases: what was sent is stored, even if this process stops in that moment. Where the
        connection is lost the unit runs a second time, and the first may have been stored.
        """
        ...

    async def background(self, unit: Callable[[Connection], T]) -> T:
        """Run the unit in a transaction of its own, beside all others where the database can.

        For much work that nobody waits for. Its statements each hold by themselves. Where the
        connection is lost the unit runs a second time, and the first may have been stored.

        Raises:
            Unavailable: as ``write``, and where it came into another transaction's way.
        """
        ...

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a query against what is committed, beside the writer."""
        ...

    async def reclaim(self) -> None:
        """Take from the disk what was erased, and give its space back."""
        ...

    async def close(self) -> None:
        """Commit what was submitted, then close every connection."""
        ...
