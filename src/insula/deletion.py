"""What a deletion stops and removes, in which order: each concept's own part, put together.

A deletion that was begun is a row. Whoever deletes goes on with it; if its process dies, another
one does.
"""

import asyncio
from dataclasses import dataclass, field
from functools import partial

import structlog

from insula.apps import actions as apps_actions
from insula.apps import remove as apps_remove
from insula.apps import repository as apps_repository
from insula.apps.authenticate import Authenticator
from insula.collections.remove import remove_app as remove_app_records
from insula.collections.services import RecordServices
from insula.connections.opening import Connections
from insula.errors import InsulaError, NotFound, Unavailable
from insula.files.store import remove_app_files
from insula.runs.cancel import cancel_app, cancel_workflow
from insula.runs.remove import let_go, remove_rows
from insula.runs.services import RunServices
from insula.runs.start import DELETED
from insula.schedules import repository as schedules_repository
from insula.variables.scope import Variables
from insula.webhooks.opening import Webhooks
from insula.workflow_tests.remove import remove_tests
from insula.workflow_tests.runner import TestRunner
from insula.workflows import remove as workflows_remove

_log = structlog.get_logger(__name__)

GO_ON_SECONDS = 1.0
STALE_MS = 5_000
"""How long a deletion is left to another node, which may be at it."""
FORGET_SECONDS = 600.0
OTHERS_SECONDS = 1.25
"""In what time every other node has looked whether what it does for an app is still wanted."""
_LOOK_SECONDS = 0.05
_SOME = 100


@dataclass(slots=True)
class Deletion:
    """Ends what workflows and apps have running, and removes what they hold. One of a process."""

    services: RunServices
    authenticator: Authenticator
    variables: Variables
    connections: Connections
    webhooks: Webhooks
    tests: TestRunner
    records: RecordServices
    _busy: set[str] = field(default_factory=set)
    _gone: set[str] = field(default_factory=set)
    """Apps that were deleted here, and whose runs are still being erased."""

    async def stop_workflow(self, app_id: str, workflow_id: str) -> None:
        """End everything of a workflow; what would start runs goes first."""
        database = self.services.database
        await database.write(lambda c: schedules_repository.remove_of_workflow(c, workflow_id))
        await remove_tests(self.tests, self.services, workflow_id)
        await self.webhooks.remove_workflow(workflow_id)
        await cancel_workflow(self.services, workflow_id, DELETED)
        await let_go(database, app_id, workflow_id)

    async def stop_app(self, app_id: str) -> None:
        """End and remove everything of an app whose keys are revoked.

        Raises:
            Unavailable: something has not stopped in time; it is gone on with.
        """
        self._busy.add(app_id)
        try:
            await self._stop_app(app_id)
            self._gone.add(app_id)
        finally:
            self._busy.discard(app_id)

    async def _stop_app(self, app_id: str) -> None:
        database, resolver = self.services.database, self.services.resolver
        # Nobody is to hear of what is stopped only because there is nobody any more.
        await self.webhooks.remove_app(app_id)
        await database.write(lambda c: schedules_repository.remove_of_app(c, app_id))
        await remove_app_records(self.records, app_id)
        await cancel_app(self.services, app_id, DELETED)
        await workflows_remove.remove_all(database, resolver, [self.stop_workflow], app_id)
        await database.write(lambda c: workflows_remove.forget_caller(c, app_id))
        files = self.services.files
        await remove_app_files(files.store, app_id, files.documents.stop)
        await self.variables.remove_app(app_id)
        await self.connections.remove_app(app_id)
        await let_go(database, app_id)
        await self._nothing_runs(app_id)

    async def _nothing_runs(self, app_id: str) -> None:
        """Wait for what is no run: single steps here, and whatever other nodes are at."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.services.stop_within
        while self.services.live.held(app_id):
            if loop.time() > until:
                raise Unavailable("Something of the app has not stopped; ask again", retry_after=5)
            await asyncio.sleep(_LOOK_SECONDS)
        if self.services.nodes > 1:
            await asyncio.sleep(OTHERS_SECONDS)

    async def run(self) -> None:
        """Go on with what others have left, and forget what nobody can reach; for ever."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            try:
                if not self.services.draining:
                    await self.go_on()
                    if loop.time() >= due:
                        due = loop.time() + FORGET_SECONDS
                        await self.forget()
            except InsulaError as error:
                _log.warning("deletion.waits", reason=error.message)
            except Exception:  # it comes round again
                _log.exception("deletion.broke")
            await asyncio.sleep(GO_ON_SECONDS)

    async def go_on(self) -> None:
        """Go on with deletions that nobody is at, and with the runs of apps that are gone."""
        services, stale = self.services, 0 if self.services.cluster is None else STALE_MS
        database, resolver = services.database, services.resolver
        await workflows_remove.go_on(database, resolver, [self.stop_workflow], stale)
        begun = partial(apps_repository.being_deleted, stale_ms=stale)
        for app_id in await database.read(begun):
            if app_id not in self._busy:
                await self._delete(app_id)
        for app_id in list(self._gone):
            await self._forget_app(app_id)

    async def _delete(self, app_id: str) -> None:
        try:
            await apps_actions.delete_app(
                self.services.database, self.authenticator, app_id, [self.stop_app]
            )
        except NotFound:
            _log.debug("deletion.done_by_another", app_id=app_id)

    async def _forget_app(self, app_id: str) -> None:
        """Remove the rows of an app's runs that are erased by now; with the last, its counts."""
        database = self.services.database
        while await database.write(partial(remove_rows, app_id=app_id, limit=_SOME)) == _SOME:
            continue
        if await database.write(partial(apps_remove.forget_counts, app_id=app_id)):
            self._gone.discard(app_id)
            await self._forget_workflows()

    async def _forget_workflows(self) -> None:
        """Remove workflows that are deleted, as far as no run shows them, and then their apps."""
        database = self.services.database
        await workflows_remove.forget(database)
        await database.write(apps_remove.forget_rows)

    async def forget(self) -> None:
        """Remove what is left of workflows and apps that are gone: what has been erased since, and
        what a request that was under way has stored since."""
        await self._forget_workflows()
        database = self.services.database
        for table in apps_remove.TABLES:
            for app_id in await database.read(partial(apps_remove.left, table=table, most=_SOME)):
                await self.stop_app(app_id)
                await database.write(partial(apps_repository.delete_app, app_id=app_id))
