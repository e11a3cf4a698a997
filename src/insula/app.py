"""The composition root: builds the whole product from its settings, top to bottom, and takes it
down again in the opposite order.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from starlette.types import ASGIApp

from insula.adapters.blobs.opening import open_blobs
from insula.adapters.http.client import HttpClient
from insula.adapters.http.egress import EgressPolicy
from insula.adapters.keyring import KeyRing, open_ring
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
from insula.kit.log_lines import log_plainly
from insula.kit.tasks import end
from insula.routes import Parts, fast_routes, routers
from insula.runs.child_start import begin_child
from insula.runs.dispatch import (
    drain,
    serve_queue,
    shut_down,
    watch_storage,
)
from insula.runs.erasing import erase_for_ever
from insula.runs.live import LiveRuns
from insula.runs.membership import Membership, callbacks, installation_id
from insula.runs.metrics import RunMetrics
from insula.runs.readiness import checks, show, show_signals
from insula.runs.reclaim import reclaim_for_ever
from insula.runs.repository import create_many
from insula.runs.services import RunServices
from insula.runs.sweeper import Sweeper
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
from insula.workflow_tests.begin import outfit
from insula.workflow_tests.runner import TestRunner
from insula.workflows.resolve import Resolver


@dataclass(frozen=True, slots=True)
class Insula:
    """The product, running in this process."""

    settings: Settings
    asgi: ASGIApp
    services: RunServices
    sweeper: Sweeper
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
            await end(draining)

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
async def open_insula(settings: Settings, *, only_asked: bool = False) -> AsyncIterator[Insula]:
    """Open the data folder, start everything, go on with the runs that were interrupted.

    With ``only_asked`` nothing is done that is not asked for here: what earlier processes left,
    what waits, and what is due by the clock stay for a server.

    Raises:
        FolderLocked: another process holds the folder.
        NewerSchema: a later version of the program wrote the database.
        ForeignFile: another program did.
        SettingsError: a cluster is named, and no database that nodes can share.
        DatabaseUnusable: there is none at the URL of the settings that could be used.
    """
    log_plainly(logging.WARNING if only_asked else logging.INFO)
    if settings.cluster_url is not None and settings.database_url is None:
        raise SettingsError(
            "INSULA_CLUSTER_URL: the nodes of a cluster share one PostgreSQL database; set "
            "INSULA_DATABASE_URL too"
        )
    make_folder(settings.data_dir)
    async with AsyncExitStack() as stack:
        lock = stack.enter_context(FolderLock(settings.data_dir))
        stored = await _open_storage(settings, stack)
        outside = await _open_outside(settings, stored, stack)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        services = _services(settings, stored, outside, group)
        services.only_asked = only_asked
        stack.push_async_callback(services.resolver.close)
        registry = CollectorRegistry()
        services.metrics = RunMetrics(registry)
        parts = await _open_concepts(stored, services)
        sweeper = Sweeper(services)
        lease, membership = await _join(settings, stored, parts, sweeper, stack)
        stack.push_async_callback(shut_down, services)
        stack.push_async_callback(parts.authenticator.write_last_used)
        # Runs that were interrupted go on at once: whoever equips them, or is to hear of their
        # ends, has to be there before.
        await parts.webhooks.deliverer.refresh()
        if only_asked:
            works = _work_asked_for(parts)
        else:
            await sweeper.sweep()
            works = _work(parts, sweeper, membership)
        for work in works:
            stack.callback(group.create_task(work).cancel)
        show(registry, services, outside.sandbox)
        if membership is not None:
            show_signals(registry, membership)
        health = checks(settings, services, sweeper, outside.sandbox, lease, membership)
        asgi = _application(settings, parts, health, registry)
        yield Insula(
            settings, asgi, services, sweeper, stored.database, lock, outside.sandbox, membership
        )


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where everything is kept, and what carries messages between the nodes that share it."""

    installation: str
    database: Database
    ring: KeyRing
    variables: Variables
    transport: Transport | None
    journal: Journal


async def _open_storage(settings: Settings, stack: AsyncExitStack) -> _Stored:
    url = _secret(settings.database_url)
    database = await open_database(
        url, settings.data_dir, settings.synchronous, f"insula {_node()}", settings.database_readers
    )
    stack.push_async_callback(database.close)
    ring = open_ring(settings.data_dir, _secret(settings.secret_keys))
    await check_keys(database, ring, lost=settings.secret_keys_lost)
    variables = await Variables.open(database, ring)
    installation = await database.write(installation_id)
    transport = None
    if url is not None:
        transport = await _open_transport(settings, installation, stack)
    signals = None if transport is None else transport.signals
    journal = Journal(database, new_id("node"), signals)
    stack.push_async_callback(journal.close)
    return _Stored(installation, database, ring, variables, transport, journal)


@dataclass(frozen=True, slots=True)
class _Outside:
    """What reaches beyond the process, and what runs apart from it."""

    sandbox: SandboxPool
    http: HttpClient
    models: ModelProviders
    files: FileInputs


async def _open_outside(settings: Settings, stored: _Stored, stack: AsyncExitStack) -> _Outside:
    sandbox = SandboxPool(maximum=settings.sandbox_max, warm=settings.sandbox_warm)
    await sandbox.start()
    stack.push_async_callback(sandbox.close)
    policy = EgressPolicy(settings.egress_allow)
    http = HttpClient(policy)
    stack.push_async_callback(http.close)
    models = ModelProviders(policy, os.environ)
    stack.push_async_callback(models.close)
    blobs = await stack.enter_async_context(open_blobs(settings, stored.installation))
    journal = stored.journal
    files = await FileInputs.open(stored.database, blobs, http, settings, lambda: journal.token)
    return _Outside(sandbox, http, models, files)


async def _open_concepts(stored: _Stored, services: RunServices) -> Parts:
    """Make what each concept works with, and let them hear of runs what they have to."""
    authenticator = Authenticator(stored.database)
    variables = stored.variables
    connections = Connections(stored.database, stored.ring)
    services.equip = partial(_equip, variables, connections)
    services.begin_child = partial(begin_child, services)
    records = open_records(services)
    webhooks = open_webhooks(services, stored.ring)
    records.tell.append(webhooks.teller.record)
    tests = TestRunner(services)
    services.outfit = partial(outfit, services)
    services.after_end.append(tests.ended)
    timekeeper = Timekeeper(services)
    services.resolver.watchers.append(lambda _: timekeeper.wake())
    return Parts(
        services=services,
        authenticator=authenticator,
        variables=variables,
        connections=connections,
        timekeeper=timekeeper,
        webhooks=webhooks,
        tests=tests,
        records=records,
        deletion=Deletion(
            services=services,
            authenticator=authenticator,
            variables=variables,
            connections=connections,
            webhooks=webhooks,
            tests=tests,
            records=records,
        ),
    )


async def _join(
    settings: Settings, stored: _Stored, parts: Parts, sweeper: Sweeper, stack: AsyncExitStack
) -> tuple[Lease, Membership | None]:
    """Take the lease under which runs are executed here, and a place among the nodes."""
    services, database, transport = parts.services, stored.database, stored.transport
    # Alone with the folder is alone with the database in it, and with no other.
    alone = settings.database_url is None
    lease = Lease(database, stored.journal, _node(), exclusive=alone, **callbacks(services))
    await lease.take()
    keeping = services.group.create_task(lease.keep())
    stack.callback(keeping.cancel)
    if transport is None:
        return lease, None
    expected = settings.cluster_url is not None
    membership = Membership(
        services, sweeper, lease, transport, parts.authenticator, signals_expected=expected
    )
    await membership.join()
    stack.push_async_callback(membership.leave)
    # Before: kept meanwhile, a lease that was given up would look lost, and another be taken.
    stack.push_async_callback(end, keeping)
    return lease, membership


def _work_asked_for(parts: Parts) -> Iterator[Coroutine[Any, Any, None]]:
    """Yield what even a process needs that does nothing but what it is asked to."""
    services = parts.services
    yield watch_storage(services)
    yield parts.authenticator.run()
    yield services.files.documents.run(only_asked=services.only_asked)


def _work(
    parts: Parts, sweeper: Sweeper, membership: Membership | None
) -> Iterator[Coroutine[Any, Any, None]]:
    """Yield what goes on for as long as the product runs, each to be run as a task."""
    services = parts.services
    yield from _work_asked_for(parts)
    if membership is not None:
        yield from membership.work()
    yield serve_queue(services)
    yield sweeper.run()
    yield parts.timekeeper.run()
    yield parts.webhooks.run()
    yield parts.tests.run()
    yield Keeper(parts.records).run()
    yield parts.deletion.run()
    yield erase_for_ever(services)
    yield reclaim_for_ever(services, services.database.reclaim)
    yield parts.variables.forget_for_ever()
    yield services.journal.compactor.run()


async def _open_transport(
    settings: Settings, installation: str, stack: AsyncExitStack
) -> Transport:
    opening = open_transport(_secret(settings.carrier_url), installation)
    try:
        return await stack.enter_async_context(opening)
    except ValueError as error:
        raise SettingsError(f"INSULA_CLUSTER_URL: {error}") from None


def _node() -> str:
    return os.uname().nodename


def _secret(setting: SecretStr | None) -> str | None:
    return None if setting is None else setting.get_secret_value()


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


def _services(
    settings: Settings, stored: _Stored, outside: _Outside, group: asyncio.TaskGroup
) -> RunServices:
    database, files = stored.database, outside.files
    reader = FileReader(files.store, files.documents)
    return RunServices(
        database=database,
        journal=stored.journal,
        resolver=Resolver(database),
        sandbox=outside.sandbox,
        http=outside.http,
        models=outside.models,
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
