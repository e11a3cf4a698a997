"""Many small writes of one kind as one unit: items that gather while the last group is committed
are stored together, by statements that take many rows at once.

A statement of the driver lets go of the interpreter, and under load the way back takes longer than
the statement. So what is hot is written with a handful of statements a group, however many rows.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from sqlalchemy import Connection

from insula.errors import InsulaError, Unavailable
from insula.storage.database import Database

Item = TypeVar("Item")
Result = TypeVar("Result")
Store = Callable[[Connection, Sequence[Item]], Sequence[Result]]
Told = Callable[[Result | None, BaseException | None], None]

ITEMS_WAITING_MAX = 10_000
_ITEMS_A_UNIT = 512


class _Unit(Generic[Item, Result]):
    """Takes what is ready when it runs; run again, it has what it took before, and more."""

    def __init__(
        self, store: Store[Item, Result], ready: "deque[tuple[Item, Told[Result]]]"
    ) -> None:
        self.started = False
        self.taken: list[tuple[Item, Told[Result]]] = []
        self._store = store
        self._ready = ready

    def __call__(self, connection: Connection) -> Sequence[Result]:
        # Said before anything is taken: whoever adds an item after this submits another unit,
        # which at worst finds nothing to do.
        self.started = True
        self.take(_ITEMS_A_UNIT)
        if not self.taken:
            return ()
        return self._store(connection, [item for item, _ in self.taken])

    def take(self, most: int) -> None:
        """Take what is ready, one by one: another unit may be at it in another thread, and each
        item is one unit's."""
        while len(self.taken) < most:
            try:
                self.taken.append(self._ready.popleft())
            except IndexError:
                return


class Gathering(Generic[Item, Result]):
    """Stores items of one kind with ``store``, which returns a result for each, in order.

    ``store`` is a unit in all but its second argument. Where it fails for several items together,
    each is stored again alone, so that the one at fault is the only one that hears of it. With
    ``fenced``, ``store`` holds by itself beside units of other processes (``Database.submit``).
    """

    def __init__(self, database: Database, store: Store[Item, Result], fenced: bool = True) -> None:
        self._database = database
        self._store = store
        self._fenced = fenced
        self._ready: deque[tuple[Item, Told[Result]]] = deque()
        self._unit: _Unit[Item, Result] | None = None

    async def write(self, item: Item) -> Result:
        """Store one item; as ``Database.write``."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.submit(item, partial(_settle, future))
        return await future

    def submit(self, item: Item, told: Told[Result]) -> None:
        """Store one item in the next group; ``told`` is called after the commit, on the loop."""
        if len(self._ready) >= ITEMS_WAITING_MAX:
            told(None, Unavailable("Too much waits to be stored. Try again.", retry_after=1))
            return
        self._ready.append((item, told))
        if self._unit is None or self._unit.started:
            self._send(_Unit(self._store, self._ready))

    def _send(self, unit: _Unit[Item, Result]) -> None:
        try:
            future = self._database.submit(unit, self._fenced)
        except InsulaError as error:
            while self._ready:
                self._ready.popleft()[1](None, error)
            return
        self._unit = unit
        future.add_done_callback(partial(self._tell, unit))

    def _tell(self, unit: _Unit[Item, Result], future: "asyncio.Future[Sequence[Result]]") -> None:
        if self._unit is unit:
            self._unit = None
        error = future.exception()
        if error is None:
            for (_, told), result in zip(unit.taken, future.result(), strict=True):
                told(result, None)
        elif len(unit.taken) > 1 and not isinstance(error, Unavailable):
            for one in unit.taken:
                self._again(one)
        else:
            if not unit.started:  # the group failed before it came to this unit
                unit.take(ITEMS_WAITING_MAX)
            for _, told in unit.taken:
                told(None, error)
        # More than one unit's worth: what is left has no unit yet that will take it.
        if self._ready and (self._unit is None or self._unit.started):
            self._send(_Unit(self._store, self._ready))

    def _again(self, one: tuple[Item, Told[Result]]) -> None:
        alone = _Unit(self._store, deque([one]))
        alone.take(1)
        try:
            future = self._database.submit(alone, self._fenced)
        except InsulaError as error:
            one[1](None, error)
        else:
            future.add_done_callback(partial(self._tell, alone))


def _settle(
    future: asyncio.Future[Result], result: Result | None, error: BaseException | None
) -> None:
    if future.done():  # its task was cancelled; what it wrote stands
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)  # type: ignore[arg-type]  # without an error there is one
