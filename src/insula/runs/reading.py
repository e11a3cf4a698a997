"""Looking at a run: its fold, its input, and what the viewer may see, from memory or storage."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from insula.engine.state import RunState, fold
from insula.journal.read import Stored, load
from insula.kit.json import Raw, raw
from insula.runs import repository
from insula.runs.live import LiveRun
from insula.runs.render import Sight, run_bytes, visible_steps
from insula.runs.rows import RunRow
from insula.runs.services import RunServices
from insula.web.auth import unknown
from insula.workflows.access import sees_steps
from insula.workflows.render import body_members
from insula.workflows.resolve import Runnable

Data = dict[str, tuple[bytes | None, bytes | None]]
"""Inputs and draft bodies, by run id."""


@dataclass(frozen=True, slots=True)
class Look:
    """One run as one viewer sees it."""

    row: RunRow
    state: RunState
    input: Raw | None
    sight: Sight

    def encoded(self, *, verbose: bool = False) -> bytes:
        """Return ``RunSchema`` as JSON."""
        return run_bytes(self.row, self.state, self.input, self.sight, verbose=verbose)


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
        return Sight(version, shown)
    if runnable is None:
        runnable = await services.resolver.stored(row.workflow_id, row.version_id, draft)
    return Sight(version, shown, visible_steps(runnable.document))


async def look_live(services: RunServices, live: LiveRun, viewer: str) -> Look:
    """Look at a run that this process executed and whose end is stored."""
    body = live.runnable.body if live.row.version_id is None else None
    sight = await sight_of(services, live.row, viewer, live.runnable, body)
    given = None if live.row.erased_at is not None else live.input
    return Look(live.row, live.state, given, sight)


async def look_stored(services: RunServices, row: RunRow, viewer: str) -> Look:
    """Look at a run as it is stored."""
    if row.erased_at is not None:
        return Look(row, _erased(row), None, await sight_of(services, row, viewer))
    events, _ = await services.journal.read(row.id)
    given, draft = await services.database.read(partial(repository.data_of, run_id=row.id))
    sight = await sight_of(services, row, viewer, draft=draft)
    state = fold(events)
    return Look(row, state, None if given is None else Raw(given), sight)


async def look_many(services: RunServices, rows: Sequence[RunRow], viewer: str) -> list[Look]:
    """Look at a page of runs, with one read for all of their data."""
    kept = [row.id for row in rows if row.erased_at is None]

    def read(connection: Connection) -> tuple[dict[str, Stored], Data]:
        journals = {run_id: load(connection, run_id) for run_id in kept}
        return journals, repository.data_of_many(connection, kept)

    journals, data = await services.database.read(read)
    looks = []
    for row in rows:
        given, draft = data.get(row.id, (None, None))
        sight = await sight_of(services, row, viewer, draft=draft)
        stored = journals.get(row.id)
        state = _erased(row) if stored is None else fold(stored.events)
        looks.append(Look(row, state, None if given is None else Raw(given), sight))
    return looks


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
    row = await services.database.read(
        partial(
            repository.find_mine,
            run_id=run_id,
            app_id=app_id,
            workflow_id=workflow_id,
            own_workflow=own_workflow,
        )
    )
    if row is None:
        raise unknown()
    return row
