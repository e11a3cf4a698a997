"""What a node does for the others, and what becomes of its runs where its own lease was lost."""

from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from insula.errors import InsulaError
from insula.journal.lease import node_of
from insula.runs import repository
from insula.runs.cancel import stop
from insula.runs.change import take_retention
from insula.runs.cluster import SWEEP, Cluster
from insula.runs.rows import RunRow
from insula.runs.services import RunServices

_log = structlog.get_logger(__name__)

_ID_MAX = 200


class NotMine(Exception):
    """Another node executes the run by now, or none: whoever asks looks again."""


async def listen(services: RunServices, cluster: Cluster, sweep: Callable[[], None]) -> None:
    """Begin to do what other nodes ask for, and believe them only as far as it is stored.

    ``sweep`` is called where runs may have lost their owner.
    """
    me = node_of(services.token)
    work: dict[str, Callable[[RunServices, RunRow], Awaitable[None]]] = {
        "stop": _stop,
        "retention": _take_retention,
    }
    for what, handle in work.items():
        answer = partial(_answer, services, handle)
        await cluster.signals.answer(f"node.{me}.{what}", answer)
    await cluster.signals.listen(SWEEP, lambda _: sweep())
    cluster.signals.on_return(sweep)


async def _answer(
    services: RunServices, handle: Callable[[RunServices, RunRow], Awaitable[None]], body: bytes
) -> bytes:
    run_id = body[:_ID_MAX].decode("ascii", "replace")
    row = await services.database.read(partial(repository.find, run_id=run_id))
    if row is None or (not row.is_final and row.owner != services.token):
        raise NotMine
    await handle(services, row)
    return b"done"


async def _stop(services: RunServices, row: RunRow) -> None:
    if not row.is_final and row.cancel_requested_at is not None:
        await stop(services, row)


async def _take_retention(services: RunServices, row: RunRow) -> None:
    if not await take_retention(services, row):
        raise NotMine


def heed(services: RunServices, run_ids: list[str]) -> None:
    """Stop runs of this node that somebody asked to cancel, at whichever node."""
    for run_id in run_ids:
        live = services.live.get(run_id)
        if live is not None and not live.stopping and not live.ending:
            services.group.create_task(_heed(services, run_id))


async def _heed(services: RunServices, run_id: str) -> None:
    try:
        row = await services.database.read(partial(repository.find, run_id=run_id))
        if row is not None:
            await _stop(services, row)
    except InsulaError as error:  # the next renewal brings it again
        _log.warning("cancel.not_done", run_id=run_id, reason=error.message)


def rejoined(services: RunServices, kept: frozenset[str]) -> None:
    """Go on with the runs that were kept, and drop the others: they are another node's."""
    services.metrics.lease_lost.inc()
    lost = 0
    for live in services.live:
        if live.row.id in kept:
            live.row.owner = services.token
        elif live.task is not None and not live.ending:
            # One that is not stored yet, or ends just now, learns from that write whose it is.
            lost += 1
            live.log.drop()
            live.stop("shutdown")
    if lost:
        _log.warning("runs.fenced", count=lost, kept=len(kept))


def give_up(services: RunServices, since: float) -> None:
    """Fail the runs of which nothing could be stored since then, with the trees they are in.

    Their ends are stored when something can be stored again, unless another node has taken them
    over meanwhile.
    """
    words = (
        f"Nothing could be stored for {services.patience:g} s: the database was away or full "
        "(INSULA_STORAGE_PATIENCE)"
    )
    for run_id in services.journal.stalled(since):
        live = services.live.get(run_id)
        root = live and services.live.get(live.row.root_id)
        if root is not None and not root.stopping and not root.ending:
            services.metrics.given_up.inc()
            _log.error("run.given_up", run_id=root.row.id, seconds=services.patience)
            root.stop("storage", words)
