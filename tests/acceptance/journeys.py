"""Workflows whose every unit of work calls the loopback once, so that repeats can be counted.

A unit's request ends in its name, ``RUN.STEP.INDEX``, where RUN is a number of the test's own.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from insula.engine.events import StepEnded, UnitEnded, UnitStarted, decode_events
from insula.kit import json
from tests.acceptance.harness import Caller
from tests.acceptance.loopback import Loopback

Step = dict[str, Any]
LOOPS = 12
SAID = {"role": "user", "content": "work"}


def _http(key: str, address: str, *destinations: str, **more: Any) -> Step:
    fields = {"type": "http_request", "key": key, "method": "GET", "url": address}
    return {**fields, "destinations": [*destinations], **more}


def _chain(url: str, keys: str, wait: int) -> list[Step]:
    """Requests one after another."""
    nexts = [*keys[1:], None]
    return [
        _http(key, f"{url}/slow/{wait}/{{{{input.n}}}}.{key}.", *([follows] if follows else []))
        for key, follows in zip(keys, nexts, strict=True)
    ]


def _code(url: str) -> list[Step]:
    def step(key: str, *destinations: str) -> Step:
        call = f"await fetch('{url}/slow/50/' + input.n + '.{key}.')"
        text = f"await util.sleep(80); return (await ({call}).json()).tag"
        return {"type": "code", "key": key, "code": text, "destinations": [*destinations]}

    return [step("a", "b"), step("b", "c"), step("c")]


def _loop(url: str) -> list[Step]:
    address = f"{url}/slow/60/{{{{input.n}}}}.each.{{{{index}}}}"
    return [_http("each", address, loop=f"index < {LOOPS} ? index : null")]


def _model(url: str) -> list[Step]:
    script = {"replies": [{"text": "word " * 40, "token_delay_ms": 15}]}
    asked = {"provider": "mock", "model": "m", "messages": [SAID], "mock": script}
    speaks = {"type": "model", "key": "speaks", "provider": asked, "destinations": ["after"]}
    return [speaks, _http("after", f"{url}/slow/50/{{{{input.n}}}}.after.")]


def _tool(url: str) -> list[Step]:
    calls = [{"tool_calls": [{"name": "look", "input": {"i": i}}]} for i in (1, 2, 3)]
    script = {"replies": [*calls, {"text": "done"}]}
    asked = {
        "provider": "mock",
        "model": "m",
        "messages": [SAID],
        "tools": ["look"],
        "mock": script,
    }
    asks = {"type": "model", "key": "asks", "provider": asked}
    return [asks, _http("look", f"{url}/slow/200/{{{{input.n}}}}.look.{{{{args.i}}}}")]


def _parent(child: str) -> list[Step]:
    given = {"n": "{{input.n}}"}
    return [{"type": "workflow", "key": "calls", "workflow_id": child, "input": given}]


UNITS: dict[str, tuple[str, ...]] = {
    "chain": ("a.", "b.", "c.", "d."),
    "code": ("a.", "b.", "c."),
    "loop": tuple(f"each.{i}" for i in range(LOOPS)),
    "model": ("after.",),
    "tool": tuple(f"look.{i}" for i in (1, 2, 3)),
    "child": ("x.", "y.", "z."),
    "hang": ("stuck.",),
}
"""The units of each kind of run, as they name themselves to the loopback."""


@dataclass(slots=True)
class Journey:
    """One run: its number, kind and id, and the units that its requests should show."""

    n: int
    kind: str
    path: str
    run_id: str = ""

    @property
    def units(self) -> list[str]:
        return [f"{self.n}.{unit}" for unit in UNITS[self.kind]]


@dataclass(slots=True)
class Journeys:
    """All runs of a test, and how to start and count them."""

    caller: Caller
    paths: dict[str, str]
    made: list[Journey] = field(default_factory=list)

    async def start(self, kind: str) -> Journey:
        """Start a run of this kind in the background."""
        journey = Journey(len(self.made), kind, self.paths[kind])
        self.made.append(journey)
        body = {"input": {"n": journey.n}, "background": True}
        journey.run_id = (await self.caller.ok("POST", journey.path, body))["id"]
        return journey

    def of(self, kind: str) -> list[Journey]:
        return [journey for journey in self.made if journey.kind == kind]


async def prepare(caller: Caller, url: str) -> Journeys:
    """Deploy a workflow of each kind."""
    child = await caller.push(_chain(url, "xyz", 120))
    documents = {
        "chain": _chain(url, "abcd", 150),
        "code": _code(url),
        "loop": _loop(url),
        "model": _model(url),
        "tool": _tool(url),
        "child": _parent(child),
        "hang": [_http("stuck", f"{url}/hang/{{{{input.n}}}}.stuck.")],
    }
    paths = {kind: f"workflows/{await caller.push(d)}/runs" for kind, d in documents.items()}
    return Journeys(caller, paths)


def requested(loopback: Loopback) -> Counter[str]:
    """Count the requests of each unit."""
    return Counter(arrival.tag for arrival in loopback.arrivals)


def keys_of(loopback: Loopback) -> dict[str, set[str | None]]:
    """Return the idempotency keys under which each unit's requests came."""
    keys: dict[str, set[str | None]] = {}
    for arrival in loopback.arrivals:
        keys.setdefault(arrival.tag, set()).add(arrival.key)
    return keys


@dataclass(frozen=True, slots=True)
class Remains:
    """What a dead process left on the disk."""

    live: set[str]
    finished: set[str]
    """The units that were stored as finished, of runs that had not ended."""


def examine(data: Path) -> Remains:
    """Read a database that nobody serves."""
    with sqlite3.connect(data / "insula.db") as connection:
        rows = connection.execute(
            "SELECT e.run_id, e.events, d.input FROM run_events e JOIN run_data d USING (run_id)"
            " JOIN runs r ON r.id = e.run_id WHERE r.ended_at IS NULL ORDER BY e.run_id, e.seq"
        ).fetchall()
        live = {row[0] for row in connection.execute("SELECT id FROM runs WHERE ended_at IS NULL")}
    connection.close()
    finished: set[str] = set()
    journals: dict[str, list[bytes]] = {}
    numbers: dict[str, int] = {}
    for run_id, events, given in rows:
        journals.setdefault(run_id, []).append(events)
        numbers[run_id] = int(json.decode(given)["n"])
    for run_id, pieces in journals.items():
        finished |= {f"{numbers[run_id]}.{unit}" for unit in _finished(pieces)}
    return Remains(live, finished)


def _finished(pieces: Iterable[bytes]) -> set[str]:
    tools: dict[str | None, str | None] = {}
    found = set()
    for event in (event for piece in pieces for event in decode_events(piece)):
        if isinstance(event, UnitStarted) and event.call is not None:
            tools[event.call] = event.tool
        elif isinstance(event, UnitEnded) and event.error is None and event.index is not None:
            found.add(f"{event.key}.{event.index}")
        elif isinstance(event, UnitEnded) and event.error is None and event.call is not None:
            output = json.decode(event.output or b"null")
            found.add(str(output["body"]["tag"]).partition(".")[2])
        elif isinstance(event, StepEnded) and event.status == "COMPLETED":
            found.add(f"{event.key}.")
    return found


def request_cancel(data: Path, run_ids: Iterable[str]) -> None:
    """Commit the first act of a cancel, as a process does that dies right after it."""
    with sqlite3.connect(data / "insula.db") as connection:
        connection.executemany(
            "UPDATE runs SET cancel_requested_at = created_at + 1, cancel_requested_by = 'key_test'"
            " WHERE id = ?",
            [(run_id,) for run_id in run_ids],
        )
    connection.close()
