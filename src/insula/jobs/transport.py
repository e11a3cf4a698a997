"""What carries signals and hints, chosen by the scheme of ``INSULA_CLUSTER_URL``."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from insula.jobs import postgres_wire, redis_wire
from insula.jobs.jobs import Jobs, check_word
from insula.jobs.memory_jobs import MemoryJobs
from insula.jobs.memory_signals import MemorySignals
from insula.jobs.signals import Signals
from insula.jobs.wire import OpenWire
from insula.jobs.wire_transport import open_over_wire
from insula.storage.postgres_address import describe

_POSTGRES = ("postgresql://", "postgres://")
_REDIS = ("redis://", "rediss://")


@dataclass(frozen=True, slots=True)
class Transport:
    """A node's ways to the others."""

    signals: Signals
    jobs: Jobs
    carrier: str = "this process"
    """What carries them, by name."""


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
    prefix = f"insula.{check_word('installation', installation)}"
    if (wired := _wire(cluster_url)) is not None:
        carrier, where, open_wire = wired
        async with open_over_wire(open_wire, where, prefix) as over_wire:
            yield Transport(*over_wire, carrier=carrier)
        return
    servers = [part.strip() for part in cluster_url.split(",") if part.strip()]
    if not servers or {urlsplit(server).scheme for server in servers} - {"nats", "tls"}:
        raise ValueError(
            "INSULA_CLUSTER_URL is one or several nats:// or tls:// addresses, or postgresql://…, "
            "or redis://…"
        )
    # Its libraries are 13 MiB and a moment's loading that a node alone has no use for.
    from insula.jobs.nats_transport import open_nats

    async with open_nats(servers, prefix) as over_nats:
        yield Transport(*over_nats, carrier="NATS")


def _wire(url: str) -> tuple[str, str, OpenWire] | None:
    """Return the name of the carrier, where it is, and how to connect; ``None``: it has no wire."""
    if url.startswith(_POSTGRES):
        return "PostgreSQL", describe(url), partial(postgres_wire.open_wire, url)
    if url.startswith(_REDIS):
        return "Redis", redis_wire.describe(url), partial(redis_wire.open_wire, url)
    return None
