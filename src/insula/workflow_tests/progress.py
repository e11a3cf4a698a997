"""The progress of a workflow's tests, as server-sent events, while any of them is RUNNING."""

from collections.abc import AsyncGenerator
from functools import partial

from insula.kit import json
from insula.runs.services import RunServices
from insula.web.sse import frame
from insula.workflow_tests import repository
from insula.workflow_tests.rows import RUNNING
from insula.workflow_tests.runner import TestRunner
from insula.workflows.tests_of import tests_stats


async def progress(
    services: RunServices, runner: TestRunner, workflow_id: str
) -> AsyncGenerator[bytes, None]:
    """Yield ``test`` for each test as it stands and whenever it changes, ``stats`` after each round
    of changes, and end when none is RUNNING, or the server stops."""
    known: dict[str, repository.Told] = {}
    number = 0
    while True:
        rows = await services.database.read(partial(repository.told, workflow_id=workflow_id))
        changed = [row for row in rows if known.get(row.id) != row]
        for row in changed:
            number += 1
            told = {
                "id": row.id,
                "name": row.name,
                "status": row.status,
                "expectations_passing_count": row.passing,
                "expectations_failing_count": row.failing,
            }
            yield frame("test", json.encode(told), number)
        if changed or not known:
            number += 1
            stats = await services.database.read(partial(tests_stats, workflow_ids=[workflow_id]))
            yield frame("stats", json.encode(stats[workflow_id]), number)
        known = {row.id: row for row in rows}
        if services.draining or not any(row.status == RUNNING for row in rows):
            return
        await runner.changed()
