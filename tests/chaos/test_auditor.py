"""Every rule of the auditor finds what is planted for it, and nothing where nothing is wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from insula.engine.events import (
    Event,
    RunEnded,
    RunStarted,
    StepEnded,
    StepStarted,
    UnitEnded,
    UnitStarted,
)
from tests.acceptance.loopback import Arrival
from tests.chaos.auditor import RULES, audit, looked_at
from tests.chaos.evidence import Evidence, StoredRun, Unit, counted, named
from tests.chaos.history import Claimed, Heard, History, Kept, Listening, Stopped, Told

Change = Callable[[Evidence], None]

LOOP: tuple[Event, ...] = (
    RunStarted(1),
    StepStarted(1, "each", "http_request", looped=True),
    UnitStarted(1, "each", 1, index=0),
    UnitStarted(2, "each", 2, index=0),
    UnitEnded(3, "each", index=0),
    StepEnded(4, "each", "COMPLETED"),
    RunEnded(5, "COMPLETED"),
)
STOPPED: tuple[Event, ...] = (
    RunStarted(1),
    StepStarted(1, "asks", "http_request", attempt=1),
    StepEnded(4, "asks", "CANCELLED"),
    RunEnded(5, "CANCELLED"),
)


def stored(run_id: str, status: str, events: tuple[Event, ...], **more: Any) -> StoredRun:
    fields: dict[str, Any] = {
        "app_id": "app",
        "workflow_id": "work",
        "parent_id": None,
        "hidden": False,
        "replay_of": None,
        "origin": "ENDPOINT",
        "error": None,
        "cancel_requested_at": None,
        "ended_at": 5,
        "tag": f"tag of {run_id}",
    }
    return StoredRun(id=run_id, status=status, seq=len(events), events=events, **fields | more)


def arrival(unit: Unit, at: float, number: int = 1) -> Arrival:
    path = f"/slow/{unit.run_id}.{unit.key}.{unit.address[0]}.{number}"
    return Arrival(at, "GET", path, "", unit.effect(number), {"host": "a"}, b"")


def of_code(unit: Unit, at: float, number: int = 1) -> Arrival:
    """Make an arrival of what code asked: its key tells what that was."""
    one = arrival(unit, at)
    return replace(one, key=unit.effect(number, named(one)))


SAID = {"message": "three"}
EACH = Unit("loop", "each", (0, None, None))
ASKS = Unit("stopped", "asks")
BELOW = Unit("child", "asks")


def heard(number: int, name: str, data: dict[str, Any]) -> Heard:
    return Heard(float(number), "loop", number, name, data)


def stream() -> Listening:
    done = {"key": "each", "status": "COMPLETED", "output": {"message": "one two"}}
    final = {"id": "loop", "status": "COMPLETED", "output": {"each": done}}
    events = [
        heard(1, "run", {"id": "loop", "status": "RUNNING"}),
        heard(2, "step", {"key": "each", "status": "RUNNING"}),
        heard(3, "chunk", {"key": "each", "output": {"message": "o"}}),
        heard(
            4, "step", {"key": "each", "status": "RUNNING"}
        ),  # begun again: what was said is void
        heard(5, "chunk", {"key": "each", "output": {"message": "one "}}),
        heard(6, "chunk", {"key": "each", "output": {"message": "two"}}),
        heard(7, "step", done),
        heard(8, "run", final),
    ]
    return Listening("loop", events, ended=True, read=final)


@pytest.fixture
def sound() -> Evidence:
    """A run of a loop that was interrupted once, and one with a child that was cancelled."""
    runs = [
        stored("loop", "COMPLETED", LOOP),
        stored("stopped", "CANCELLED", STOPPED, cancel_requested_at=3),
        stored("child", "CANCELLED", STOPPED, parent_id="stopped", origin="WORKFLOW"),
    ]
    told = [
        Told(0.5, 1.0, "loop", "RUNNING"),
        Told(5.0, 6.0, "loop", "COMPLETED"),
        Told(2.0, 3.0, "stopped", "CANCELLED"),
    ]
    history = History(
        0,
        told=told,
        streams=[stream()],
        claimed=[Claimed(1.0, "key", "loop"), Claimed(2.0, "key", "loop")],
        stopped=[Stopped(3.0, "stopped", frozenset({"asks"}))],
        kept=[Kept(1.0, "file", "digest")],
    )
    arrivals = [arrival(EACH, 1.0), arrival(EACH, 2.0), arrival(ASKS, 2.0), arrival(BELOW, 2.5)]
    return Evidence(
        histories=[history],
        arrivals=arrivals,
        runs={run.id: run for run in runs},
        counters=counted(runs),
        files={"file": "digest"},
    )


def row(run_id: str, **more: Any) -> Change:
    """Change a stored run; the counters follow."""

    def change(evidence: Evidence) -> None:
        evidence.runs[run_id] = replace(evidence.runs[run_id], **more)
        evidence.counters = counted(evidence.runs.values())

    return change


def journal(run_id: str, *events: Event) -> Change:
    """Put events before the last one of a run."""

    def change(evidence: Evidence) -> None:
        old = evidence.runs[run_id].events
        row(run_id, events=(*old[:-1], *events, old[-1]), seq=len(old) + len(events))(evidence)

    return change


def told(*more: Told) -> Change:
    return lambda evidence: evidence.histories[0].told.extend(more)


def arrives(*more: Arrival) -> Change:
    def change(evidence: Evidence) -> None:
        evidence.arrivals = [*evidence.arrivals, *more]

    return change


def streamed(change: Callable[[Listening], None]) -> Change:
    return lambda evidence: change(evidence.histories[0].streams[0])


def _cut(listening: Listening) -> None:
    listening.events.pop()
    listening.ended = False


def _lapses(evidence: Evidence) -> None:
    evidence.lapses = True
    arrives(arrival(ASKS, 4.0))(evidence)
    # Another attempt, by whoever was taken for dead.
    journal("stopped", UnitStarted(2, "asks", 2))(evidence)


def _twice_late(evidence: Evidence) -> None:
    evidence.lapses = True
    attempts = [UnitStarted(2, "asks", 2), UnitStarted(2, "asks", 3)]
    old = evidence.runs["stopped"].events
    row("stopped", events=(*old[:2], *attempts, *old[2:]), seq=len(old) + 2)(evidence)
    arrives(arrival(ASKS, 4.0), arrival(ASKS, 5.0))(evidence)


def _another_run_of_the_tag(evidence: Evidence) -> None:
    evidence.runs["twin"] = replace(evidence.runs["loop"], id="twin")
    evidence.counters = counted(evidence.runs.values())


def _replays(evidence: Evidence) -> None:
    """One was asked for, whose answer was lost; it was asked for again, and there are two."""
    path = "workflows/work/runs/loop/replay"
    evidence.histories[0].claimed.append(Claimed(7.0, f"{path} again", "one"))
    for run_id in ("one", "two"):
        found = replace(evidence.runs["loop"], id=run_id, replay_of="loop", events=LOOP)
        evidence.runs[run_id] = found
    evidence.counters = counted(evidence.runs.values())


def _begun_once(evidence: Evidence) -> None:
    evidence.lapses = True
    row("loop", events=(*LOOP[:3], *LOOP[4:]), seq=len(LOOP) - 1)(evidence)
    arrives(arrival(EACH, 7.0))(evidence)


def _late_twice(evidence: Evidence) -> None:
    evidence.lapses = True
    arrives(arrival(EACH, 7.0), arrival(EACH, 8.0))(evidence)


def _never_asked(evidence: Evidence) -> None:
    events = (*LOOP[:1], StepStarted(1, "once", "http_request", attempt=1))
    ended = (StepEnded(4, "once", "COMPLETED"), LOOP[-1])
    row("loop", events=(*events, *ended), seq=4)(evidence)


def _speaks_on(heard: Listening) -> None:
    late = replace(heard.events[5], number=8)
    heard.events[7:] = [late, replace(heard.events[7], number=9)]


PLANTED: list[tuple[str, Change]] = [
    ("ends_once", row("loop", status="RUNNING", ended_at=None)),
    ("ends_once", row("loop", ended_at=None)),
    ("ends_once", row("loop", events=LOOP[:-1], seq=len(LOOP) - 1)),
    ("ends_once", journal("loop", RunEnded(4, "COMPLETED"))),
    ("ends_once", row("loop", events=(*LOOP, RunStarted(9)), seq=len(LOOP) + 1)),
    ("ends_once", row("loop", status="SKIPPED")),
    ("ends_once", row("loop", seq=99)),
    ("ends_as_it_should", row("stopped", cancel_requested_at=None)),
    ("ends_as_it_should", row("loop", status="FAILED", error="Out of luck")),
    ("ends_as_it_should", row("loop", status="FAILED", error=None)),
    ("told_is_stored", told(Told(6, 7, "gone", "RUNNING"))),
    ("told_is_stored", told(Told(6, 7, "loop", "CANCELLED"))),
    ("given_is_stored", row("loop", tag="")),
    ("given_is_stored", lambda evidence: setattr(evidence, "files", {})),
    ("given_is_stored", lambda evidence: setattr(evidence, "files", {"file": "other"})),
    ("told_stays", told(Told(7, 8, "loop", "RUNNING"))),
    ("told_stays", told(Told(7, 8, "loop", "PENDING"))),
    (
        "one_run_a_request",
        lambda evidence: evidence.histories[0].claimed.append(Claimed(3.0, "key", "stopped")),
    ),
    ("one_run_a_request", _another_run_of_the_tag),
    ("one_run_a_request", _replays),
    ("effects_are_attempts", arrives(arrival(EACH, 3.0))),
    ("effects_are_attempts", arrives(arrival(Unit("loop", "never"), 3.0))),
    ("effects_are_attempts", arrives(replace(arrival(EACH, 3.0), key=None))),
    ("effects_are_attempts", arrives(replace(arrival(EACH, 3.0), path="/another"))),
    ("effects_happened", lambda evidence: setattr(evidence, "arrivals", evidence.arrivals[2:])),
    ("effects_happened", _never_asked),
    ("effects_happened", journal("loop", UnitEnded(4, "each", index=2))),
    ("finished_is_not_repeated", journal("loop", UnitStarted(4, "each", 3, index=0))),
    ("finished_is_not_repeated", journal("loop", StepStarted(4, "each", "http_request"))),
    ("finished_is_not_repeated", journal("stopped", UnitStarted(4, "asks", 2))),
    ("cancelled_is_still", arrives(arrival(ASKS, 4.0))),
    ("cancelled_is_still", arrives(arrival(BELOW, 4.0))),
    ("cancelled_is_still", _twice_late),
    ("completed_is_still", arrives(arrival(EACH, 7.0))),
    ("completed_is_still", _begun_once),
    ("completed_is_still", _late_twice),
    ("streams_are_whole", streamed(lambda heard: heard.events.__delitem__(2))),
    ("streams_are_whole", streamed(lambda heard: heard.events.reverse())),
    ("streams_are_whole", streamed(lambda heard: heard.events.insert(2, heard.events[1]))),
    ("streams_are_whole", streamed(_cut)),
    ("streams_are_whole", streamed(lambda heard: setattr(heard, "read", {"status": "FAILED"}))),
    ("streams_are_whole", streamed(lambda heard: setattr(heard, "read", None))),
    ("streams_are_whole", streamed(lambda heard: setattr(heard, "run_id", "gone"))),
    ("streams_are_whole", streamed(lambda heard: heard.events[5].data.update(output=SAID))),
    ("streams_are_whole", streamed(_speaks_on)),
    ("streams_are_whole", row("loop", status="FAILED")),
    ("counters_are_right", lambda evidence: evidence.counters.clear()),
    (
        "counters_are_right",
        lambda evidence: evidence.counters.update({("app", "work", "RUNNING", "ENDPOINT"): 1}),
    ),
    ("nobody_was_told_nonsense", lambda evidence: evidence.histories[0].odd.append("500")),
    ("nothing_is_left", lambda evidence: setattr(evidence, "leftovers", ["a process"])),
]


def test_sound_evidence_is_sound(sound: Evidence) -> None:
    assert audit(sound) == []


@pytest.mark.parametrize(("rule", "plant"), PLANTED)
def test_what_is_planted_is_found(sound: Evidence, rule: str, plant: Change) -> None:
    plant(sound)
    assert rule in {found.partition(":")[0] for found in audit(sound)}


def test_what_code_asked_belongs_to_its_attempts(sound: Evidence) -> None:
    arrives(of_code(ASKS, 2.5))(sound)
    assert audit(sound) == []
    arrives(of_code(ASKS, 2.6))(sound)
    assert {found.partition(":")[0] for found in audit(sound)} == {"effects_are_attempts"}


def test_something_is_planted_for_every_rule() -> None:
    assert {rule for rule, _ in PLANTED} == {rule.__name__ for rule in RULES}


def test_the_request_of_a_lapsed_owner_is_excused_once(sound: Evidence) -> None:
    _lapses(sound)
    assert not [found for found in audit(sound) if found.startswith("cancelled_is_still")]


def test_the_request_of_a_lapsed_owner_may_come_after_the_end_once(sound: Evidence) -> None:
    sound.lapses = True
    arrives(arrival(EACH, 7.0))(sound)
    assert not [found for found in audit(sound) if found.startswith("completed_is_still")]


def test_a_replay_that_was_asked_for_is_one(sound: Evidence) -> None:
    _replays(sound)
    del sound.runs["two"]
    assert not [found for found in audit(sound) if found.startswith("one_run_a_request")]


def test_what_a_replay_keeps_was_asked_for_elsewhere(sound: Evidence) -> None:
    kept = (StepStarted(1, "kept", "http_request"), StepEnded(1, "kept", "COMPLETED"))
    row("loop", events=(*kept, *LOOP), seq=len(LOOP) + 2, replay_of="other")(sound)
    assert not [found for found in audit(sound) if found.startswith("effects_happened")]


def test_a_rule_that_had_nothing_to_judge_is_seen(sound: Evidence) -> None:
    assert looked_at(sound)["streams"] == 1
    assert set(looked_at(Evidence()).values()) == {0}


def test_what_may_fail_may_fail(sound: Evidence) -> None:
    row("loop", status="FAILED", error="The database was away for 30 s")(sound)
    sound.failures = ("The database was away",)
    assert not [found for found in audit(sound) if found.startswith("ends_as_it_should")]


def test_what_was_asked_before_the_end_was_told_may_be_older(sound: Evidence) -> None:
    told(Told(5.5, 8.0, "loop", "RUNNING"))(sound)
    assert audit(sound) == []
