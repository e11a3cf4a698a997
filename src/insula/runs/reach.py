"""Stopping a run that is executed nowhere, or by another node."""

import asyncio
from functools import partial

from insula.errors import Unavailable
from insula.runs import recovery, repository
from insula.runs.cluster import Cluster
from insula.runs.live import LiveRun
from insula.runs.rows import RunRow
from insula.runs.services import RunServices

_LOOKED_EVERY = 0.1


async def reach(services: RunServices, row: RunRow) -> LiveRun | None:
    """Get a run to stop whose cancel is stored and which is not live here.

    Returns it, live, if this process has taken it over, else ``None`` once it has ended.

    Raises:
        Unavailable: it has not stopped in time; its cancel stays requested.
    """
    cluster = services.cluster
    if cluster is None or row.owner in (None, services.token):
        # It waits in the queue, or its owner is gone: taken over with its cancel requested it
        # starts nothing, and its end is written.
        live = await asyncio.shield(recovery.take_over(services, row.id))
        if live is not None or cluster is None:
            return live
    try:
        async with asyncio.timeout(services.stop_within):
            return await _elsewhere(services, cluster, row)
    except TimeoutError:
        raise Unavailable(
            f"The run has not stopped within {services.stop_within:g} s; its cancel stays "
            "requested. Ask again.",
            retry_after=5,
        ) from None


async def _elsewhere(services: RunServices, cluster: Cluster, row: RunRow) -> LiveRun | None:
    """Ask whoever owns it, and again whoever owns it then; without an answer wait for its end, or
    for the end of its owner."""
    asked: str | None = None
    while True:
        if row.owner not in (None, services.token, asked):
            asked = row.owner
            await cluster.ask_owner(asked or "", "stop", row.id, services.stop_within)
        watch = services.journal.database_clock
        find = partial(repository.find_with_owner, run_id=row.id, watch=watch)
        found, lives = await services.database.read(find)
        if found is None or found.is_final:
            return None
        row = found
        if not lives or row.owner == services.token:
            live = services.live.get(row.id)
            live = live or await asyncio.shield(recovery.take_over(services, row.id))
            if live is not None:
                return live
        await _next(services, row.id)


async def _next(services: RunServices, run_id: str) -> None:
    elsewhere = services.journal.elsewhere
    if elsewhere is None:
        await asyncio.sleep(_LOOKED_EVERY)
    else:
        await elsewhere.wait(run_id, _LOOKED_EVERY)
