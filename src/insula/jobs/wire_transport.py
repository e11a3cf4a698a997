"""Signals and hints over one wire."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from insula.jobs.pulled_jobs import PulledJobs
from insula.jobs.wire import OpenWire
from insula.jobs.wire_link import WireLink
from insula.jobs.wire_signals import WireSignals


@asynccontextmanager
async def open_over_wire(
    open_wire: OpenWire, where: str, prefix: str
) -> AsyncIterator[tuple[WireSignals, PulledJobs]]:
    """Begin to connect, and close everything at the end. ``where`` is what the log may show."""
    link = WireLink(open_wire, where)
    signals = WireSignals(link, prefix)
    await signals.open()
    jobs = PulledJobs(signals)
    await jobs.open()
    link.start()
    try:
        yield signals, jobs
    finally:
        await jobs.close()
        await signals.close()
        await link.close()
