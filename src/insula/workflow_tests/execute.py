"""Executing tests, and cancelling: what is asked for becomes rows, which the runner carries."""

from functools import partial

from sqlalchemy import Connection

from insula.errors import Conflict, Unavailable
from insula.runs.cancel import cancel_many
from insula.runs.services import RunServices
from insula.web.auth import Principal, unknown
from insula.web.idempotency import Idempotency, claim, made_before
from insula.workflow_tests import repository
from insula.workflow_tests.rows import RUNNING, Underway
from insula.workflow_tests.runner import TestRunner
from insula.workflow_tests.schemas import RunTest, RunTests

_TRIES = 3


async def execute(
    services: RunServices,
    runner: TestRunner,
    principal: Principal,
    workflow_id: str,
    test_id: str,
    fields: RunTest,
    key: Idempotency | None,
) -> None:
    """Let a test be executed, or the run that it has be judged again.

    Raises:
        NotFound: there is no such test or version.
        Conflict: it is RUNNING already, or has no run to be judged.
    """
    if await made_before(services.database, principal, key) is not None:
        return
    version = await _version(services, principal, workflow_id, fields.workflow_version_number)

    def unit(connection: Connection) -> bool:
        test = repository.find(connection, principal.app_id, workflow_id, test_id)
        if test is None:
            return False
        if key is not None and claim(connection, principal, key, test_id) is not None:
            return True
        if fields.execute_expectations_only:
            if not repository.judge_again(connection, test_id):
                raise Conflict("The test is running, or has no run to judge: run it first")
        elif not repository.queue(connection, [test_id], version):
            raise Conflict("The test is running already: cancel it or wait")
        return True

    if not await services.database.write(unit):
        raise unknown()
    runner.asked([test_id])


async def execute_all(
    services: RunServices,
    runner: TestRunner,
    principal: Principal,
    workflow_id: str,
    fields: RunTests,
    key: Idempotency | None,
) -> list[str]:
    """Let all tests of a workflow be executed, or those that FAILED; return which begin.

    Raises:
        NotFound: there is no such version.
    """
    if await made_before(services.database, principal, key) is not None:
        underway = partial(repository.underway, workflow_id=workflow_id)
        return [each.id for each in await services.database.read(underway)]
    version = await _version(services, principal, workflow_id, fields.workflow_version_number)
    failed_only = bool(fields.execute_failed_only)

    def unit(connection: Connection) -> list[str]:
        if key is not None and claim(connection, principal, key, workflow_id) is not None:
            return [each.id for each in repository.underway(connection, workflow_id)]
        ids = repository.ids_of(connection, workflow_id, failed_only=failed_only)
        return repository.queue(connection, ids, version)

    begun = await services.database.write(unit)
    runner.asked(begun)
    return begun


async def _version(
    services: RunServices, principal: Principal, workflow_id: str, number: int | None
) -> str:
    """Return which version is to run; one that does not exist is refused before anything begins."""
    version = "draft" if number is None else str(number)
    await services.resolver.resolve(principal.app_id, workflow_id, version)
    return version


async def cancel(
    services: RunServices,
    runner: TestRunner,
    principal: Principal,
    workflow_id: str,
    test_id: str | None = None,
) -> list[str]:
    """Cancel one test of a workflow, or all; answers when everything has stopped, with which.

    Raises:
        Unavailable: a run has not stopped in time; its cancel stays requested.
    """
    stopped: list[str] = []
    for _ in range(_TRIES):
        unit = partial(repository.cancel_waiting, workflow_id=workflow_id, test_id=test_id)
        waited, running = await services.database.write(unit)
        stopped += waited
        if not running:
            break
        stopped += await _stop(services, runner, principal, running)
    runner.tell()
    return stopped


async def _stop(
    services: RunServices, runner: TestRunner, principal: Principal, running: list[Underway]
) -> list[str]:
    by_run = {each.run_id: each for each in running if each.run_id is not None}
    lost = [each for each in running if each.lost]
    live = [run_id for run_id, each in by_run.items() if not each.lost]
    ended = await cancel_many(services, live, principal.key_id)
    over = [*lost, *(by_run[run_id] for run_id in ended)]
    await runner.drop([each.id for each in over])
    await services.database.write(partial(repository.cancel_stopped, stopped=over))
    if len(ended) < len(live):
        raise Unavailable("Some tests have not stopped; ask again", retry_after=5)
    return [each.id for each in over]


async def delete(
    services: RunServices,
    runner: TestRunner,
    principal: Principal,
    workflow_id: str,
    test_id: str,
) -> None:
    """Delete a test; what runs of it is cancelled first.

    Raises:
        NotFound: there is none.
        Unavailable: its run has not stopped in time.
    """
    query = partial(
        repository.find, app_id=principal.app_id, workflow_id=workflow_id, test_id=test_id
    )
    test = await services.database.read(query)
    if test is None:
        raise unknown()
    if test.status == RUNNING:
        await cancel(services, runner, principal, workflow_id, test_id)
    gone = await services.database.write(partial(repository.remove, test_id=test_id))
    await services.files.remove(gone)
