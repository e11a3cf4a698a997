"""A past run becomes a test: its input, and what the outside answered it, from its journal."""

from functools import partial
from typing import Any

from insula.engine.state import fold
from insula.engine.triggers import is_trigger
from insula.errors import Conflict
from insula.files.copies import copy_held
from insula.kit import json
from insula.kit.ids import new_id
from insula.runs.options import options_of
from insula.runs.reading import Stored, mine, read_stored
from insula.runs.services import RunServices
from insula.web.auth import Principal, unknown
from insula.web.idempotency import Idempotency, made_before
from insula.workflow_tests.actions import create
from insula.workflow_tests.recording import record
from insula.workflow_tests.repository import find_any
from insula.workflow_tests.schemas import CreateTest, RecordTest

RECORDING_MAX = 32 * 1024 * 1024
"""Bytes of all that the outside answered one run."""


async def record_test(
    services: RunServices,
    principal: Principal,
    run_id: str,
    fields: RecordTest,
    key: Idempotency | None,
) -> tuple[str, str]:
    """Make a test of a run of the app's own workflow; return the ids of the workflow and the test.

    Raises:
        NotFound: there is no such run, or the test that the same key made.
        Conflict: it has not ended, was erased, or was answered too much.
    """
    earlier = await made_before(services.database, principal, key)
    if earlier is not None:
        return await _made(services, earlier)
    find = mine(principal.app_id, None, run_id, own_workflow=True)
    stored = await read_stored(services, find)
    row = stored.row
    await services.resolver.check_own(principal.app_id, row.workflow_id)
    if not row.is_final:
        raise Conflict("The run has not ended; cancel it or wait, then make a test of it")
    if row.erased_at is not None or stored.input is None:
        raise Conflict("The run's data was erased; make a test of a newer run")
    recording = record(stored.events)
    if len(recording) > RECORDING_MAX:
        raise Conflict(f"What the run was answered is over {RECORDING_MAX:,} bytes")
    test_id = new_id("test")
    context = json.encode(await _given(services, stored) or None)
    # The test keeps files of its own: the run's go with the run.
    given, context, recording = await copy_held(
        services.files.store, principal.app_id, test_id, (stored.input, context, recording)
    )
    made = CreateTest(
        name=fields.name or f"Run {run_id}",
        input=json.decode(given),
        input_context=json.decode(context),
        step_key=row.from_step_key,
        expectations=fields.expectations,
    )
    found = await create(
        services, principal, row.workflow_id, made, key, recording=recording, test_id=test_id
    )
    return row.workflow_id, found


async def _made(services: RunServices, test_id: str) -> tuple[str, str]:
    test = await services.database.read(partial(find_any, test_id=test_id))
    if test is None:
        raise unknown()
    return test.workflow_id, test.id


async def _given(services: RunServices, stored: Stored) -> dict[str, Any]:
    """Return the outputs that nobody is asked for again: what the run's triggers told it, what a
    test gave it, and what a replay took over of the run before it.

    Raises:
        NotFound, Conflict: what the run was started from is gone.
    """
    row = stored.row
    runnable = await services.resolver.stored(row.workflow_id, row.version_id, stored.draft)
    given = {step.key for step in runnable.document.steps if is_trigger(step)}
    options = options_of(row)
    replayed = options.replay_step
    if replayed is None:
        given |= set(options.given)
    else:
        plan = await services.plans.lay_out(runnable, row.from_step_key)
        given |= plan.nodes.keys() - plan.downstream(replayed)
    return {
        step.key: json.decode(step.output)
        for step in fold(stored.events).steps.values()
        if step.key in given and step.status == "COMPLETED" and step.output is not None
    }
