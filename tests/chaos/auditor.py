"""The auditor: holds what clients were told and what arrived against what is stored, and names
everything that must not be. A pure function of its evidence.
"""

from collections import Counter
from collections.abc import Callable, Iterator

from insula.engine.events import RunEnded, StepEnded, StepStarted, UnitEnded, UnitStarted
from tests.chaos.evidence import Address, Evidence, StoredRun, Unit, counted
from tests.chaos.history import FINAL, Listening
from tests.chaos.listened import broken

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


def given_is_stored(evidence: Evidence) -> Iterator[str]:
    """Each run still has its input, and each file that was stored its row and its bytes."""
    for run in evidence.runs.values():
        if not run.tag:
            yield f"{run.id} has lost its input"
    for history in evidence.histories:
        for kept in history.kept:
            found = evidence.files.get(kept.file_id)
            if found != kept.digest:
                yield f"file {kept.file_id} is {'gone' if found is None else 'not what was given'}"


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
    asked = Counter(key.partition("/replay ")[0] for _, key in claimed if "/replay " in key)
    replays = Counter(run.replay_of for run in evidence.runs.values() if run.replay_of)
    for source, count in replays.items():
        wanted = sum(times for path, times in asked.items() if path.endswith(f"/{source}"))
        if count > wanted:
            yield f"{source} has {count} replays, and {wanted} were asked for"


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


def effects_happened(evidence: Evidence) -> Iterator[str]:
    """What the journal calls done was done: each request that ended had arrived, and of a loop
    none is left out."""
    arrived = {arrival.key for arrival in evidence.arrivals}
    for run in evidence.runs.values():
        asks = {
            event.key
            for event in run.events
            if isinstance(event, StepStarted) and event.type == "http_request"
        }
        for unit in _done(run):
            if unit.key in asks and unit.effect(1) not in arrived:
                yield f"{run.id} {unit.key} {unit.address} is done, and no request arrived"
        indices: dict[str, set[int]] = {}
        for unit in _done(run):
            if unit.address[0] is not None:
                indices.setdefault(unit.key, set()).add(unit.address[0])
        for key, found in indices.items():
            if found != set(range(len(found))):
                yield f"{run.id} {key} has done the iterations {sorted(found)}"


def _done(run: StoredRun) -> Iterator[Unit]:
    """Yield what ended by itself: parts of steps, and steps that have none."""
    whole: set[str] = set()  # what a replay keeps was done elsewhere, and has no attempt
    for event in run.events:
        match event:
            case StepStarted() if event.attempt:
                whole.add(event.key)
            case UnitEnded(again=False, error=None):
                yield Unit(run.id, event.key, (event.index, event.round, event.call))
            case StepEnded(status="COMPLETED") if event.key in whole:
                yield Unit(run.id, event.key)


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


def completed_is_still(evidence: Evidence) -> Iterator[str]:
    """After COMPLETED was told nothing of the run arrives.

    Where an owner may have lapsed: one request of each unit that was begun again by another.
    """
    effects, attempts = evidence.effects(), evidence.attempts()
    told: dict[str, float] = {}
    for history in evidence.histories:
        for one in history.told:
            if one.status == "COMPLETED":
                told[one.run_id] = min(one.at, told.get(one.run_id, one.at))
    late: Counter[tuple[str, Unit]] = Counter()
    for arrival in evidence.arrivals:
        unit = effects.get(arrival.key or "")
        for run_id in evidence.line(unit.run_id) if unit is not None else ():
            at = told.get(run_id)
            if at is None or unit is None or arrival.at <= at:
                continue
            late[run_id, unit] += 1
            if not evidence.lapses or attempts[unit] < 2 or late[run_id, unit] > 1:
                yield f"{run_id}: {arrival.path} arrived {arrival.at - at:.3f} s after its end"


def streams_are_whole(evidence: Evidence) -> Iterator[str]:
    """Every stream is whole in itself, and tells the end that is stored."""
    for history in evidence.histories:
        for stream in history.streams:
            for found in (*broken(stream), *_untrue(evidence, stream)):
                yield f"{stream.run_id}: {found}"


def _untrue(evidence: Evidence, stream: Listening) -> Iterator[str]:
    run = evidence.runs.get(stream.run_id)
    if run is None:
        yield "it was streamed and does not exist"
    elif stream.ended and stream.events[-1].data.get("status") != run.status:
        yield f"the stream ended {stream.events[-1].data.get('status')}, it is {run.status}"
    elif stream.ended and stream.read is None:
        yield "nobody has read the run after its stream"


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
    given_is_stored,
    told_stays,
    one_run_a_request,
    effects_are_attempts,
    effects_happened,
    finished_is_not_repeated,
    cancelled_is_still,
    completed_is_still,
    streams_are_whole,
    counters_are_right,
    nobody_was_told_nonsense,
    nothing_is_left,
)


def looked_at(evidence: Evidence) -> dict[str, int]:
    """Count what the rules had to judge: where one of these is 0, a rule has judged nothing."""
    histories, runs = evidence.histories, list(evidence.runs.values())
    attempts = evidence.attempts()
    return {
        "answers": sum(len(history.told) for history in histories),
        "streams": sum(len(history.streams) for history in histories),
        "cancels": sum(len(history.stopped) for history in histories),
        "files": sum(len(history.kept) for history in histories),
        "requests": len(evidence.arrivals),
        "children": sum(run.parent_id is not None for run in runs),
        "replays": sum(run.replay_of is not None for run in runs),
        "attempts again": sum(count > 1 for count in attempts.values()),
    }
