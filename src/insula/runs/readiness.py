"""The state of this node as others ask for it: whether it is ready, and its figures."""

import asyncio

from prometheus_client import CollectorRegistry, Info
from sqlalchemy import Connection

from insula.adapters.sandbox.pool import SandboxPool
from insula.journal.lease import Lease
from insula.runs.membership import Membership
from insula.runs.metrics import Gauges
from insula.runs.services import RunServices
from insula.runs.sweeper import Sweeper
from insula.settings import Settings
from insula.web.health import Check, Degraded

LATE_SECONDS = 10.0
"""How long ago the queue may have been looked at in a server that is ready, besides two of its
periods."""
_LOOKS = 20


def checks(
    settings: Settings,
    services: RunServices,
    sweeper: Sweeper,
    sandbox: SandboxPool,
    lease: Lease,
    membership: Membership | None,
) -> dict[str, Check]:
    """Return what ``/readyz`` asks, by name."""

    async def stored() -> str | None:
        await services.database.read(_one)
        return None

    async def evaluates() -> str | None:
        for _ in range(_LOOKS):
            if sandbox.stats().alive or not settings.sandbox_warm:
                return None
            await asyncio.sleep(1 / _LOOKS)  # one may be on its way
        return "no worker of the sandbox comes up"

    async def sweeps() -> str | None:
        late = asyncio.get_running_loop().time() - sweeper.swept_at
        allowed = LATE_SECONDS + 2 * sweeper.period
        return None if late < allowed else f"the queue was last looked at {late:.0f} s ago"

    async def takes() -> str | None:
        if services.draining:
            return "draining: no run begins here any more"
        # The lease is written whether or not any run has something to be stored.
        return None if services.can_store and lease.renewed else "nothing can be stored now"

    async def hears() -> str | None:
        found = membership.degraded() if membership is not None else None
        return None if found is None else Degraded(found)

    asked: dict[str, Check] = {"runs": takes, "database": stored, "sandbox": evaluates}
    asked["queue"] = sweeps
    if membership is not None:
        asked["signals"] = hears
    return asked


def show(registry: CollectorRegistry, services: RunServices, sandbox: SandboxPool) -> None:
    """Show the figures that are read when they are asked for."""
    registry.register(
        Gauges(
            {
                "insula_runs_live": ("Runs that execute here.", lambda: len(services.live)),
                "insula_runs_queued": (
                    "Runs that wait to begin, as far as they are offered here.",
                    lambda: len(services.queue),
                ),
                "insula_sandbox_workers": (
                    "Sandbox workers alive.",
                    lambda: sandbox.stats().alive,
                ),
                "insula_sandbox_busy": (
                    "Sandbox workers that run code.",
                    lambda: sandbox.stats().busy,
                ),
                "insula_sandbox_waiting": (
                    "Scripts that wait for a worker.",
                    lambda: sandbox.stats().waiting,
                ),
            }
        )
    )


def show_signals(registry: CollectorRegistry, membership: Membership) -> None:
    """Show what carries messages between nodes, whether it does, and what was lost here."""
    signals, jobs = membership.signals, membership.cluster.jobs
    words = "What carries messages between the nodes."
    Info("insula_signals", words, registry=registry).info({"carrier": membership.carrier})
    registry.register(
        Gauges(
            {
                "insula_signals_connected": (
                    "1 where messages and hints reach other nodes, as far as is known.",
                    lambda: signals.connected and jobs.connected,
                ),
                "insula_signals_lost": (
                    "Messages to other nodes that were dropped here since the start.",
                    lambda: signals.lost,
                ),
                "insula_hints_lost": (
                    "Hints of waiting work that were dropped here since the start.",
                    lambda: jobs.lost,
                ),
            }
        )
    )


def _one(connection: Connection) -> None:
    connection.exec_driver_sql("SELECT 1").scalar()
