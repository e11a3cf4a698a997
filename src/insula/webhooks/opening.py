"""Webhooks as one part of the product: what the composition root opens, runs and hands on."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Row

from insula.adapters.keyring import KeyRing
from insula.runs.services import RunServices
from insula.storage.database import Database
from insula.webhooks import actions, repository, tokens
from insula.webhooks.deliver import TIMEOUT, Deliverer
from insula.webhooks.telling import Teller

_LOOKS = 0.02


@dataclass(slots=True)
class Webhooks:
    """What the routes of webhooks work with."""

    services: RunServices
    ring: KeyRing
    teller: Teller
    deliverer: Deliverer

    @property
    def database(self) -> Database:
        """Where webhooks and deliveries are stored."""
        return self.services.database

    async def changed(self) -> None:
        """Webhooks were changed here: what this process knows of them follows at once."""
        await self.deliverer.refresh()
        await self.deliverer.stop_gone()

    async def attempted(self, app_id: str, webhook_id: str, delivery_id: str) -> Row[Any]:
        """Return a delivery once it was attempted, or as it is after the time for that."""
        self.deliverer.due.set()
        query = partial(
            actions.delivery, app_id=app_id, webhook_id=webhook_id, delivery_id=delivery_id
        )
        ends = asyncio.get_running_loop().time() + TIMEOUT + 1
        while True:
            row = await self.database.read(query)
            if bytes(row.log) != b"[]" or asyncio.get_running_loop().time() > ends:
                return row
            await asyncio.sleep(_LOOKS)

    async def run(self) -> None:
        """Deliver what is due; for ever."""
        await self.deliverer.run()

    async def remove_workflow(self, workflow_id: str) -> None:
        """Let nothing from the outside start a workflow any more."""
        await self.database.write(partial(tokens.remove_workflow, workflow_id=workflow_id))

    async def remove_app(self, app_id: str) -> None:
        """Remove an app's webhooks, and the addresses that start its runs."""
        await self.database.write(partial(repository.remove_app, app_id=app_id))
        await self.changed()


def open_webhooks(services: RunServices, ring: KeyRing) -> Webhooks:
    """Return the webhooks of an installation, and let them hear how runs end."""
    due = asyncio.Event()
    teller = Teller(due.set)
    services.at_end.append(teller.at_end)
    services.after_end.append(teller.after_end)
    return Webhooks(services, ring, teller, Deliverer(services, ring, teller, due))
