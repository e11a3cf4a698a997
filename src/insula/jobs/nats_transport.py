"""Signals and hints over one connection to NATS."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from nats.aio.client import Client

from insula.jobs.jetstream import JetStreamHints
from insula.jobs.nats_link import NatsLink
from insula.jobs.nats_signals import NatsSignals
from insula.jobs.taskiq_jobs import OPEN_WITHIN, TaskiqJobs


@asynccontextmanager
async def open_nats(
    servers: Sequence[str], prefix: str
) -> AsyncIterator[tuple[NatsSignals, TaskiqJobs]]:
    """Begin to connect, and close everything at the end."""
    link = NatsLink(servers, prefix)

    async def open_broker(kind: str) -> JetStreamHints:
        broker = JetStreamHints(await link.opened(), prefix, kind)
        async with asyncio.timeout(OPEN_WITHIN):
            await broker.startup()
        return broker

    jobs = TaskiqJobs(open_broker, reachable=lambda: link.client is not None)

    async def until_lost(_: Client) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            jobs.broken()

    signals = NatsSignals(link, prefix)
    link.beside(until_lost)
    link.start()
    try:
        yield signals, jobs
    finally:
        await jobs.close()
        await signals.close()
        await link.close()
