"""Hints over signals alone, for brokers that keep nothing: they wait where they were offered, and
nodes that have room come for them.

A node tells all that it has some; who has room asks it for one, and gets it, or hears that others
were quicker. So a hint is taken once, and is gone with the node that has it, as with any broker's
memory.

Anyone may tell of hints, under any name. So a name is tried, beside everything else, until a hint
came from it; only those that gave one are waited for.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable

import structlog

from insula.jobs.jobs import Room, Take, check_word, is_word
from insula.jobs.queue import FairQueue
from insula.jobs.seldom import Seldom
from insula.jobs.signals import NoAnswer, Signals
from insula.jobs.tasks import Tasks

ASKED_WITHIN = 2.0
"""Seconds that a node has to give a hint."""
_NODES_MAX = 1_000
_TRIED_AT_ONCE = 4
_WANTED, _OFFERED = "hints.wanted", "hints.offered"

log = structlog.get_logger("insula.jobs")

Hint = tuple[str, str]
"""An owner and an item."""


class _Lane:
    """One kind of work: what waits here, and the nodes where some is said to wait."""

    def __init__(self, own: str) -> None:
        self.queue = FairQueue()
        self.offering: dict[str, None] = {}
        """Nodes that gave a hint before, in turn; this one is among them."""
        self.untried: dict[str, None] = {}
        """Names that nothing is known of."""
        self.trying: set[str] = set()
        self.missed = False
        """Whether some of those were forgotten."""
        self.found: deque[Hint] = deque()
        """What came from a name that was tried."""
        self.trials = Tasks(_TRIED_AT_ONCE)
        self.look = asyncio.Event()
        self._own = own
        self._giving: set[str] = set()

    def heard(self, node: str) -> None:
        """Note that some waits at a node. Of too many unknown ones the oldest are forgotten."""
        if node == self._own or node in self._giving:
            self.offering[node] = None
        else:
            self.untried[node] = None
            if len(self.untried) > _NODES_MAX:
                del self.untried[next(iter(self.untried))]
                self.missed = True
        self.look.set()

    def to_try(self) -> str | None:
        """Return the unknown one that was last heard of, and is not being asked already."""
        node = next((each for each in reversed(self.untried) if each not in self.trying), None)
        if node is not None:
            del self.untried[node]
            self.trying.add(node)
        return node

    def gave(self, node: str) -> None:
        """Note that a hint came from a node, where more may wait."""
        if len(self._giving) < _NODES_MAX:
            self._giving.add(node)
            self.untried.pop(node, None)
        self.heard(node)

    def failed(self, node: str) -> None:
        """Note that a node does not answer."""
        self._giving.discard(node)


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
            if room():
                self._try(kind, lane)
                hint = await self._next(kind, lane)
            else:
                hint = lane.found.popleft() if lane.found else None
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
        for lane in self._lanes.values():
            await lane.trials.close()

    def _lane(self, kind: str) -> _Lane:
        lane = self._lanes.get(kind)
        if lane is None:
            lane = self._lanes[check_word("kind", kind)] = _Lane(self._name)
        return lane

    def _try(self, kind: str, lane: _Lane) -> None:
        """Ask some of those of whom nothing is known, the last ones first: nobody waits for them,
        and whoever makes up many names can only have had them before."""
        while len(lane.trials) < _TRIED_AT_ONCE and (node := lane.to_try()) is not None:
            lane.trials.start(self._tried(kind, lane, node))
        if lane.missed and not lane.untried:
            lane.missed = False
            self._signals.publish(_WANTED, kind.encode())

    async def _tried(self, kind: str, lane: _Lane, node: str) -> None:
        try:
            hint = await self._fetch(kind, lane, node)
            if hint is not None:
                lane.found.append(hint)
                lane.gave(node)
        finally:
            lane.trying.discard(node)
            # In a later turn, when this trial is no more among those under way.
            asyncio.get_running_loop().call_soon(lane.look.set)

    async def _next(self, kind: str, lane: _Lane) -> Hint | None:
        """Return a hint from wherever one waits; a node that has none is asked when it says so."""
        while lane.offering and not lane.found:
            node = next(iter(lane.offering))
            del lane.offering[node]
            if node == self._name:
                hint = _pop(lane.queue)
            else:
                hint = await self._fetch(kind, lane, node)
            if hint is not None:
                lane.gave(node)
                return hint
        return lane.found.popleft() if lane.found else None

    async def _fetch(self, kind: str, lane: _Lane, node: str) -> Hint | None:
        try:
            answer = await self._signals.ask(f"hints.{node}", kind.encode(), ASKED_WITHIN)
        except NoAnswer:
            lane.failed(node)
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


def _pop(queue: FairQueue) -> Hint | None:
    """Take the next item out, with its owner."""
    owners: list[str] = []

    def anyone(owner: str) -> bool:
        owners[:] = [owner]
        return True

    item = queue.take(anyone)
    return None if item is None else (owners[0], item)
