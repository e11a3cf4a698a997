"""What carries signals and hints, chosen by the scheme of ``INSULA_CLUSTER_URL``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from insula.jobs.jobs import Jobs, check_word
from insula.jobs.memory_jobs import MemoryJobs
from insula.jobs.memory_signals import MemorySignals
from insula.jobs.signals import Signals


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

    Raises:
        ValueError: the URL names no broker that is known, or the installation's name is no word.
    """
    if cluster_url is None:
        signals, jobs = MemorySignals(), MemoryJobs()
        try:
            yield Transport(signals, jobs)
        finally:
            await jobs.close()
            await signals.close()
        return
    servers = [part.strip() for part in cluster_url.split(",") if part.strip()]
    if not servers or {urlsplit(server).scheme for server in servers} - {"nats", "tls"}:
        raise ValueError("INSULA_CLUSTER_URL is one or several nats:// or tls:// addresses")
    # Its libraries are 13 MiB and a moment's loading that a node alone has no use for.
    from insula.jobs.nats_transport import open_nats

    prefix = f"insula.{check_word('installation', installation)}"
    async with open_nats(servers, prefix) as over_nats:
        yield Transport(*over_nats)
