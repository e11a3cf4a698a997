"""Hints over signals alone, for brokers that keep nothing: they wait where they were offered, and
nodes that have room come for them.

A node tells all that it has some; who has room asks it for one, and gets it, or hears that others
were quicker. So a hint is taken once, and is gone with the node that has it, as with any broker's
memory.
"""

import asyncio
import secrets
from collections.abc import Callable

import structlog

from insula.jobs.jobs import Room, Take, check_word, is_word
from insula.jobs.queue import FairQueue
from insula.jobs.seldom import Seldom
from insula.jobs.signals import NoAnswer, Signals

ASKED_WITHIN = 2.0
"""Seconds that a node has to give a hint."""
_NODES_MAX = 1_000
_WANTED, _OFFERED = "hints.wanted", "hints.offered"

log = structlog.get_logger("insula.jobs")


class _Lane:
    """One kind of work: what waits here, and the nodes where some is said to wait."""

    def __init__(self) -> None:
        self.queue = FairQueue()
        self.offering: dict[str, None] = {}
        self.look = asyncio.Event()

    def heard(self, node: str) -> None:
        """Note that some waits at a node; too many nodes are no nodes."""
        if node in self.offering or len(self.offering) < _NODES_MAX:
            self.offering[node] = None
            self.look.set()


class PulledJobs:
    """A node's hints. Beyond 10,000 of a kind, or 1,000 of an owner, at a node they are dropped."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._name = secrets.token_hex(8)
        self._lanes: dict[str, _Lane] = {}
        self._ends: list[Callable[[], None]] = []
        self._seldom = Seldom()
        self._lost = 0
        self._closed = False

    async def open(self) -> None:
        """Begin to hear of hints, and to give them."""
        self._ends = [
            await self._signals.answer(f"hints.{self._name}", self._give),
            await self._signals.listen(_OFFERED, self._offered),
            await self._signals.listen(_WANTED, self._wanted),
        ]
        self._signals.on_return(self._returned)

    @property
    def connected(self) -> bool:
        """Whether hints reach other nodes, as far as is known."""
        return self._signals.connected and not self._closed

    @property
    def lost(self) -> int:
        """How many hints were dropped here since the start."""
        return self._lost

    async def offer(self, kind: str, owner: str, item: str) -> None:
        """Hint that an item waits; dropped where too many wait or the broker is away."""
        words = is_word(kind) and is_word(owner) and is_word(item)
        if not (words and self.connected and self._lane(kind).queue.offer(owner, item)):
            self._lost += 1
            log.debug("job.hint_lost", kind=kind[:50])
            return
        self._lane(kind).heard(self._name)
        self._tell(kind)

    async def work(self, kind: str, room: Room, take: Take) -> None:
        """Fetch hints of a kind while ``room()`` says so, nodes and owners in turn, for ever."""
        lane = self._lane(kind)
        self._signals.publish(_WANTED, kind.encode())
        while True:
            lane.look.clear()
            hint = await self._next(kind, lane) if room() else None
            if hint is None:
                await lane.look.wait()
            elif room():
                try:
                    await take(*hint)
                except Exception:
                    log.exception("job.take_failed", kind=kind, owner=hint[0], item=hint[1])
            else:  # it went while the hint was on its way: another node may have some
                await self.offer(kind, *hint)

    def wake(self, kind: str) -> None:
        """Say that there may be room again for hints of this kind."""
        self._lane(kind).look.set()

    async def close(self) -> None:
        """Give no more hints away."""
        self._closed = True
        for end in self._ends:
            end()

    def _lane(self, kind: str) -> _Lane:
        lane = self._lanes.get(kind)
        if lane is None:
            lane = self._lanes[check_word("kind", kind)] = _Lane()
        return lane

    async def _next(self, kind: str, lane: _Lane) -> tuple[str, str] | None:
        """Return a hint from wherever one waits; a node that has none is asked when it says so."""
        while lane.offering:
            node = next(iter(lane.offering))
            del lane.offering[node]
            if node == self._name:
                hint = _pop(lane.queue)
            else:
                hint = await self._fetch(kind, node)
            if hint is not None:
                lane.heard(node)
                return hint
        return None

    async def _fetch(self, kind: str, node: str) -> tuple[str, str] | None:
        try:
            answer = await self._signals.ask(f"hints.{node}", kind.encode(), ASKED_WITHIN)
        except NoAnswer:
            return None
        if not answer:
            return None
        owner, _, item = answer.decode("ascii", "replace").partition(" ")
        if is_word(owner) and is_word(item):
            return owner, item
        self._seldom.warn("job.unreadable", kind=kind)
        return None

    async def _give(self, body: bytes) -> bytes:
        """Answer whoever asks for a hint: its owner and item, or nothing."""
        lane = self._lanes.get(body[:200].decode("ascii", "replace"))
        hint = None if lane is None or self._closed else _pop(lane.queue)
        return b"" if hint is None else " ".join(hint).encode()

    def _offered(self, body: bytes) -> None:
        kind, _, node = body[:500].decode("ascii", "replace").partition(" ")
        lane = self._lanes.get(kind)
        if lane is not None and is_word(node):
            lane.heard(node)

    def _wanted(self, body: bytes) -> None:
        kind = body[:200].decode("ascii", "replace")
        lane = self._lanes.get(kind)
        if lane is not None and len(lane.queue):
            self._tell(kind)

    def _returned(self) -> None:
        """Say again what was said in vain, and ask who said something meanwhile."""
        for kind, lane in self._lanes.items():
            self._signals.publish(_WANTED, kind.encode())
            if len(lane.queue):
                self._tell(kind)

    def _tell(self, kind: str) -> None:
        self._signals.publish(_OFFERED, f"{kind} {self._name}".encode())


def _pop(queue: FairQueue) -> tuple[str, str] | None:
    """Take the next item out, with its owner."""
    owners: list[str] = []

    def anyone(owner: str) -> bool:
        owners[:] = [owner]
        return True

    item = queue.take(anyone)
    return None if item is None else (owners[0], item)
