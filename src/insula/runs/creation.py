"""Storing a new run, and beginning it in the moment in which it is stored.

The run is live before its row is: who finds the row finds the run, and can stop it. It begins with
the commit and not with the task that waits for it, which may be cancelled in between.
"""

import asyncio
from collections.abc import Callable
from functools import partial

from sqlalchemy import Connection

from insula.errors import TooMany
from insula.runs import repository
from insula.runs.execution import forget, launch
from insula.runs.live import LiveRun
from insula.runs.repository import NewRun
from insula.runs.services import RunServices

Before = Callable[[Connection], str | None]
"""Runs in the unit, before the run is inserted: returns the id of the run that stands for it
already, or raises, and then nothing is inserted."""
Told = Callable[[str | None, BaseException | None], None]


async def create(
    services: RunServices, live: LiveRun, new: NewRun, before: Before | None = None
) -> str | None:
    """Store a run and begin it; return the id of the run that stands for it, if one does.

    Raises:
        Unavailable: nothing can be stored now. As with what ``before`` raises, there is no run
            then.
    """
    services.live.add(live)
    stored: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def told(earlier: str | None, error: BaseException | None) -> None:
        if error is None and earlier is None:
            launch(services, live)
        else:
            forget(services, live)
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
    return await stored


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
        if repository.count_waiting(connection, row.app_id) >= services.queue_max:
            raise TooMany(
                f"{services.queue_max} runs of this app wait to begin, the limit "
                "(INSULA_QUEUE_MAX). Try again later.",
                retry_after=5,
            )
        repository.create_many(connection, [new])
        return None

    earlier = await services.database.write(unit)
    if earlier is None:
        services.queue.offer(row.app_id, row.id)
    return earlier


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
