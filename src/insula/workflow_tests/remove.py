"""What a workflow leaves with its tests when it goes."""

from sqlalchemy import Connection

from insula.runs.services import RunServices
from insula.workflow_tests import expectations, repository
from insula.workflow_tests.runner import TestRunner


async def remove_tests(runner: TestRunner, services: RunServices, workflow_id: str) -> None:
    """Remove all that is kept of a workflow's tests, and stop judging them; nothing of them begins
    after that."""

    def unit(connection: Connection) -> tuple[list[str], list[str]]:
        going = [each.id for each in repository.underway(connection, workflow_id)]
        files = repository.remove_of_workflow(connection, workflow_id)
        expectations.remove_of_workflow(connection, workflow_id)
        return going, files

    going, files = await services.database.write(unit)
    await runner.drop(going)
    runner.tell()
    await services.files.remove(files)
