"""What clients were told, and when: the testimony that the auditor holds against what is stored.

Times are CLOCK_MONOTONIC, the same for all processes of a machine.
"""

from dataclasses import dataclass, field
from typing import Any

FINAL = frozenset(("COMPLETED", "FAILED", "CANCELLED", "SKIPPED"))


@dataclass(frozen=True, slots=True)
class Told:
    """An answer told a run's status; ``asked`` is when the request was sent."""

    asked: float
    at: float
    run_id: str
    status: str


@dataclass(frozen=True, slots=True)
class Heard:
    """One event of a stream. ``final`` is what ``data`` holds of a run, else empty."""

    at: float
    run_id: str
    number: int
    name: str
    data: Any


@dataclass(slots=True)
class Listening:
    """A stream as one client has heard it, through all its connections, and the run as it was read
    after the end.
    """

    run_id: str
    events: list[Heard] = field(default_factory=list)
    ended: bool = False
    read: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A request under an idempotency key was answered with this run."""

    at: float
    key: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """A cancel was answered with CANCELLED; ``at`` is later than all that had been sent by then.

    ``uncertain`` are the steps whose effect may have happened, as the receipt says.
    """

    at: float
    run_id: str
    uncertain: frozenset[str]


@dataclass(frozen=True, slots=True)
class Kept:
    """A file was stored, with this content's digest."""

    at: float
    file_id: str
    digest: str


@dataclass(slots=True)
class History:
    """All that one client was told. ``odd`` are answers that nobody should ever get."""

    client: int
    told: list[Told] = field(default_factory=list)
    streams: list[Listening] = field(default_factory=list)
    claimed: list[Claimed] = field(default_factory=list)
    stopped: list[Stopped] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
