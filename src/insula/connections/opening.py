"""The connections that runs use: those of their workflow's app, opened and kept for a moment."""

import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection, Row

from insula.adapters.keyring import KeyRing, Unreadable
from insula.connections import repository
from insula.connections.actions import KIND, found
from insula.connections.models import ConnectedModels, Providers
from insula.connections.schemas import provider_of, url_of
from insula.engine.ports import Credentials, Ports
from insula.kit.json import decode
from insula.storage.database import Database

_log = structlog.get_logger(__name__)
FRESH_SECONDS = 2.0
"""How long what is kept is believed: another node may have changed it."""
_APPS = 500


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection with its credentials, for whoever sends a request with them."""

    id: str
    type: str
    kept: dict[str, Any]
    credentials: dict[str, str] = field(repr=False)

    def model_provider(self) -> Credentials | None:
        """Return how to reach the model provider; ``None``: it is none."""
        provider, url = provider_of(self.type, self.kept), url_of(self.type, self.kept)
        if provider is None or url is None:
            return None
        return Credentials(self.id, self.type, provider, url, self.credentials.get("api_key"))


class Connections:
    """Opens connections. One for a process; whoever changes connections tells it."""

    def __init__(self, database: Database, ring: KeyRing) -> None:
        self.database = database
        self.ring = ring
        self._kept: OrderedDict[str, tuple[float, Providers]] = OrderedDict()
        self._changes = 0

    async def equip(self, ports: Ports, app_id: str) -> Ports:
        """Return the ports of a run of this app's workflow, with its connections."""
        providers = await self._providers(app_id)
        if not providers.connected and providers.default is None:
            return ports
        told = ports.app_id == app_id
        return replace(ports, models=ConnectedModels(ports.models, providers, told=told))

    async def open(self, app_id: str, connection_id: str) -> Opened:
        """Open one connection of an app.

        Raises:
            NotFound: the app has none with this id.
            Unreadable: its credentials cannot be decrypted; says why.
        """
        return self._opened(
            await self.database.read(partial(found, app_id=app_id, connection_id=connection_id))
        )

    def changed(self, app_id: str) -> None:
        """Forget what is kept of an app."""
        self._changes += 1
        self._kept.pop(app_id, None)

    async def remove_app(self, app_id: str) -> None:
        """Remove all connections of an app."""
        await self.database.write(partial(repository.remove_app, app_id=app_id))
        self.changed(app_id)

    async def _providers(self, app_id: str) -> Providers:
        kept, now = self._kept.get(app_id), time.monotonic()
        if kept is not None and kept[0] > now:
            self._kept.move_to_end(app_id)
            return kept[1]
        changes = self._changes
        rows, settings = await self.database.read(partial(_rows, app_id=app_id))
        providers = Providers(tuple(self._readable(rows)), settings.get("model_default") or None)
        if changes == self._changes:  # else what was read may be older than a change
            self._kept[app_id] = (now + FRESH_SECONDS, providers)
            self._kept.move_to_end(app_id)
            if len(self._kept) > _APPS:
                self._kept.popitem(last=False)
        return providers

    def _readable(self, rows: list[Row[Any]]) -> list[Credentials]:
        """Open those of model providers; one that does not open is as if it were not there."""
        opened = []
        for row in rows:
            try:
                credentials = self._opened(row).model_provider()
            except Unreadable as error:
                _log.error("connection.unreadable", connection_id=row.id, reason=str(error))
                continue
            if credentials is not None:
                opened.append(credentials)
        return opened

    def _opened(self, row: Row[Any]) -> Opened:
        text = self.ring.open(row.sealed, KIND, row.app_id, row.id)
        return Opened(row.id, row.type, decode(row.settings), decode(text))


def _rows(connection: Connection, app_id: str) -> tuple[list[Row[Any]], dict[str, Any]]:
    rows = list(repository.oldest_first(connection, app_id))
    return rows, decode(repository.app_settings(connection, app_id))
