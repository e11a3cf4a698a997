"""Looking at a run: its fold, its input, and what the viewer may see, from memory or storage."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from sqlalchemy import Connection

from insula.engine.events import Event
from insula.engine.state import RunState, fold, size_of
from insula.errors import Conflict, NotFound
from insula.journal.read import load, load_many
from insula.kit.json import Raw, raw
from insula.runs import repository
from insula.runs.configured import concealed
from insula.runs.live import LiveRun
from insula.runs.options import options_of
from insula.runs.render import Sight, run_bytes, visible_steps
from insula.runs.rows import RunRow
from insula.runs.services import RunServices
from insula.web.auth import unknown
from insula.workflows.access import sees_steps
from insula.workflows.render import body_members
from insula.workflows.resolve import Runnable

_LARGE = 1024 * 1024
"""Bytes that are not encoded where others wait."""


@dataclass(frozen=True, slots=True)
class Look:
    """One run as one viewer sees it."""

    row: RunRow
    state: RunState
    input: Raw | None
    sight: Sight
    counted: Sight | None = None
    """What numbers the events of its stream, where that is not what is shown now."""

    def encoded(self, *, verbose: bool = False) -> bytes:
        """Return ``RunSchema`` as JSON."""
        return run_bytes(self.row, self.state, self.input, self.sight, verbose=verbose)

    @property
    def size(self) -> int:
        """About how many bytes it has when encoded."""
        parts = (self.input, self.sight.version, self.sight.draft)
        return self.state.size + sum(size_of(part) for part in parts)


async def sight_of(
    services: RunServices,
    row: RunRow,
    viewer: str,
    runnable: Runnable | None = None,
    draft: bytes | None = None,
) -> Sight:
    """Say what an app may see of a run. ``draft`` is the body of a draft run, if it is stored."""
    version = None
    if row.version_id is not None:
        found = await services.resolver.versions_for_runs([row.version_id], viewer)
        version = found.get(row.version_id)
    shown = None if draft is None else raw(body_members(draft))
    if row.workflow_app_id == viewer:
        return Sight(version, shown)
    facts = await services.resolver.facts(row.workflow_id)
    if sees_steps(facts, viewer):
        return Sight(version, shown, concealed=concealed(row, viewer, closed=False))
    unseen = concealed(row, viewer, closed=True)
    if runnable is None:
        try:
            runnable = await services.resolver.stored(row.workflow_id, row.version_id, draft)
        except (NotFound, Conflict):  # what the workflow was is not known any more
            return Sight(version, shown, frozenset(), unseen)
    return Sight(version, shown, visible_steps(runnable.document), unseen)


async def look_live(services: RunServices, live: LiveRun, viewer: str) -> Look:
    """Look at a run that this process executes. Whether its end is erased or not, it is here."""
    body = live.runnable.body if live.row.version_id is None else None
    sight = await sight_of(services, live.row, viewer, live.runnable, body)
    return Look(live.row, live.state, live.input, sight)


async def numbered(services: RunServices, look: Look) -> Look:
    """Have a run's stream numbered as it was from the first event on.

    Where a workflow was closed since, what is hidden leaves gaps; where it was opened, what had no
    number is not streamed, and stands in the final run.
    """
    row, sight = look.row, look.sight
    was_closed = options_of(row).closed
    if was_closed is None or was_closed == (sight.visible is not None):
        return look
    if not was_closed:
        return replace(look, counted=replace(sight, visible=None))
    try:
        runnable = await services.resolver.stored(row.workflow_id, row.version_id, None)
    except (NotFound, Conflict):  # what the workflow was is not known any more
        return look
    return replace(look, counted=replace(sight, visible=visible_steps(runnable.document)))


@dataclass(frozen=True, slots=True)
class Stored:
    """All that is stored of a run, as it stood at one moment; ``seq`` numbers its last event."""

    row: RunRow
    events: list[Event]
    seq: int
    input: bytes | None
    draft: bytes | None


Find = Callable[[Connection], RunRow | None]


def mine(app_id: str, workflow_id: str | None, run_id: str, *, own_workflow: bool) -> Find:
    """Return the query for a run that the app may see."""
    return partial(
        repository.find_mine,
        run_id=run_id,
        app_id=app_id,
        workflow_id=workflow_id,
        own_workflow=own_workflow,
    )


async def read_stored(services: RunServices, find: Find) -> Stored:
    """Read a run in one snapshot, so that its status and its events are of the same moment.

    Raises:
        NotFound: there is none.
    """
    stored = await services.database.read(partial(_stored, find=find))
    if stored is None:
        raise unknown()
    return stored


def _stored(connection: Connection, find: Find) -> Stored | None:
    row = find(connection)
    if row is None:
        return None
    if row.erased_at is not None:
        return _emptied(row)
    journal = load(connection, row.id)
    return Stored(row, journal.events, journal.seq, *repository.data_of(connection, row.id))


def _emptied(row: RunRow) -> Stored:
    return Stored(row, [], row.seq, None, None)


async def look_stored(services: RunServices, find: Find, viewer: str) -> Look:
    """Look at a run as it is stored.

    Raises:
        NotFound: there is none.
    """
    return await look_at(services, await read_stored(services, find), viewer)


async def look_at(services: RunServices, stored: Stored, viewer: str) -> Look:
    """Look at what was read of a run."""
    row = stored.row
    sight = await sight_of(services, row, viewer, draft=stored.draft)
    state = fold(stored.events) if row.erased_at is None else _erased(row)
    return Look(row, state, None if stored.input is None else Raw(stored.input), sight)


def stored_many(
    connection: Connection, rows: Sequence[RunRow], within: int | None = None
) -> list[Stored]:
    """Read all that is stored of runs, whose rows are of the same snapshot; with ``within`` of as
    many, from the first on, as have so many bytes of data, and of one in any case."""
    kept = [row.id for row in rows if row.erased_at is None]
    journals = load_many(connection, kept, within)
    data = repository.data_of_many(connection, list(journals))
    found = []
    for row in rows:
        if row.erased_at is not None:
            found.append(_emptied(row))
        elif row.id in journals:
            given, draft = data.get(row.id, (None, None))
            found.append(Stored(row, journals[row.id], row.seq, given, draft))
        else:
            break
    return found


async def look_many(services: RunServices, found: Sequence[Stored], viewer: str) -> list[Look]:
    """Look at what was read of some runs."""
    return [await look_at(services, stored, viewer) for stored in found]


async def encode_many(looks: Sequence[Look], within: int, *, verbose: bool) -> list[bytes]:
    """Encode as many runs, from the first on, as are ``within`` bytes, and one in any case."""
    if sum(look.size for look in looks) < _LARGE:
        return _encoded(looks, within, verbose)
    return await asyncio.to_thread(_encoded, looks, within, verbose)


def _encoded(looks: Sequence[Look], within: int, verbose: bool) -> list[bytes]:
    encoded: list[bytes] = []
    for look in looks:
        one = look.encoded(verbose=verbose)
        within -= len(one)
        if within < 0 and encoded:
            break
        encoded.append(one)
    return encoded


def _erased(row: RunRow) -> RunState:
    return RunState(status=row.status, started_at=row.started_at, ended_at=row.ended_at)


async def find(
    services: RunServices,
    app_id: str,
    workflow_id: str | None,
    run_id: str,
    *,
    own_workflow: bool,
) -> RunRow:
    """Find a run that the app may see.

    Raises:
        NotFound: there is none.
    """
    query = mine(app_id, workflow_id, run_id, own_workflow=own_workflow)
    row = await services.database.read(query)
    if row is None:
        raise unknown()
    return row
