"""Tests in the database. Every function takes a connection: inside a unit, or a read."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    delete,
    func,
    insert,
    select,
    text,
    update,
)

from insula.engine.failures import plain
from insula.errors import Conflict
from insula.files.repository import delete_run_files
from insula.kit import json
from insula.kit.clock import now_ms
from insula.storage.dialect import by_index, is_postgres
from insula.storage.tables import runs
from insula.storage.tables import workflow_tests as tests
from insula.web.pagination import Page
from insula.workflow_tests.rows import (
    CANCELLED,
    FAILED,
    PASSED,
    RUNNING,
    Underway,
    Verdict,
    WorkflowTest,
    as_written,
)

TESTS_MAX = 1_000
"""Tests of one workflow."""
AT_ONCE = 8
"""Tests of one workflow whose runs go on, or are being judged, at the same time."""


class Turns(NamedTuple):
    """Tests that something may have to be done about, and the workflow after which the next look
    begins; ``whole``: there are no others."""

    tests: list[Underway]
    after: str
    whole: bool


class Told(NamedTuple):
    """What is told of a test while tests go on, and when it was changed."""

    id: str
    name: str
    status: str
    passing: int
    failing: int
    updated_at: int


_UNDERWAY_MAX = 2_000
LOOKED_AT = 100
"""Workflows with RUNNING tests that one look comes to; the next one goes on behind them."""
# By jumping along the index: one step a workflow, however many of its tests wait.
_WORKFLOWS = """
    WITH RECURSIVE turn(workflow_id) AS (
        SELECT min(workflow_id) FROM workflow_tests {index}
        WHERE status = 'RUNNING' AND workflow_id > :after
        UNION ALL
        SELECT (SELECT min(workflow_id) FROM workflow_tests {index}
                WHERE status = 'RUNNING' AND workflow_id > turn.workflow_id)
        FROM turn WHERE turn.workflow_id IS NOT NULL
    )
    SELECT workflow_id FROM turn WHERE workflow_id IS NOT NULL LIMIT :most
"""
_IS_RUNNING = text("workflow_tests.status = 'RUNNING'")
_ERROR_LENGTH = 2_000
_NAMES = tuple(name for name in WorkflowTest.__dataclass_fields__ if name != "recorded")
_COLUMNS = [*(tests.c[name] for name in _NAMES), tests.c.recording.is_not(None).label("recorded")]


def _test(row: Sequence[Any]) -> WorkflowTest:
    return WorkflowTest(*row)


def find(
    connection: Connection, app_id: str, workflow_id: str, test_id: str
) -> WorkflowTest | None:
    """Return one test of an app's workflow."""
    mine = and_(tests.c.app_id == app_id, tests.c.workflow_id == workflow_id)
    row = connection.execute(select(*_COLUMNS).where(tests.c.id == test_id, mine)).first()
    return None if row is None else _test(row)


def find_any(connection: Connection, test_id: str) -> WorkflowTest | None:
    """Return a test by its id, whoever's it is."""
    row = connection.execute(select(*_COLUMNS).where(tests.c.id == test_id)).first()
    return None if row is None else _test(row)


def list_own(
    connection: Connection,
    workflow_id: str,
    search: str | None,
    status: str | None,
    page: Page,
) -> tuple[list[str], int, bool]:
    """Return the ids of a page of a workflow's tests, newest first, the number of all, and whether
    there are more."""
    wanted = tests.c.workflow_id == workflow_id
    for word in (search or "").split():
        wanted = and_(wanted, tests.c.name.icontains(word, autoescape=True))
    if status is not None:
        wanted = and_(wanted, tests.c.status == status)
    query = select(tests.c.id).where(wanted).order_by(tests.c.id.desc())
    if (before := page.position()) is not None:
        query = query.where(tests.c.id < before)
    ids = list(connection.scalars(query.offset(page.offset).limit(page.take + 1)))
    count = connection.execute(select(func.count()).select_from(tests).where(wanted))
    return ids[: page.take], int(count.scalar_one()), len(ids) > page.take


def store(connection: Connection, test: WorkflowTest, recording: bytes | None = None) -> None:
    """Insert a test.

    Raises:
        Conflict: its workflow has as many as it may have.
    """
    query = select(func.count()).select_from(tests).where(tests.c.workflow_id == test.workflow_id)
    if connection.execute(query).scalar_one() >= TESTS_MAX:
        raise Conflict(f"A workflow has at most {TESTS_MAX:,} tests. Delete some first.")
    values = {name: getattr(test, name) for name in _NAMES}
    kept = None if recording is None else zlib.compress(recording)
    connection.execute(insert(tests).values(**values, recording=kept))


def recording_of(connection: Connection, test_id: str) -> bytes | None:
    """Return the answers from outside that are played to a test's runs."""
    kept = connection.execute(select(tests.c.recording).where(tests.c.id == test_id)).scalar()
    return None if kept is None else zlib.decompress(kept)


def change(connection: Connection, test: WorkflowTest, values: Mapping[str, object]) -> None:
    """Change a test that was read in this unit."""
    at = max(now_ms(), test.updated_at + 1)
    statement = update(tests).where(tests.c.id == test.id)
    connection.execute(statement.values(updated_at=at, **values))


def untry(connection: Connection, workflow_id: str, expectation_id: str) -> None:
    """Let the tests that share an expectation count as not tried on any draft; a verdict on one
    that is just being reached does not count, and it is judged again."""
    shares = (
        func.convert_from(tests.c.expectations, "UTF8").contains(expectation_id)
        if is_postgres(connection)
        else func.instr(tests.c.expectations, expectation_id.encode()) > 0
    )
    mine = and_(tests.c.workflow_id == workflow_id, shares)
    connection.execute(update(tests).where(mine, tests.c.ran.is_not(None)).values(ran=None))
    moved = update(tests).where(mine, tests.c.status == RUNNING)
    connection.execute(moved.values(updated_at=tests.c.updated_at + 1))


def remove(connection: Connection, test_id: str) -> list[str]:
    """Remove a test, no matter if it is gone; return the files whose bytes are to be removed."""
    connection.execute(delete(tests).where(tests.c.id == test_id))
    return delete_run_files(connection, [test_id])


def queue(connection: Connection, test_ids: Sequence[str], version: str) -> list[str]:
    """Let tests wait for their turn; return those that were not RUNNING already."""
    values = {"run_id": None, "version": version}
    return [each for each in test_ids if _again(connection, each, values)]


def judge_again(connection: Connection, test_id: str) -> bool:
    """Let the run that a test has be judged again; say whether that could be."""
    return _again(connection, test_id, {}, tests.c.run_id.is_not(None))


def _again(
    connection: Connection,
    test_id: str,
    values: Mapping[str, object],
    *wanted: ColumnElement[bool],
) -> bool:
    """Make a test RUNNING, and count nothing of an earlier execution.

    What became of its expectations then is shown no more, and goes with the end of this one: there
    may be a thousand tests, each with megabytes of it.
    """
    changed = connection.execute(
        update(tests)
        .where(tests.c.id == test_id, tests.c.status != RUNNING, *wanted)
        .values(
            status=RUNNING,
            error=None,
            passing=0,
            failing=0,
            updated_at=now_ms(),
            **values,
        )
    )
    return changed.rowcount == 1


def ids_of(connection: Connection, workflow_id: str, *, failed_only: bool) -> list[str]:
    """Return the tests of a workflow, oldest first."""
    query = select(tests.c.id).where(tests.c.workflow_id == workflow_id).order_by(tests.c.id)
    return list(connection.scalars(query.where(tests.c.status == FAILED) if failed_only else query))


def underway(connection: Connection, workflow_id: str) -> list[Underway]:
    """Return the tests of a workflow that are RUNNING, those that wait longest first.

    Those that have a run stand before those that wait for one.
    """
    query = _underway(workflow_id).order_by(
        tests.c.run_id.is_(None), tests.c.updated_at, tests.c.id
    )
    return [Underway(*row) for row in connection.execute(query.limit(_UNDERWAY_MAX)).all()]


def turns(connection: Connection, after: str = "") -> Turns:
    """Return of each workflow, of those behind ``after`` first, tests that have a run, and the few
    that wait longest for theirs: however many one has, the others' are found."""
    values = {"after": after, "most": LOOKED_AT}
    jumps = text(_WORKFLOWS.format(index=by_index(connection, "workflow_tests_running")))
    workflows = list(connection.scalars(jumps, values))
    found: list[Underway] = []
    whole = not after and len(workflows) < LOOKED_AT
    for workflow_id in workflows:
        mine = _underway(workflow_id)
        begun = mine.where(tests.c.run_id > "").order_by(tests.c.run_id)
        waiting = mine.where(tests.c.run_id.is_(None)).order_by(tests.c.updated_at, tests.c.id)
        for query in (begun.limit(2 * AT_ONCE), waiting.limit(AT_ONCE)):
            some = [Underway(*row) for row in connection.execute(query).all()]
            whole = whole and len(some) < AT_ONCE
            found += some
    return Turns(found, workflows[-1] if len(workflows) == LOOKED_AT else "", whole)


def _underway(workflow_id: str) -> Select[Any]:
    return (
        select(
            tests.c.id,
            tests.c.workflow_id,
            tests.c.run_id,
            tests.c.updated_at,
            runs.c.status,
            runs.c.ended_at,
        )
        .join_from(tests, runs, runs.c.id == tests.c.run_id, isouter=True)
        .where(tests.c.workflow_id == workflow_id, _IS_RUNNING)
    )


def start(connection: Connection, test: WorkflowTest, run_id: str) -> bool:
    """Give a test that waits its run, if it is its turn; say whether it was."""
    busy = connection.execute(
        select(func.count())
        .select_from(tests)
        .where(tests.c.workflow_id == test.workflow_id, tests.c.status == RUNNING)
        .where(tests.c.run_id.is_not(None))
    ).scalar_one()
    if busy >= AT_ONCE:
        return False
    changed = connection.execute(
        update(tests)
        .where(tests.c.id == test.id, tests.c.status == RUNNING, tests.c.run_id.is_(None))
        .where(tests.c.updated_at == test.updated_at)
        .values(run_id=run_id)
    )
    return changed.rowcount == 1


def settle(
    connection: Connection, test_id: str, run_id: str | None, seen: int, verdict: Verdict
) -> bool:
    """Write the end of an execution, unless it is over already or another one has begun.

    ``seen``: when the test was changed last, so that the verdict is of what was judged.
    """
    of_run = tests.c.run_id.is_(None) if run_id is None else tests.c.run_id == run_id
    items = verdict.expectations
    if items is None:
        items = _unjudged(connection, test_id)
    values: dict[str, object] = {
        "status": verdict.status,
        "error": verdict.error and plain(verdict.error, _ERROR_LENGTH),
        "passing": verdict.passing,
        "failing": verdict.failing,
        "expectations": items,
        "updated_at": max(now_ms(), seen + 1),
    }
    if verdict.status in (PASSED, FAILED):
        values["ran"] = verdict.ran
    changed = connection.execute(
        update(tests)
        .where(tests.c.id == test_id, tests.c.status == RUNNING, of_run)
        .where(tests.c.updated_at == seen)
        .values(**values)
    )
    return changed.rowcount == 1


def _unjudged(connection: Connection, test_id: str) -> bytes:
    """Return what a test expects, without what became of that in an earlier execution."""
    stored = connection.scalar(select(tests.c.expectations).where(tests.c.id == test_id))
    return json.encode([as_written(item) for item in json.decode(stored or b"[]")])


def cancel_waiting(
    connection: Connection, workflow_id: str, test_id: str | None
) -> tuple[list[str], list[Underway]]:
    """Cancel the tests that wait; return them, and those whose runs have to be stopped first."""
    mine = tests.c.workflow_id == workflow_id
    if test_id is not None:
        mine = and_(mine, tests.c.id == test_id)
    waiting = and_(mine, tests.c.status == RUNNING, tests.c.run_id.is_(None))
    ids = list(connection.scalars(select(tests.c.id).where(waiting)))
    for each_id in ids:
        _cancel(connection, each_id, tests.c.run_id.is_(None))
    left = underway(connection, workflow_id)
    return ids, [each for each in left if test_id in (None, each.id)]


def cancel_stopped(connection: Connection, stopped: Sequence[Underway]) -> None:
    """Mark tests as cancelled whose runs have stopped."""
    for each in stopped:
        _cancel(connection, each.id, tests.c.run_id == each.run_id)


def _cancel(connection: Connection, test_id: str, of_run: ColumnElement[bool]) -> None:
    """End a RUNNING test as CANCELLED, without what became of it in an earlier execution."""
    connection.execute(
        update(tests)
        .where(tests.c.id == test_id, tests.c.status == RUNNING, of_run)
        .values(
            status=CANCELLED,
            error=None,
            passing=0,
            failing=0,
            expectations=_unjudged(connection, test_id),
            updated_at=now_ms(),
        )
    )


def remove_of_workflow(connection: Connection, workflow_id: str) -> list[str]:
    """Remove every test of a workflow; their runs go on. Return the files whose bytes are to be
    removed."""
    mine = tests.c.workflow_id == workflow_id
    gone = list(connection.scalars(delete(tests).where(mine).returning(tests.c.id)))
    return delete_run_files(connection, gone)


def told(connection: Connection, workflow_id: str) -> list[Told]:
    """Return what the progress of a workflow's tests tells."""
    query = select(*(tests.c[name] for name in Told._fields))
    query = query.where(tests.c.workflow_id == workflow_id).order_by(tests.c.id)
    return [Told(*row) for row in connection.execute(query).all()]
