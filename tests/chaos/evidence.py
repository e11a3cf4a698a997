"""What the auditor looks at: what clients were told, what arrived, what stands in the database, and
what is left of the processes.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from insula.engine.events import Event, StepStarted, UnitStarted, decode_events
from insula.journal.store import expand
from insula.kit import json
from tests.acceptance.loopback import Arrival
from tests.chaos.history import History

EFFECTS = 3
"""Requests that one attempt makes, at most."""

Address = tuple[int | None, int | None, str | None]
Cell = tuple[str, str, str, str]
"""An app, a workflow, a status and an origin: what a counter counts."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as it stands in the database, with its journal."""

    id: str
    app_id: str
    workflow_id: str
    parent_id: str | None
    hidden: bool
    replay_of: str | None
    status: str
    origin: str
    error: str | None
    seq: int
    cancel_requested_at: int | None
    ended_at: int | None
    tag: str = ""
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Unit:
    """What is tried at least once: a step of a run, or a part of it."""

    run_id: str
    key: str
    address: Address = (None, None, None)

    def effect(self, number: int, *name: str) -> str:
        """Return the idempotency key of this unit's request of this number, the same for ever; of
        a request of code its ``name`` counts too."""
        parts = (self.run_id, self.key, *self.address, number, *name)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:40]


def named(arrival: Arrival) -> str:
    """Return what code's request is told apart by: method, URL and body."""
    url = f"http://{arrival.headers['host']}{arrival.path}"
    asked = f"{arrival.method} {url}\n".encode() + arrival.body
    return hashlib.sha256(asked).hexdigest()[:32]


@dataclass(slots=True)
class Evidence:
    """All of it. ``lapses``: an owner may be declared dead while it lives, as among several nodes.

    ``failures`` are the beginnings of errors with which a run may fail in such a time. ``files``
    are digests of what stands in blob storage, of those that have a row.
    """

    histories: Sequence[History] = ()
    arrivals: Sequence[Arrival] = ()
    runs: dict[str, StoredRun] = field(default_factory=dict)
    counters: dict[Cell, int] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    leftovers: Sequence[str] = ()
    lapses: bool = False
    failures: tuple[str, ...] = ()

    def attempts(self) -> Counter[Unit]:
        """Count how often each unit was begun, as the journals say."""
        counted: Counter[Unit] = Counter()
        for run in self.runs.values():
            for event in run.events:
                if isinstance(event, UnitStarted):
                    address = (event.index, event.round, event.call)
                    counted[Unit(run.id, event.key, address)] += 1
                elif isinstance(event, StepStarted) and event.attempt:
                    counted[Unit(run.id, event.key)] += 1
        return counted

    def effects(self) -> dict[str, Unit]:
        """Return the units by the idempotency keys of their effects."""
        units = self.attempts()
        found = {unit.effect(n): unit for unit in units for n in range(1, EFFECTS + 1)}
        # The others are of code, in whose paths the steps stand.
        for arrival in [one for one in self.arrivals if one.key not in found]:
            name = named(arrival)
            asking = (unit for unit in units if f".{unit.key}" in arrival.path)
            found |= {unit.effect(n, name): unit for unit in asking for n in range(1, EFFECTS + 1)}
        return found

    def line(self, run_id: str) -> list[str]:
        """Return a run and those above it."""
        found = []
        above: str | None = run_id
        while above is not None and above in self.runs:
            found.append(above)
            above = self.runs[above].parent_id
        return found


_COLUMNS = (
    "id, app_id, workflow_id, parent_id, hidden, replay_of, status, origin, error, seq,"
    " cancel_requested_at, ended_at"
)


class Reading(Protocol):
    """A connection of either driver."""

    def execute(self, query: Any, /) -> Any:
        """Run a query; return its cursor."""


def read_runs(connection: Reading) -> dict[str, StoredRun]:
    """Read every run with its journal, wherever that stands."""
    pieces: dict[str, list[Event]] = {}
    for run_id, events in connection.execute(
        "SELECT run_id, events FROM run_events ORDER BY run_id, seq"
    ):
        pieces.setdefault(run_id, []).extend(decode_events(bytes(events)))
    tags: dict[str, str] = {}
    for run_id, given, journal in connection.execute("SELECT run_id, input, events FROM run_data"):
        tags[run_id] = "" if given is None else str(json.decode(bytes(given)).get("n", ""))
        if journal is not None:
            pieces[run_id] = decode_events(expand(bytes(journal)))
    rows = connection.execute(f"SELECT {_COLUMNS} FROM runs ORDER BY id").fetchall()
    runs = {}
    for row in rows:
        values = [*row, tags.get(row[0], ""), tuple(pieces.get(row[0], ()))]
        runs[str(row[0])] = StoredRun(*values)
    return runs


def read_live(connection: Reading) -> list[str]:
    """Read which runs have not ended, children too."""
    query = "SELECT id FROM runs WHERE ended_at IS NULL ORDER BY id"
    return [run_id for (run_id,) in connection.execute(query)]


def read_files(connection: Reading, folders: Iterable[Path]) -> dict[str, str]:
    """Read the digests of the files that have a row, from whichever node's folder has the bytes."""
    known = [file_id for (file_id,) in connection.execute("SELECT id FROM files")]
    found = {}
    for folder in folders:
        for file_id in known:
            place = blob(folder, file_id)
            if place.exists():
                found[file_id] = hashlib.sha256(place.read_bytes()).hexdigest()
    return found


def blob(folder: Path, file_id: str) -> Path:
    """Return where a file's bytes stand in a data folder."""
    return folder / "files" / file_id[-2:].lower() / file_id


def read_counters(connection: Reading) -> dict[Cell, int]:
    """Read the counters, zeros left out."""
    rows = connection.execute(
        "SELECT app_id, workflow_id, status, origin, SUM(count) FROM counters"
        " WHERE status IN ('PENDING', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED', 'SKIPPED')"
        " GROUP BY app_id, workflow_id, status, origin"
    )
    return {tuple(row[:4]): int(row[4]) for row in rows if row[4]}


def counted(runs: Iterable[StoredRun]) -> dict[Cell, int]:
    """Count runs as the counters should."""
    return dict(
        Counter(
            (run.app_id, run.workflow_id, run.status, run.origin) for run in runs if not run.hidden
        )
    )
