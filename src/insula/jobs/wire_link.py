"""One wire to a broker, opened anew whenever it breaks, for as long as it is wanted.

One task has the wire: it has the broker know what is listened to here, sends what waits to be sent,
and asks for a sign of life where it has done neither for a second.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from insula.jobs.pauses import Pauses
from insula.jobs.tasks import check_cancelled
from insula.jobs.unsent import Unsent
from insula.jobs.wire import Broken, OpenWire, Packet, Wire

OPEN_WITHIN = 8.0
SILENT_WITHIN = 2.0
"""Seconds in which a broker that is there answers."""
LOOK_EVERY = 1.0
CLOSE_WITHIN = 1.0
"""Seconds that what was said last has to be sent."""

log = structlog.get_logger("insula.jobs")


@dataclass(eq=False, frozen=True, slots=True)
class Interest:
    """One who wants what arrives at a channel; ``answers`` if questions come there."""

    channel: str
    got: Callable[[bytes], None]
    answers: bool = False


class _Interests:
    """Who wants which channel, and what the wire has yet to be told of it."""

    def __init__(self) -> None:
        self.at: dict[str, list[Interest]] = {}
        self._known: set[str] = set()
        self._new: set[str] = set()
        self._gone: set[str] = set()

    def __len__(self) -> int:
        """Return how many channels are to be told of."""
        return len(self._new) + len(self._gone)

    def add(self, interest: Interest) -> None:
        channel = interest.channel
        self.at.setdefault(channel, []).append(interest)
        self._gone.discard(channel)
        if channel not in self._known:
            self._new.add(channel)

    def remove(self, interest: Interest) -> None:
        channel = interest.channel
        left = [one for one in self.at.get(channel, ()) if one is not interest]
        if left:
            self.at[channel] = left
            return
        self.at.pop(channel, None)
        self._new.discard(channel)
        if channel in self._known:
            self._gone.add(channel)

    def forget(self) -> None:
        """Begin with a wire that knows of nothing."""
        self._known, self._new, self._gone = set(), set(self.at), set()

    async def tell(self, wire: Wire) -> None:
        """Have the wire know what has changed."""
        if self._new:
            new, self._new = self._new, set()
            self._known |= new
            answering = [each for each in new if any(one.answers for one in self.at[each])]
            await wire.stand(list(new), answering)
        if self._gone:
            gone, self._gone = self._gone, set()
            self._known -= gone
            await wire.leave(list(gone))


class WireLink:
    """Keeps one working wire. ``where`` is the broker as the log may show it."""

    def __init__(self, open_wire: OpenWire, where: str) -> None:
        self._open_wire = open_wire
        self._where = where
        self._interests = _Interests()
        self._unsent = Unsent()
        self._settling: list[asyncio.Future[None]] = []
        self._work = asyncio.Event()
        self._at_rest = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._told = False
        self.wire: Wire | None = None
        self.lost = 0
        self.trouble: str | None = "not connected yet"
        self.when_up: Callable[[], None] = lambda: None
        self.when_down: Callable[[], None] = lambda: None
        self.when_nobody: Callable[[int], None] = lambda _: None
        """Called with the number of a question where nobody answers."""

    def start(self) -> None:
        """Begin to connect; nobody has to wait for it."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    def put(self, packet: Packet) -> bool:
        """Have a packet sent; ``False`` where there is no broker or no room for it."""
        if self.wire is None or not self._unsent.put(packet):
            return False
        self._at_rest.clear()
        self._work.set()
        return True

    async def stand(self, interest: Interest) -> None:
        """Hear what arrives from now on; without a broker from when it is back."""
        self._interests.add(interest)
        if self.wire is None:
            return
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._settling.append(settled)
        self._work.set()
        await settled

    def leave(self, interest: Interest) -> None:
        """Hear no more. The broker is told with what is sent next."""
        self._interests.remove(interest)

    async def close(self) -> None:
        """End the connection, after what was said last, and told that nobody listens any more."""
        if self.wire is not None:
            self._at_rest.clear()
            self._work.set()
            try:
                async with asyncio.timeout(CLOSE_WITHIN):
                    await self._at_rest.wait()
            except TimeoutError:
                self.lost += len(self._unsent)
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    def _hear(self, channel: str, frame: bytes) -> None:
        for interest in tuple(self._interests.at.get(channel, ())):
            try:
                interest.got(frame)
            except Exception:
                log.exception("signal.unreadable")

    async def _keep(self) -> None:
        pauses = Pauses()
        while True:
            wire: Wire | None = None
            try:
                async with asyncio.timeout(OPEN_WITHIN):
                    wire = await self._open_wire(self._hear, self._work.set)
                check_cancelled()
                self._interests.forget()
                await self._turn(wire)
                pauses.up()
                self._up(wire)
                await self._use(wire)
            except (Broken, OSError, TimeoutError) as error:
                self._tell_away(str(error) or "it does not answer")
            except Exception:
                log.exception("broker.session_failed")
            finally:
                self._down()
                if wire is not None:
                    await _close(wire)
            check_cancelled()
            await asyncio.sleep(pauses.next())

    async def _use(self, wire: Wire) -> None:
        while True:
            self._work.clear()
            wire.check()
            await self._turn(wire)
            if len(self._unsent) or len(self._interests) or self._settling:
                continue
            self._at_rest.set()
            try:
                async with asyncio.timeout(LOOK_EVERY):
                    await self._work.wait()
            except TimeoutError:
                async with asyncio.timeout(SILENT_WITHIN):
                    await wire.look()

    async def _turn(self, wire: Wire) -> None:
        """Tell of interests, and send once."""
        settling, self._settling = self._settling, []
        packets = self._unsent.take()
        try:
            async with asyncio.timeout(SILENT_WITHIN):
                await self._interests.tell(wire)
                _settle(settling)
                reached = await wire.send(packets) if packets else ()
        except BaseException:
            self.lost += len(packets)
            raise
        finally:
            _settle(settling)
        for packet, somebody in zip(packets, reached, strict=True):
            if packet.question is not None and not somebody:
                self.when_nobody(packet.question)

    def _up(self, wire: Wire) -> None:
        self.wire, self.trouble = wire, None
        if self._told:
            log.info("broker.back", broker=self._where)
            self._told = False
        self.when_up()

    def _down(self) -> None:
        """Drop what waits to be sent: nobody knows what becomes of it."""
        self.lost += len(self._unsent)
        self._unsent = Unsent()
        self._at_rest.set()
        settling, self._settling = self._settling, []
        _settle(settling)
        if self.wire is not None:
            self.wire = None
            self.when_down()

    def _tell_away(self, reason: str) -> None:
        """Once an outage: attempts repeat every second."""
        self.trouble = reason
        if not self._told:
            log.warning("broker.away", broker=self._where, reason=reason)
        self._told = True


def _settle(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)


async def _close(wire: Wire) -> None:
    try:
        await wire.close()
    except Exception:  # the next connection must not depend on the end of this one
        log.exception("broker.not_closed")
