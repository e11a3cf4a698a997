"""Gives a test that waits for its turn its run: in one commit, so that there is one at most."""

from functools import partial
from typing import Any

from sqlalchemy import Connection

from insula.engine.failures import StepFailure
from insula.engine.ports import Ports
from insula.errors import InsulaError, TooMany, Unavailable
from insula.kit import json
from insula.kit.clock import now_ms
from insula.runs.creation import Before
from insula.runs.options import Outfit, RunOptions
from insula.runs.services import RunServices
from insula.runs.start import Start, queue
from insula.web.auth import Principal
from insula.workflow_tests import repository
from insula.workflow_tests.given import faked
from insula.workflow_tests.playing import play
from insula.workflow_tests.rows import FAILED, RUNNING, Verdict, WorkflowTest
from insula.workflows.retention import stored

KEPT_SECONDS = 30 * 24 * 3600
"""How long the run of a test is kept, whatever its workflow says: it must be there to be judged."""
_TOLD = 5


class _NotItsTurn(Exception):
    """Others of the workflow go on, or somebody else began this one, or cancelled it."""


async def begin(services: RunServices, test_id: str) -> bool:
    """Create the run of a test that waits; say whether something came of that.

    A test that cannot be run has FAILED, and says why.
    """
    test = await services.database.read(partial(repository.find_any, test_id=test_id))
    if test is None or test.status != RUNNING or test.run_id is not None:
        return False
    try:
        await _begin(services, test)
    except (_NotItsTurn, TooMany, Unavailable):
        return False
    except InsulaError as error:
        verdict = Verdict(FAILED, error=_words(error))
        unit = partial(
            repository.settle, test_id=test.id, run_id=None, seen=test.updated_at, verdict=verdict
        )
        await services.database.write(unit)
    return True


async def _begin(services: RunServices, test: WorkflowTest) -> None:
    runnable = await services.resolver.resolve(test.app_id, test.workflow_id, test.version)
    plan = await services.plans.lay_out(runnable, test.step_key)
    context = _decoded(test.input_context)
    options = RunOptions(
        outfit=Outfit(test.id) if test.recorded else None, given=tuple(sorted(context))
    )
    asked = Start(
        input=_decoded(test.input),
        from_step_key=test.step_key,
        identifier=test.id,
        background=True,
        retention=stored(KEPT_SECONDS),
        options=options,
        origin="TEST",
        default=_decoded(test.input_default),
        kept=faked(runnable.document, context, now_ms()) if context else (),
    )
    principal = Principal(test.app_id, test.id)
    await queue(services, principal, runnable, plan, asked, partial(_taking, test))


def _taking(test: WorkflowTest, run_id: str) -> Before:
    def unit(connection: Connection) -> str | None:
        if not repository.start(connection, test, run_id):
            raise _NotItsTurn
        return None

    return unit


async def outfit(services: RunServices, worn: Outfit, ports: Ports) -> Ports:
    """Give the run of a recorded test what is recorded, and nothing else of the world.

    Raises:
        StepFailure: the recording is gone.
    """
    query = partial(repository.recording_of, test_id=worn.test)
    recording = await services.database.read(query)
    if recording is None:
        raise StepFailure("The recording of this test is gone", "not_available")
    return play(recording, ports)


def _decoded(value: bytes | None) -> dict[str, Any]:
    decoded = {} if value is None else json.decode(value)
    return decoded or {}


def _words(error: InsulaError) -> str:
    told = "; ".join(each.message for each in error.errors[:_TOLD])
    return f"{error.message}: {told}" if told and told != error.message else error.message
