"""The composition root: builds the whole product from its settings, top to bottom, and takes it
down again in the opposite order.
"""

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import structlog
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from starlette.types import ASGIApp

from insula.adapters.blobs.opening import open_blobs
from insula.adapters.http.client import HttpClient
from insula.adapters.http.egress import EgressPolicy
from insula.adapters.keyring import open_ring
from insula.adapters.models.providers import ModelProviders
from insula.adapters.sandbox.pool import SandboxPool
from insula.adapters.sealed_rows import check_keys
from insula.adapters.services.registry import ServiceRegistry
from insula.apps.actions import create_app
from insula.apps.authenticate import Authenticator
from insula.collections.keeper import Keeper, open_records
from insula.connections.opening import Connections
from insula.deletion import Deletion
from insula.engine.ports import Limits, Ports, Timeouts
from insula.files.actions import FileActions
from insula.files.reader import FileReader
from insula.files.resolve import FileInputs, base_url
from insula.jobs.queue import FairQueue
from insula.jobs.transport import Transport, open_transport
from insula.journal.journal import Journal
from insula.journal.lease import Lease
from insula.kit.folders import make_folder
from insula.kit.ids import new_id
from insula.routes import Parts, fast_routes, routers
from insula.runs.child_start import begin_child
from insula.runs.dispatch import (
    drain,
    reclaim_for_ever,
    serve_queue,
    shut_down,
    sweep,
    sweep_for_ever,
    watch_storage,
)
from insula.runs.erasing import erase_for_ever
from insula.runs.live import LiveRuns
from insula.runs.membership import Membership, callbacks, installation_id
from insula.runs.metrics import RunMetrics
from insula.runs.readiness import checks, show, show_signals
from insula.runs.repository import create_many
from insula.runs.services import RunServices
from insula.schedules.timekeeper import Timekeeper
from insula.settings import Settings, SettingsError
from insula.storage.database import Database
from insula.storage.gather import Gathering
from insula.storage.lock import SOCKET, FolderLock
from insula.storage.opening import open_database
from insula.variables.scope import Variables
from insula.web.health import Check
from insula.web.openapi import create_application
from insula.web.server import serve
from insula.webhooks.opening import open_webhooks
from insula.workflow_tests.opening import open_tests
from insula.workflows.resolve import Resolver


@dataclass(frozen=True, slots=True)
class Insula:
    """The product, running in this process."""

    settings: Settings
    asgi: ASGIApp
    services: RunServices
    database: Database
    lock: FolderLock
    sandbox: SandboxPool
    membership: Membership | None
    """Its place in the cluster; ``None``: it is alone with its data folder."""
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    """Set it, once the server is being stopped, to stop what runs at once."""

    async def create_app(self, name: str) -> tuple[str, str]:
        """Make an app; return its id and its first key."""
        row, key, _ = await create_app(self.database, name)
        assert key is not None
        return row.id, key

    async def serve(
        self,
        host: str,
        port: int,
        ready: Callable[[int], None],
        stop: asyncio.Event | None = None,
    ) -> None:
        """Serve HTTP until ``stop`` is set or the task is cancelled.

        After the stop no run begins; live ones have some seconds to end, while their callers stay.
        """

        def listening(real_port: int) -> None:
            address = base_url(host, real_port)
            self.lock.announce(address)
            if self.settings.public_url is None:
                self.services.files.store.urls.base = address
            ready(real_port)

        socket = self.settings.data_dir / SOCKET
        drained = asyncio.Event()
        draining = asyncio.create_task(self._drain(stop or asyncio.Event(), drained))
        # Stopping the runs answers those who wait for them: the run goes on at the next start.
        last_call = partial(shut_down, self.services)
        try:
            await serve(self.asgi, host, port, listening, drained, uds=socket, last_call=last_call)
        finally:
            draining.cancel()
            await asyncio.wait([draining])

    async def work(self, stop: asyncio.Event) -> None:
        """Execute runs of the cluster, without HTTP, until ``stop`` is set."""
        await self._drain(stop, asyncio.Event())

    async def _drain(self, stop: asyncio.Event, drained: asyncio.Event) -> None:
        await stop.wait()
        try:
            await drain(self.services, self.settings.drain_seconds, self.hurry)
            await shut_down(self.services)
        finally:
            drained.set()


@asynccontextmanager
async def open_insula(settings: Settings) -> AsyncIterator[Insula]:
    """Open the data folder, start everything, go on with the runs that were interrupted.

    Raises:
        FolderLocked: another process holds the folder.
        NewerSchema: a later version of the program wrote the database.
        ForeignFile: another program did.
        SettingsError: a cluster is named, and no database that nodes can share.
        DatabaseUnusable: there is none at the URL of the settings that could be used.
    """
    _log_plainly()
    if settings.cluster_url is not None and settings.database_url is None:
        raise SettingsError(
            "INSULA_CLUSTER_URL: the nodes of a cluster share one PostgreSQL database; set "
            "INSULA_DATABASE_URL too"
        )
    folder = settings.data_dir
    make_folder(folder)
    async with AsyncExitStack() as stack:
        lock = stack.enter_context(FolderLock(folder))
        url = _secret(settings.database_url)
        node = os.uname().nodename
        database = await open_database(
            url, folder, settings.synchronous, f"insula {node}", settings.database_readers
        )
        stack.push_async_callback(database.close)
        keys = settings.secret_keys
        ring = open_ring(folder, None if keys is None else keys.get_secret_value())
        await check_keys(database, ring, lost=settings.secret_keys_lost)
        variables = await Variables.open(database, ring)
        connections = Connections(database, ring)
        token = new_id("node")
        transport = None
        installation = await database.write(installation_id)
        if url is not None:
            transport = await _open_transport(settings, installation, stack)
        journal = Journal(database, token, None if transport is None else transport.signals)
        stack.push_async_callback(journal.close)
        sandbox = SandboxPool(maximum=settings.sandbox_max, warm=settings.sandbox_warm)
        await sandbox.start()
        stack.push_async_callback(sandbox.close)
        policy = EgressPolicy(settings.egress_allow)
        http = HttpClient(policy)
        stack.push_async_callback(http.close)
        models = ModelProviders(policy, os.environ)
        stack.push_async_callback(models.close)
        blobs = await stack.enter_async_context(open_blobs(settings, installation))
        files = await FileInputs.open(database, blobs, http, settings, lambda: journal.token)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        services = _services(settings, database, journal, sandbox, http, models, files, group)
        services.equip = partial(_equip, variables, connections)
        records = open_records(services)
        webhooks = open_webhooks(services, ring)
        records.tell.append(webhooks.teller.record)
        registry = CollectorRegistry()
        services.metrics = RunMetrics(registry)
        show(registry, services, sandbox)
        stack.push_async_callback(services.resolver.close)
        # Alone with the folder is alone with the database in it, and with no other.
        lease = Lease(database, journal, node, exclusive=url is None, **callbacks(services))
        await lease.take()
        stack.callback(group.create_task(lease.keep()).cancel)
        authenticator = Authenticator(database)
        membership = None
        if transport is not None:
            expected = settings.cluster_url is not None
            membership = Membership(
                services, lease, transport, authenticator, signals_expected=expected
            )
            await membership.join()
            show_signals(registry, membership)
            stack.push_async_callback(membership.leave)
        stack.push_async_callback(shut_down, services)
        stack.push_async_callback(authenticator.write_last_used)
        # Runs that were interrupted go on at once: whoever equips them, or is to hear of their
        # ends, has to be there before.
        tests = open_tests(services)
        await webhooks.deliverer.refresh()
        await sweep(services)
        timekeeper = Timekeeper(services)
        services.resolver.watchers.append(lambda _: timekeeper.wake())
        deletion = Deletion(
            services, authenticator, variables, connections, webhooks, tests, records
        )
        working = [
            group.create_task(work)
            for work in (
                *(membership.work() if membership else ()),
                watch_storage(services),
                authenticator.run(),
                serve_queue(services),
                sweep_for_ever(services),
                timekeeper.run(),
                webhooks.run(),
                tests.run(),
                Keeper(records).run(),
                deletion.run(),
                files.documents.run(),
                erase_for_ever(services),
                reclaim_for_ever(services, database.reclaim),
                variables.forget_for_ever(),
                journal.compactor.run(),
            )
        ]
        stack.callback(_cancel, working)
        parts = Parts(
            services,
            authenticator,
            variables,
            connections,
            timekeeper,
            webhooks,
            tests,
            records,
            deletion,
        )
        health = checks(settings, services, sandbox, lease, membership)
        asgi = _application(settings, parts, health, registry)
        yield Insula(settings, asgi, services, database, lock, sandbox, membership)


async def _open_transport(
    settings: Settings, installation: str, stack: AsyncExitStack
) -> Transport:
    opening = open_transport(_secret(settings.carrier_url), installation)
    try:
        return await stack.enter_async_context(opening)
    except ValueError as error:
        raise SettingsError(f"INSULA_CLUSTER_URL: {error}") from None


def _secret(setting: SecretStr | None) -> str | None:
    return None if setting is None else setting.get_secret_value()


def _log_plainly() -> None:
    """Log to standard error, and tracebacks without the values of variables: they hold inputs,
    outputs and keys. An embedder that has configured its log keeps it.
    """
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.dev.ConsoleRenderer(
                colors=False, exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


async def _equip(
    variables: Variables,
    connections: Connections,
    ports: Ports,
    app_id: str,
    seed: str,
    began: int | None,
) -> Ports:
    """Give a run what its workflow's app keeps for it."""
    connected = await connections.equip(ports, app_id)
    return await variables.equip(connected, app_id, seed, began)


def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()


def _services(
    settings: Settings,
    database: Database,
    journal: Journal,
    sandbox: SandboxPool,
    http: HttpClient,
    models: ModelProviders,
    files: FileInputs,
    group: asyncio.TaskGroup,
) -> RunServices:
    reader = FileReader(files.store, files.documents)
    services = RunServices(
        database=database,
        journal=journal,
        resolver=Resolver(database),
        sandbox=sandbox,
        http=http,
        models=models,
        files=files,
        actions=ServiceRegistry({"FILES": FileActions(files, reader)}),
        file_reader=reader,
        live=LiveRuns(settings.runs_max, settings.runs_share, settings.app_runs_max),
        queue=FairQueue(),
        group=group,
        creating=Gathering(database, create_many),
        timeouts=Timeouts(
            code=settings.timeout_code,
            http_request=settings.timeout_http,
            model=settings.timeout_model,
            browser=settings.timeout_browser,
            service=settings.timeout_service,
        ),
        limits=Limits(
            cpu=settings.sandbox_cpu,
            wall=min(settings.sandbox_wall, settings.timeout_code),
            memory=settings.sandbox_memory,
            output=settings.sandbox_output,
            logs=settings.sandbox_logs,
        ),
        run_timeout=settings.timeout_run,
        prices={str(kind): price for kind, price in settings.step_prices.items()},
        max_attempts=settings.attempts_max,
        max_iterations=settings.loop_max,
        max_output=settings.run_output_max,
        queue_max=settings.queue_max,
        rows_days=settings.run_rows_days,
        retention=settings.retention,
        patience=settings.storage_patience,
    )
    services.begin_child = partial(begin_child, services)
    return services


def _application(
    settings: Settings, parts: Parts, health: Mapping[str, Check], registry: CollectorRegistry
) -> ASGIApp:
    return create_application(
        routers(parts),
        parts.authenticator,
        health,
        settings,
        registry=registry,
        routes=fast_routes(parts.services),
    )
