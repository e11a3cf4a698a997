"""A node's place in its cluster, from joining to leaving it: what it tells the others, and what it
hears from them.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection, select

from insula.apps.authenticate import Authenticator
from insula.errors import InsulaError
from insula.jobs.transport import Transport
from insula.journal.lease import Lease
from insula.kit.ids import new_id
from insula.runs import nodes
from insula.runs.cancel import cancel_workflow
from insula.runs.cluster import CHANGED, KEYS, SWEEP, Cluster
from insula.runs.dispatch import serve_hints
from insula.runs.services import RunServices
from insula.runs.sweeper import Sweeper
from insula.storage.dialect import insert
from insula.storage.tables import facts

FRESH_SECONDS = 2.0
"""How long what was read of workflows and keys is believed, where another node may have changed it
and the message about it was lost."""
_FACT = "installation"
_ID_MAX = 200
_DELETED = "deleted"

_log = structlog.get_logger(__name__)


def installation_id(connection: Connection) -> str:
    """In a unit: return the name of this installation, made at the first call."""
    query = select(facts.c.value).where(facts.c.name == _FACT)
    made = new_id("inst").encode()
    row = insert(connection, facts).values(name=_FACT, value=made)
    connection.execute(row.on_conflict_do_nothing())
    return bytes(connection.execute(query).scalar_one()).decode()


class Membership:
    """One node's membership. ``signals_expected`` says whether there should be a broker."""

    def __init__(
        self,
        services: RunServices,
        sweeper: Sweeper,
        lease: Lease,
        transport: Transport,
        authenticator: Authenticator,
        *,
        signals_expected: bool,
    ) -> None:
        self.signals = transport.signals
        self.cluster = Cluster(transport.signals, transport.jobs)
        self.carrier = transport.carrier
        self.signals_expected = signals_expected
        self._services = services
        self._sweeper = sweeper
        self.lease = lease
        self._authenticator = authenticator
        self._late: set[asyncio.Task[None]] = set()

    async def join(self) -> None:
        """Begin to hear the others, and to tell them what changes here."""
        services = self._services
        if not self.signals_expected:
            _log.info("cluster.without_broker", setting="INSULA_CLUSTER_URL")
        services.cluster = self.cluster
        services.resolver.fresh_for = FRESH_SECONDS
        services.resolver.watchers.append(self._tell_changed)
        self._authenticator.fresh_ms = int(FRESH_SECONDS * 1000)
        self._authenticator.watchers.append(self._tell_keys)
        await nodes.listen(services, self.cluster, self._sweeper.wanted.set)
        await self.signals.listen(CHANGED, self._changed)
        await self.signals.listen(KEYS, self._keys)

    def work(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """Return what a node of a cluster does besides, each to be run as a task."""
        return (serve_hints(self._services, self.cluster),)

    async def leave(self) -> None:
        """Give the lease up and say so: the others go on with what was left here at once."""
        for task in self._late:
            task.cancel()
        with contextlib.suppress(InsulaError, TimeoutError):  # then it expires
            await self.lease.release()
        self.signals.publish(SWEEP)
        await asyncio.sleep(0)

    def degraded(self) -> str | None:
        """Say what works less well than it should, if anything does."""
        if not self.signals_expected or (self.signals.connected and self.cluster.jobs.connected):
            return None
        trouble = self.signals.trouble
        return (
            f"{self.carrier} carries nothing now{f' ({trouble})' if trouble else ''}: cancels at "
            "other nodes arrive with the renewal of the lease, streams of other nodes' runs come "
            "later"
        )

    def _tell_changed(self, workflow_id: str) -> None:
        self.signals.publish(CHANGED, workflow_id.encode())
        task = asyncio.get_running_loop().create_task(self._stop_late(workflow_id))
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _stop_late(self, workflow_id: str) -> None:
        """Stop what another node began in a deleted workflow before it knew."""
        await asyncio.sleep(FRESH_SECONDS + 1)
        try:
            found = await self._services.resolver.facts(workflow_id)
            if found is not None and found.deleted:
                await cancel_workflow(self._services, workflow_id, _DELETED)
        except InsulaError as error:
            _log.warning("cancel.not_done", workflow_id=workflow_id, reason=error.message)

    def _tell_keys(self, app_id: str) -> None:
        self.signals.publish(KEYS, app_id.encode())

    def _changed(self, body: bytes) -> None:
        self._services.resolver.forget(_text(body))

    def _keys(self, body: bytes) -> None:
        self._authenticator.drop(_text(body))


def _text(body: bytes) -> str:
    return body[:_ID_MAX].decode("ascii", "replace")


def callbacks(services: RunServices) -> dict[str, Any]:
    """Return what a lease calls, for its constructor."""
    return {
        "cancel_requested": partial(nodes.heed, services),
        "rejoined": partial(nodes.rejoined, services),
    }
