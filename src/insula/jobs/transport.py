"""What carries signals and hints, chosen by the scheme of ``INSULA_CLUSTER_URL``."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from nats.aio.client import Client

from insula.jobs.jetstream import JetStreamHints
from insula.jobs.jobs import Jobs, check_word
from insula.jobs.memory_jobs import MemoryJobs
from insula.jobs.memory_signals import MemorySignals
from insula.jobs.nats_link import NatsLink
from insula.jobs.nats_signals import NatsSignals
from insula.jobs.signals import Signals
from insula.jobs.taskiq_jobs import OPEN_WITHIN, TaskiqJobs


@dataclass(frozen=True, slots=True)
class Transport:
    """A node's ways to the others."""

    signals: Signals
    jobs: Jobs


@asynccontextmanager
async def open_transport(cluster_url: str | None, installation: str) -> AsyncIterator[Transport]:
    """Open what the URL names, and close it at the end; without a URL, within this process.

    Nobody waits for a broker: one that is away is connected to when it is there. Installations
    that share a broker have different names, of letters, digits, ``_`` and ``-``.
    """
    if cluster_url is None:
        async with _closing(Transport(MemorySignals(), MemoryJobs())) as transport:
            yield transport
        return
    servers = [part.strip() for part in cluster_url.split(",") if part.strip()]
    if {urlsplit(server).scheme for server in servers} - {"nats", "tls"}:
        raise ValueError("INSULA_CLUSTER_URL is one or several nats:// or tls:// addresses")
    link, transport = _over_nats(servers, f"insula.{check_word('installation', installation)}")
    link.start()
    try:
        async with _closing(transport):
            yield transport
    finally:
        await link.close()


def _over_nats(servers: Sequence[str], prefix: str) -> tuple[NatsLink, Transport]:
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
    return link, Transport(signals, jobs)


@asynccontextmanager
async def _closing(transport: Transport) -> AsyncIterator[Transport]:
    try:
        yield transport
    finally:
        await transport.jobs.close()
        await transport.signals.close()
