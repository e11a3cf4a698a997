"""Who may have a worker next: a share for each app, reserved places for conditions, the fairest
first. Pure bookkeeping, without processes.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from insula.adapters.sandbox.process import Worker
from insula.engine.ports import Lane


@dataclass(slots=True, eq=False)
class Ticket:
    """An evaluation that waits for a worker."""

    app_id: str
    worker_of: tuple[str, str]
    lane: Lane
    condition: bool
    granted: asyncio.Future[Worker]
    order: int = 0
    queued: bool = False


@dataclass(slots=True)
class _Line:
    ordinary: deque[Ticket] = field(default_factory=deque)
    conditions: deque[Ticket] = field(default_factory=deque)


class Shares:
    """Places in use and tickets that wait for one.

    Ordinary evaluations may hold all places but the reserved ones, and an app its share of them;
    conditions may hold every place, and an app as many more as are reserved.
    """

    def __init__(self, maximum: int, app_share: float, reserved: int) -> None:
        self.maximum = max(1, maximum)
        self.reserved = max(0, min(reserved, self.maximum - 1))
        self.share = max(1, min(int(self.maximum * app_share), self.maximum - self.reserved))
        self.busy = 0
        self.waiting = 0
        self._ordinary = 0
        self._apps: Counter[str] = Counter()
        self._lines: dict[str, _Line] = {}
        self._order = count()

    def admits(self, app_id: str, condition: bool) -> bool:
        """Say whether an evaluation of this app may hold one more place."""
        if condition:
            return self.busy < self.maximum and self._apps[app_id] < self.share + self.reserved
        return (
            self._ordinary < self.maximum - self.reserved and self._apps[app_id] < self.share
        ) and self.busy < self.maximum

    def enter(self, app_id: str, condition: bool) -> None:
        """Count one more place as held."""
        self.busy += 1
        self._ordinary += not condition
        self._apps[app_id] += 1

    def leave(self, app_id: str, condition: bool) -> None:
        """Give a place back."""
        self.busy -= 1
        self._ordinary -= not condition
        self._apps[app_id] -= 1
        if self._apps[app_id] == 0:
            del self._apps[app_id]

    def wait(self, ticket: Ticket) -> None:
        """Put a ticket at the end of its app's line."""
        ticket.order = next(self._order)
        ticket.queued = True
        line = self._lines.setdefault(ticket.app_id, _Line())
        (line.conditions if ticket.condition else line.ordinary).append(ticket)
        self.waiting += 1

    def withdraw(self, ticket: Ticket) -> None:
        """Take a ticket out of its line: granted, refused or cancelled, whatever came first."""
        if not ticket.queued:
            return
        ticket.queued = False
        line = self._lines[ticket.app_id]
        tickets = line.conditions if ticket.condition else line.ordinary
        tickets.remove(ticket)
        self.waiting -= 1
        if not line.conditions and not line.ordinary:
            del self._lines[ticket.app_id]

    def tickets(self) -> list[Ticket]:
        """Return all that wait."""
        return [
            ticket for line in self._lines.values() for ticket in (*line.conditions, *line.ordinary)
        ]

    def next(self, possible: Callable[[Ticket], bool]) -> Ticket | None:
        """Return the fairest ticket that is admitted and ``possible``.

        The app with the fewest places comes first, then who has waited longest.
        """
        best: tuple[int, int, Ticket] | None = None
        for app_id, line in self._lines.items():
            for tickets, condition in ((line.conditions, True), (line.ordinary, False)):
                if not tickets or not self.admits(app_id, condition):
                    continue
                ticket = tickets[0]
                key = (self._apps[app_id], ticket.order, ticket)
                if (best is None or key[:2] < best[:2]) and possible(ticket):
                    best = key
        return best[2] if best else None

    def wanted(self, lane: Lane) -> int:
        """Return how many more workers of a lane those that wait could use now."""
        total = 0
        for app_id, line in self._lines.items():
            room = self.share + self.reserved - self._apps[app_id]
            for tickets, condition in ((line.conditions, True), (line.ordinary, False)):
                if tickets and self.admits(app_id, condition) and tickets[0].lane == lane:
                    total += min(len(tickets), max(0, room))
        return min(total, self.maximum - self.busy)
