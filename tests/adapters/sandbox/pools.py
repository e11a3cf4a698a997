"""A started pool, of which nothing may be left at its end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from insula.adapters.sandbox.pool import SandboxPool


@asynccontextmanager
async def open_pool() -> AsyncIterator[SandboxPool]:
    """Start it; however a test ends, it is closed, and then empty."""
    pool = SandboxPool(maximum=4, warm=1)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()
    stats = pool.stats()
    assert (stats.alive, stats.busy, stats.waiting) == (0, 0, 0)
