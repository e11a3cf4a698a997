"""The auditor: holds what clients were told and what arrived against what is stored, and names
everything that must not be. A pure function of its evidence.
"""

from collections import Counter
from collections.abc import Callable, Iterator

from insula.engine.events import RunEnded, StepEnded, StepStarted, UnitEnded, UnitStarted
from tests.chaos.evidence import Address, Evidence, StoredRun, counted
from tests.chaos.history import FINAL, Listening

Rule = Callable[[Evidence], Iterator[str]]


def audit(evidence: Evidence) -> list[str]:
    """Return every violation, each with the name of its rule."""
    return [f"{rule.__name__}: {found}" for rule in RULES for found in rule(evidence)]


def ends_once(evidence: Evidence) -> Iterator[str]:
    """Every run is terminal, by one last event that says what its row says; no event is missing."""
    for run in evidence.runs.values():
        if run.status not in FINAL or run.ended_at is None:
            yield f"{run.id} is {run.status}, and nobody works on it"
            continue
        ends = [event for event in run.events if isinstance(event, RunEnded)]
        if len(ends) != 1 or ends[0] is not run.events[-1] or ends[0].status != run.status:
            yield f"{run.id} is {run.status}, its journal ends {[end.status for end in ends]}"
        if run.seq != len(run.events):
            yield f"{run.id} has {len(run.events)} events and counts {run.seq}"


def ends_as_it_should(evidence: Evidence) -> Iterator[str]:
    """CANCELLED is what was cancelled; nothing fails that has no reason to."""
    for run in evidence.runs.values():
        asked = any(
            evidence.runs[above].cancel_requested_at is not None for above in evidence.line(run.id)
        )
        if run.status == "CANCELLED" and not asked:
            yield f"{run.id} is CANCELLED, and nobody asked"
        if run.status == "FAILED" and not (run.error or "").startswith(evidence.failures or "\0"):
            yield f"{run.id} FAILED: {run.error}"


def told_is_stored(evidence: Evidence) -> Iterator[str]:
    """What was told exists, and a terminal status that was told is the one that is stored."""
    for history in evidence.histories:
        for told in history.told:
            run = evidence.runs.get(told.run_id)
            if run is None:
                yield f"{told.run_id} was told {told.status} and does not exist"
            elif told.status in FINAL and told.status != run.status:
                yield f"{told.run_id} was told {told.status} and is {run.status}"


def told_stays(evidence: Evidence) -> Iterator[str]:
    """Who asks after a terminal status was told, whomever, is told it too."""
    ended: dict[str, float] = {}
    for history in evidence.histories:
        for told in history.told:
            if told.status in FINAL:
                ended[told.run_id] = min(told.at, ended.get(told.run_id, told.at))
    for history in evidence.histories:
        for told in history.told:
            if told.status not in FINAL and told.asked > ended.get(told.run_id, told.asked):
                yield f"{told.run_id} was told {told.status} after it had been told its end"


def one_run_a_request(evidence: Evidence) -> Iterator[str]:
    """One idempotency key is one run, and no request was carried out twice."""
    claimed: dict[tuple[int, str], set[str]] = {}
    for history in evidence.histories:
        for claim in history.claimed:
            claimed.setdefault((history.client, claim.key), set()).add(claim.run_id)
    for (client, key), run_ids in claimed.items():
        if len(run_ids) > 1:
            yield f"client {client}'s {key} made {sorted(run_ids)}"
    roots = Counter(
        run.tag for run in evidence.runs.values() if run.parent_id is None and run.replay_of is None
    )
    for tag, count in roots.items():
        if count > 1:
            yield f"{tag} was asked for once and stands {count} times"


def effects_are_attempts(evidence: Evidence) -> Iterator[str]:
    """No request arrived before its attempt was stored, nor more often than there were attempts."""
    effects, attempts = evidence.effects(), evidence.attempts()
    arrived = Counter((arrival.key, arrival.path) for arrival in evidence.arrivals)
    for (key, path), count in arrived.items():
        unit = effects.get(key or "")
        if unit is None:
            yield f"{path} arrived, and no journal knows of it"
        elif count > attempts[unit]:
            yield f"{path} arrived {count} times in {attempts[unit]} attempts of {unit}"
    keys = Counter(key for key, _ in arrived)
    for key, count in keys.items():
        if count > 1:
            yield f"{key} came with {count} different requests"


def finished_is_not_repeated(evidence: Evidence) -> Iterator[str]:
    """Nothing begins again that has ended."""
    for run in evidence.runs.values():
        yield from _repeated(run)


def _repeated(run: StoredRun) -> Iterator[str]:
    units: set[tuple[str, Address]] = set()
    steps: set[str] = set()
    for event in run.events:
        match event:
            case UnitEnded():
                if not event.again:
                    units.add((event.key, (event.index, event.round, event.call)))
            case UnitStarted():
                address = (event.index, event.round, event.call)
                if event.key in steps or (event.key, address) in units:
                    yield f"{run.id} {event.key} {address} began again after its end"
            case StepEnded():
                steps.add(event.key)
            case StepStarted():
                if event.key in steps:
                    yield f"{run.id} {event.key} began again after its end"


def cancelled_is_still(evidence: Evidence) -> Iterator[str]:
    """After a cancel was answered nothing of the run arrives.

    Where an owner may have lapsed: one request of each step that the receipt calls uncertain.
    """
    effects = evidence.effects()
    stopped = {stop.run_id: stop for history in evidence.histories for stop in history.stopped}
    late: Counter[tuple[str, str]] = Counter()
    for arrival in evidence.arrivals:
        unit = effects.get(arrival.key or "")
        for run_id in evidence.line(unit.run_id) if unit is not None else ():
            stop = stopped.get(run_id)
            if stop is None or unit is None or arrival.at <= stop.at:
                continue
            late[run_id, unit.key] += 1
            excused = evidence.lapses and (unit.key in stop.uncertain or run_id != unit.run_id)
            if not excused or late[run_id, unit.key] > 1:
                after = f"{arrival.at - stop.at:.3f} s after"
                yield f"{run_id}: {arrival.path} arrived {after} its cancel was answered"


def streams_are_whole(evidence: Evidence) -> Iterator[str]:
    """Numbers from 1 on without a gap, each step begun before it speaks, the end as it is read."""
    for history in evidence.histories:
        for stream in history.streams:
            for found in _broken(stream):
                yield f"{stream.run_id}: {found}"


def _broken(stream: Listening) -> Iterator[str]:
    events = stream.events
    numbers = [event.number for event in events]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the numbers are {numbers}"
    if not stream.ended:
        yield "it never came to its end"
        return
    names = [event.name for event in events]
    if names[0] != "run" or names[-1] != "run" or names.count("run") != 2:
        yield f"the events are {names}"
    if events[0].data.get("status") != "RUNNING":
        yield f"it began with {events[0].data}"
    if stream.read is not None and events[-1].data != stream.read:
        yield "the final event is not the run as it is read"
    told: dict[str, object] = {}
    for event in events:
        if event.name == "chunk" and event.data["key"] not in told:
            yield f"{event.data['key']} speaks before it has begun"
        elif event.name == "step":
            told[event.data["key"]] = event.data
    if names[-1] == "run" and told != events[-1].data.get("output"):
        yield "the last events of the steps are not its output"


def counters_are_right(evidence: Evidence) -> Iterator[str]:
    """The counters equal the rows."""
    rows = counted(evidence.runs.values())
    for cell in sorted(rows.keys() | evidence.counters.keys()):
        if rows.get(cell, 0) != evidence.counters.get(cell, 0):
            yield f"{cell}: {rows.get(cell, 0)} rows, counted {evidence.counters.get(cell, 0)}"


def nobody_was_told_nonsense(evidence: Evidence) -> Iterator[str]:
    """No answer came that no caller should get."""
    for history in evidence.histories:
        for odd in history.odd:
            yield f"client {history.client}: {odd}"


def nothing_is_left(evidence: Evidence) -> Iterator[str]:
    """No process, file or connection outlives its node."""
    yield from evidence.leftovers


RULES: tuple[Rule, ...] = (
    ends_once,
    ends_as_it_should,
    told_is_stored,
    told_stays,
    one_run_a_request,
    effects_are_attempts,
    finished_is_not_repeated,
    cancelled_is_still,
    streams_are_whole,
    counters_are_right,
    nobody_was_told_nonsense,
    nothing_is_left,
)
