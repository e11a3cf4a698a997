"""Storing a new run, and beginning it in the moment in which it is stored.

The run is live before its row is: who finds the row finds the run, and can stop it. It begins with
the commit and not with the task that waits for it, which may be cancelled in between.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import Connection

from insula.errors import TooMany, Unavailable
from insula.kit.clock import now_ms
from insula.runs import repository
from insula.runs.cluster import RUN
from insula.runs.execution import forget, launch
from insula.runs.live import LiveRun
from insula.runs.repository import NewRun
from insula.runs.rows import RunRow
from insula.runs.services import RunServices

Before = Callable[[Connection], str | None]
"""Runs in the unit, before the run is inserted: returns the id of the run that stands for it
already, or raises, and then nothing is inserted."""
STORED_WITHIN = 2.0
"""Seconds that a caller waits for a run to be stored, where the database is not on this machine."""
_CANCELLED_EVERY = 0.5
_UNSTORED = "cancelled: not stored in time"
Told = Callable[[str | None, BaseException | None], None]


async def create(
    services: RunServices, live: LiveRun, new: NewRun, before: Before | None = None
) -> str | None:
    """Store a run and begin it; return the id of the run that stands for it, if one does.

    Raises:
        TooMany: its app has as many live runs, at all nodes, as it may have.
        Unavailable: nothing can be stored now. As with what ``before`` raises, there is no run
            then.
    """
    keyed = before is not None
    before = _within_limit(services, new, before)
    services.live.add(live)
    live.row.owner = services.token
    late: list[bool] = []
    stored: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def told(earlier: str | None, error: BaseException | None) -> None:
        if error is None and earlier is None and live.row.owner == services.token:
            launch(services, live)
            if (late and not keyed) or services.resolver.is_closing(live.row.workflow_id):
                live.stop("cancel")
        else:
            # One that was stored under a lease that is lost by now is found, and begun, by others.
            forget(services, live)
            if isinstance(error, TooMany):
                services.live.fill(new.row.app_id)
        if stored.done():  # whoever waited was cancelled
            return
        if error is not None:
            stored.set_exception(error)
        else:
            stored.set_result(earlier)

    try:
        _submit(services, new, before, told)
    except BaseException:
        forget(services, live)
        raise
    if services.cluster is None or live.row.depth > 0:
        return await stored
    try:
        async with asyncio.timeout(STORED_WITHIN):
            return await stored
    except TimeoutError:
        # Should it be stored yet it stops at once; with a key, whoever sends it again attaches.
        late.append(True)
        raise _not_stored() from None


def _within_limit(services: RunServices, new: NewRun, before: Before | None) -> Before | None:
    """Have the unit look at the app's limit, too, if there is one. A child has its root's place."""
    maximum, row = services.live.app_maximum, new.row
    if maximum is None or row.depth > 0:
        return before

    def look(connection: Connection) -> str | None:
        earlier = None if before is None else before(connection)
        if earlier is None:
            repository.check_app(connection, row.app_id, maximum)
        return earlier

    return look


async def check_room(services: RunServices, row: RunRow) -> None:
    """Check that there is room for a new run, before much is taken in for it. Whoever stores it
    looks again: others may have come in between.

    Raises:
        TooMany: as ``create`` and ``create_waiting``.
    """
    if row.depth > 0:
        return
    if row.owner is None:
        check, maximum = repository.check_waiting, services.queue_max
    elif services.live.app_maximum is not None:
        check, maximum = repository.check_app, services.live.app_maximum
    else:
        return
    await services.database.read(partial(check, app_id=row.app_id, maximum=maximum))


async def create_waiting(
    services: RunServices, new: NewRun, before: Before | None = None
) -> str | None:
    """Store a run that waits for a place, and queue it; otherwise as ``create``.

    Raises:
        TooMany: too many runs of the app wait already.
    """
    row = new.row

    def unit(connection: Connection) -> str | None:
        earlier = None if before is None else before(connection)
        if earlier is not None:
            return earlier
        repository.check_waiting(connection, row.app_id, services.queue_max)
        repository.create_many(connection, [new])
        return None

    earlier = await _stored(services, unit, row.id, keyed=before is not None)
    if earlier is None:
        services.queue.offer(row.app_id, row.id)
        if services.cluster is not None:
            await services.cluster.jobs.offer(RUN, row.app_id, row.id)
    return earlier


async def _stored(
    services: RunServices, unit: Callable[[Connection], str | None], run_id: str, *, keyed: bool
) -> str | None:
    if services.cluster is None:
        return await services.database.write(unit)
    refused: list[bool] = []

    def unless_refused(connection: Connection) -> str | None:
        if refused:
            raise _not_stored()
        return unit(connection)

    storing = services.database.submit(unless_refused)
    try:
        async with asyncio.timeout(STORED_WITHIN):
            return await asyncio.shield(storing)
    except TimeoutError:
        storing.add_done_callback(_heard)
        if not keyed:  # with a key, whoever sends it again attaches
            refused.append(True)
            _cancel_late(services, storing, run_id)
        raise _not_stored() from None


def _cancel_late(services: RunServices, storing: "asyncio.Future[str | None]", run_id: str) -> None:
    """Have a run that was refused stop, or never begin, if it is stored all the same.

    That is asked for at once, behind it in the queue of the writer; and when it turns out to be
    stored, again and again until that stands: whatever kept the one away keeps the other.
    """
    loop = asyncio.get_running_loop()
    cancel = partial(repository.request_cancel, run_id=run_id, by=_UNSTORED, now=now_ms())

    def submit(told: Callable[[asyncio.Future[None]], None]) -> None:
        try:
            services.database.submit(cancel).add_done_callback(told)
        except Unavailable:  # too much waits
            loop.call_later(_CANCELLED_EVERY, submit, again)

    def again(cancelling: asyncio.Future[None]) -> None:
        if cancelling.exception() is not None:
            loop.call_later(_CANCELLED_EVERY, submit, again)

    def stored(storing: asyncio.Future[str | None]) -> None:
        if storing.exception() is None:
            submit(again)

    submit(_heard)
    storing.add_done_callback(stored)


def _heard(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()  # nobody waits for it


def _not_stored() -> Unavailable:
    return Unavailable("The database does not answer now. Try again.", retry_after=2)


def _submit(services: RunServices, new: NewRun, before: Before | None, told: Told) -> None:
    if before is None:
        services.creating.submit(new, told)
        return

    def unit(connection: Connection) -> str | None:
        earlier = before(connection)
        if earlier is None:
            repository.create_many(connection, [new])
        return earlier

    services.database.submit(unit).add_done_callback(partial(_tell, told))


def _tell(told: Told, future: "asyncio.Future[str | None]") -> None:
    error = future.exception()
    told(None if error is not None else future.result(), error)
