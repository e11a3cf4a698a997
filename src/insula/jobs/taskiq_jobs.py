"""Hints through a taskiq broker: its transport, its format, our own loop of fetching.

The library's receiver fetches ahead, starts tasks that nobody waits for and acknowledges when it
likes; here a hint is fetched only where there is room, and acknowledged after it was taken.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import structlog
from taskiq import AckableMessage, AsyncBroker, BrokerMessage
from taskiq.message import TaskiqMessage

from insula.jobs.jobs import Room, Take, check_word
from insula.jobs.pauses import Pauses
from insula.jobs.seldom import Seldom
from insula.jobs.tasks import check_cancelled
from insula.kit.tasks import cancels

OFFER_WITHIN = 0.05
"""Seconds that an offer may hold up a request."""
REST = 1.0
"""Seconds without offers after one that was too slow: else who has many would wait for each."""
OPEN_WITHIN = 5.0
CLOSE_WITHIN = 2.0
HINT_MAX = 4096
OWNER = "owner"
"""The label of a message that names its owner."""

OpenBroker = Callable[[str], Awaitable[AsyncBroker]]
Listener = AsyncGenerator[bytes | AckableMessage, None]

log = structlog.get_logger("insula.jobs")


class _Lane:
    """One kind of work: its broker while that works, and who waits for it or for room."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.broker: AsyncBroker | None = None
        self.failed = False
        self.rests_until = 0.0
        self.keeper: asyncio.Task[None] | None = None
        self.waiting: asyncio.Timeout | None = None
        self._opened = asyncio.Event()
        self._broken = asyncio.Event()
        self._room = asyncio.Event()

    async def opened(self) -> AsyncBroker:
        """Wait for a broker that works."""
        while self.broker is None:
            await self._opened.wait()
        return self.broker

    def open(self, broker: AsyncBroker) -> None:
        """Use this broker from now on."""
        self.broker, self.failed = broker, False
        self._broken.clear()
        self._opened.set()

    def break_off(self, broker: AsyncBroker | None) -> None:
        """Use this broker no more; another than the present one changes nothing."""
        if broker is None or broker is not self.broker:
            return
        self.broker, self.failed = None, True
        self._opened.clear()
        self._broken.set()
        self._room.set()
        if self.waiting is not None and not self.waiting.expired():
            self.waiting.reschedule(asyncio.get_running_loop().time())

    async def broken(self) -> None:
        """Wait until the broker is of no more use."""
        await self._broken.wait()

    def wake(self) -> None:
        """Let ``room_again`` return."""
        self._room.set()

    async def room_again(self) -> None:
        """Wait until there may be room, or the broker broke."""
        await self._room.wait()
        self._room.clear()


class TaskiqJobs:
    """A node's hints; ``open_broker`` makes and starts the broker of one kind.

    A broker is used until something fails, then closed, and another is opened. ``reachable`` says
    whether trying makes sense now.
    """

    def __init__(
        self, open_broker: OpenBroker, reachable: Callable[[], bool] = lambda: True
    ) -> None:
        self._open_broker = open_broker
        self._reachable = reachable
        self._lanes: dict[str, _Lane] = {}
        self._seldom = Seldom()
        self._lost = 0
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether the broker of every kind in use works."""
        works = all(lane.broker is not None for lane in self._lanes.values())
        return works and self._reachable() and not self._closed

    @property
    def lost(self) -> int:
        """How many hints were dropped here since the start."""
        return self._lost

    async def offer(self, kind: str, owner: str, item: str) -> None:
        """Hint that an item waits; gives up after 50 ms, and at once while the broker is away.

        After one that was too slow, the next second's are given up at once as well.
        """
        try:
            message = TaskiqMessage(
                task_id=check_word("item", item),
                task_name=check_word("kind", kind),
                labels={OWNER: check_word("owner", owner)},
                args=[],
                kwargs={},
            )
            lane = self._lane(kind)
        except ValueError:
            self._lose(kind, "not a word")
            return
        now = asyncio.get_running_loop().time()
        if lane.failed or self._closed or not self._reachable() or now < lane.rests_until:
            self._lose(kind, "away")
            return
        broker: AsyncBroker | None = None
        before = cancels()
        try:
            async with asyncio.timeout(OFFER_WITHIN):
                broker = await lane.opened()
                await broker.kick(broker.formatter.dumps(message))
        except TimeoutError:
            lane.rests_until = asyncio.get_running_loop().time() + REST
            self._lose(kind, "slow")
        except Refused as error:
            self._lose(kind, str(error))
        except Exception as error:
            self._lose(kind, type(error).__name__)
            lane.break_off(broker)
        check_cancelled(before)

    async def work(self, kind: str, room: Room, take: Take) -> None:
        """Fetch hints of a kind while ``room()`` says so, for ever."""
        lane = self._lane(kind)
        while True:
            broker = await lane.opened()
            try:
                async with aclosing(broker.listen()) as listener:
                    await self._fetch(lane, broker, listener, room, take)
            except Exception as error:
                log.debug("job.fetch_failed", kind=kind, error=type(error).__name__)
                lane.break_off(broker)
            check_cancelled()

    def wake(self, kind: str) -> None:
        """Say that there may be room again for hints of this kind."""
        self._lane(kind).wake()

    def broken(self) -> None:
        """Open every broker anew: the connection below them is gone."""
        for lane in self._lanes.values():
            lane.break_off(lane.broker)

    async def close(self) -> None:
        """Close every broker."""
        self._closed = True
        keepers = [lane.keeper for lane in self._lanes.values() if lane.keeper is not None]
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)

    def _lane(self, kind: str) -> _Lane:
        lane = self._lanes.get(kind)
        if lane is None:
            lane = self._lanes[check_word("kind", kind)] = _Lane(kind)
            if not self._closed:
                lane.keeper = asyncio.get_running_loop().create_task(self._keep(lane))
        return lane

    async def _keep(self, lane: _Lane) -> None:
        pauses = Pauses()
        while True:
            broker: AsyncBroker | None = None
            try:
                broker = await self._open_broker(lane.kind)
                check_cancelled()
                lane.open(broker)
                log.info("job.broker_open", kind=lane.kind)
                pauses.up()
                await lane.broken()
            except Exception as error:
                if not lane.failed:
                    log.warning("job.broker_away", kind=lane.kind, error=type(error).__name__)
                lane.failed = True
            finally:
                lane.break_off(broker)
                await _shut(broker)
            check_cancelled()
            await asyncio.sleep(pauses.next())

    async def _fetch(
        self, lane: _Lane, broker: AsyncBroker, listener: Listener, room: Room, take: Take
    ) -> None:
        while lane.broker is broker:
            if not room():
                await lane.room_again()
                continue
            message = await _next(lane, listener)
            check_cancelled()
            if message is None:
                return
            hint = _read(broker, message)
            if hint is None:
                self._seldom.warn("job.unreadable", kind=lane.kind)
            elif room():
                await _give(lane.kind, take, *hint)
            else:  # it went while the hint was on its way: another node may have some
                await self.offer(lane.kind, *hint)
            await _acknowledge(message)

    def _lose(self, kind: str, why: str) -> None:
        self._lost += 1
        log.debug("job.hint_lost", kind=kind[:50], why=why)


class Refused(Exception):
    """The broker works and does not want this hint."""


async def _next(lane: _Lane, listener: Listener) -> bytes | AckableMessage | None:
    """Fetch one; ``None`` once the broker broke."""
    scope = asyncio.timeout(None)
    try:
        async with scope:
            lane.waiting = scope
            return await anext(listener, None)
    except TimeoutError:
        if not scope.expired():
            raise
        return None
    finally:
        lane.waiting = None


def _read(broker: AsyncBroker, message: bytes | AckableMessage) -> tuple[str, str] | None:
    """Return owner and item; ``None`` if it is not a hint: anyone may have written it."""
    data = message.data if isinstance(message, AckableMessage) else message
    if len(data) > HINT_MAX:
        return None
    try:
        parsed = broker.formatter.loads(data)
        return check_word("owner", parsed.labels[OWNER]), check_word("item", parsed.task_id)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


async def _give(kind: str, take: Take, owner: str, item: str) -> None:
    try:
        await take(owner, item)
    except Exception:
        log.exception("job.take_failed", kind=kind, owner=owner, item=item)


async def _acknowledge(message: bytes | AckableMessage) -> None:
    if isinstance(message, AckableMessage):
        async with asyncio.timeout(CLOSE_WITHIN):
            done = message.ack()
            if done is not None:
                await done


async def _shut(broker: AsyncBroker | None) -> None:
    if broker is None:
        return
    try:
        async with asyncio.timeout(CLOSE_WITHIN):
            await broker.shutdown()
    except Exception as error:
        log.debug("job.shutdown_failed", error=type(error).__name__)


def owner_of(message: BrokerMessage) -> str:
    """Return the owner whom a message names."""
    return str(message.labels[OWNER])
