"""Tests in the shape of the contract (``WorkflowTestSchema``), with their runs."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection

from insula.kit import json
from insula.kit.clock import iso
from insula.kit.json import Raw
from insula.runs import repository as runs_repository
from insula.runs.reading import Look, Stored, look_many, stored_many
from insula.runs.services import RunServices
from insula.workflow_tests import repository
from insula.workflow_tests.rows import RUNNING, WorkflowTest, as_written


async def tests_wire(
    services: RunServices, app_id: str, found: Sequence[WorkflowTest], *, verbose: bool
) -> list[dict[str, Any]]:
    """Return tests as they are shown; without ``verbose`` what they are given and expect is left
    out."""
    ids = [test.run_id for test in found if test.run_id is not None]
    runs = await services.database.read(partial(_runs, ids=ids)) if ids else []
    looks = {look.row.id: look for look in await look_many(services, runs, app_id)}
    return [_wire(test, looks.get(test.run_id or ""), verbose=verbose) for test in found]


async def tests_page(
    services: RunServices, app_id: str, ids: Sequence[str], within: int, *, verbose: bool
) -> tuple[bytes, int]:
    """Encode as many tests, from the first on, as are ``within`` bytes, and one in any case; say
    how many are left. One after another: each has its run, and may be large."""
    encoded: list[bytes] = []
    for place, test_id in enumerate(ids):
        test = await services.database.read(partial(repository.find_any, test_id=test_id))
        if test is None:  # deleted meanwhile
            continue
        one = json.encode((await tests_wire(services, app_id, [test], verbose=verbose))[0])
        within -= len(one)
        if within < 0 and encoded:
            return b"[" + b",".join(encoded) + b"]", len(ids) - place
        encoded.append(one)
    return b"[" + b",".join(encoded) + b"]", 0


def _runs(connection: Connection, ids: Sequence[str]) -> list[Stored]:
    found = (runs_repository.find(connection, run_id) for run_id in ids)
    return stored_many(connection, [row for row in found if row is not None])


def _wire(test: WorkflowTest, look: Look | None, *, verbose: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": test.id, "name": test.name, "status": test.status}
    if verbose:
        shown |= {
            "input": _value(test.input),
            "input_default": _value(test.input_default),
            "input_context": _value(test.input_context),
            "expectations": _expectations(test),
        }
    shown |= {
        "step_key": test.step_key,
        "expectations_passing_count": test.passing,
        "expectations_failing_count": test.failing,
        "workflow_id": test.workflow_id,
        "run": None if look is None else Raw(look.encoded(verbose=verbose)),
        "recorded": test.recorded,
        "created_at": iso(test.created_at),
        "updated_at": iso(test.updated_at),
    }
    return shown if test.error is None else {**shown, "error": test.error}


def _expectations(test: WorkflowTest) -> Raw:
    """Return what a test expects; while it runs without what became of that before."""
    if test.status != RUNNING:
        return Raw(test.expectations)
    return json.raw([as_written(item) for item in test.items()])


def _value(stored: bytes | None) -> Raw | None:
    return None if stored is None else Raw(stored)
