"""What a deletion stops and removes, in which order: each concept's own part, put together."""

from dataclasses import dataclass

from insula.collections.remove import remove_app as remove_app_records
from insula.collections.services import RecordServices
from insula.connections.opening import Connections
from insula.files.store import remove_app_files
from insula.runs.cancel import cancel_app, cancel_workflow
from insula.runs.services import RunServices
from insula.runs.start import DELETED
from insula.schedules import repository as schedules_repository
from insula.variables.scope import Variables
from insula.webhooks.opening import Webhooks
from insula.workflow_tests.opening import remove_tests
from insula.workflows.remove import remove_all


@dataclass(frozen=True, slots=True)
class Deletion:
    """Ends what workflows and apps have running, before they go."""

    services: RunServices
    variables: Variables
    connections: Connections
    webhooks: Webhooks
    records: RecordServices

    async def stop_workflow(self, app_id: str, workflow_id: str) -> None:
        """End everything of a workflow; what would start runs goes first."""
        database = self.services.database
        await database.write(lambda c: schedules_repository.remove_of_workflow(c, workflow_id))
        await database.write(lambda c: remove_tests(c, workflow_id))
        await self.webhooks.remove_workflow(workflow_id)
        await cancel_workflow(self.services, workflow_id, DELETED)

    async def stop_app(self, app_id: str) -> None:
        """End and remove everything of an app whose keys are revoked."""
        database, resolver = self.services.database, self.services.resolver
        await database.write(lambda c: schedules_repository.remove_of_app(c, app_id))
        await remove_app_records(self.records, app_id)
        await cancel_app(self.services, app_id, DELETED)
        await remove_all(database, resolver, [self.stop_workflow], app_id)
        await remove_app_files(self.services.files.store, app_id)
        await self.variables.remove_app(app_id)
        await self.connections.remove_app(app_id)
        await self.webhooks.remove_app(app_id)
