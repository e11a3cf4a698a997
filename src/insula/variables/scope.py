"""The variables that a run sees: those of its workflow's app, as they were when it began.

Plain ones are their values. Secrets are handles, made anew for every run, so that what one run has
said of them is nothing to another; the same for all attempts at a run, and for its children.
"""

import asyncio
import hashlib
import hmac
import secrets as random
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from functools import partial

import structlog
from sqlalchemy import Connection, insert, select

from insula.adapters.guarded import GuardedHttp, GuardedModels, GuardedSandbox, GuardedServices
from insula.adapters.keyring import KeyRing, Unreadable
from insula.engine.failures import StepFailure
from insula.engine.masking import Masker
from insula.engine.ports import Ports
from insula.engine.secrets import Secret, Secrets
from insula.kit import json
from insula.kit.clock import now_ms
from insula.storage.database import Database
from insula.storage.tables import facts
from insula.variables import repository
from insula.variables.actions import KIND

_log = structlog.get_logger(__name__)

FRESH_SECONDS = 2.0
"""How long what is kept is believed: another node may have changed it."""
KEPT_MS = 25 * 3600 * 1000
"""How long a value is kept that has changed, for runs that began with it: they last a day."""
_EVERY_SECONDS = 600.0
_APPS = 500
_UNREADABLE = "A secret of the workflow's app cannot be read; its owner has to set it anew"
_FACT = "handle_key"


@dataclass(frozen=True, slots=True)
class _Sealed:
    """A secret without its handle, which each run has its own for."""

    key: str
    value: str = field(repr=False)
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """The variables of an app at one time, ready to be seen."""

    plain: dict[str, str] = field(default_factory=dict, repr=False)
    sealed: tuple[_Sealed, ...] = ()
    masker: Masker = field(default_factory=lambda: Masker(()), repr=False)


class Variables:
    """Gives runs their variables. One for a process; whoever changes variables tells it."""

    def __init__(self, database: Database, ring: KeyRing, handle_key: bytes) -> None:
        self.database = database
        self.ring = ring
        self._handle_key = handle_key
        self._kept: OrderedDict[str, tuple[float, Known]] = OrderedDict()
        self._changes = 0

    @classmethod
    async def open(cls, database: Database, ring: KeyRing) -> "Variables":
        """Read the installation's key for handles, made at the first start."""
        return cls(database, ring, await database.write(_handle_key))

    async def equip(self, ports: Ports, app_id: str, seed: str, began: int | None) -> Ports:
        """Return the ports of a run of this app's workflow, with its variables.

        ``seed`` is what its handles are made from; ``began`` is when it began, in Unix
        milliseconds, ``None`` if it begins now.

        Raises:
            StepFailure: ``not_available``, a secret cannot be decrypted; its app is told which.
        """
        outside = ports.app_id != app_id
        try:
            known = await self._today(app_id) if began is None else await self._at(app_id, began)
        except StepFailure as failure:
            _log.warning("secret.unreadable", app_id=app_id, reason=failure.message)
            if outside:
                raise StepFailure(_UNREADABLE, failure.code) from None
            raise
        if not known.plain and not known.sealed:
            return ports
        secrets = tuple(
            Secret(one.key, self._handle(seed, app_id, one.key), one.value, one.hosts)
            for one in known.sealed
        )
        seen = json.raw({**known.plain, **{one.key: one.handle for one in secrets}})
        if not secrets:
            return replace(ports, variables=seen)
        told = partial(_tell, app_id, ports.run_id) if outside else None
        own = Secrets(secrets, known.masker, told)
        return replace(
            ports,
            variables=seen,
            sandbox=GuardedSandbox(ports.sandbox, own),
            http=GuardedHttp(ports.http, own),
            models=GuardedModels(ports.models, own),
            services=GuardedServices(ports.services, own),
        )

    def changed(self, app_id: str) -> None:
        """Forget what is kept of an app."""
        self._changes += 1
        self._kept.pop(app_id, None)

    async def remove_app(self, app_id: str) -> None:
        """Remove all that an app keeps."""
        await self.database.write(partial(repository.remove_app, app_id=app_id))
        self.changed(app_id)

    async def forget_for_ever(self) -> None:
        """Remove values that changed so long ago that no run can have begun with them."""
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            try:
                await self.database.write(partial(repository.forget, before=now_ms() - KEPT_MS))
            except Exception:  # the database may be away; the next round tries again
                _log.warning("variables.not_forgotten", exc_info=True)

    async def _today(self, app_id: str) -> Known:
        kept = self._kept.get(app_id)
        now = time.monotonic()
        if kept is not None and kept[0] > now:
            self._kept.move_to_end(app_id)
            return kept[1]
        changes = self._changes
        known = await self._at(app_id, None)
        if changes == self._changes:  # else what was read may be older than a change
            self._kept[app_id] = (now + FRESH_SECONDS, known)
            self._kept.move_to_end(app_id)
            if len(self._kept) > _APPS:
                self._kept.popitem(last=False)
        return known

    async def _at(self, app_id: str, when: int | None) -> Known:
        rows = await self.database.read(partial(repository.at, app_id=app_id, when=when))
        plain: dict[str, str] = {}
        sealed: list[_Sealed] = []
        for row in rows:
            if row.value is not None:
                plain[row.key] = bytes(row.value).decode()
                continue
            try:
                value = self.ring.open(row.sealed, KIND, app_id, row.key)
            except Unreadable as error:
                raise StepFailure(f"The secret {row.key}: {error}", "not_available") from None
            hosts = () if row.hosts is None else tuple(json.decode(row.hosts))
            sealed.append(_Sealed(row.key, value, hosts))
        return Known(plain, tuple(sealed), Masker(one.value for one in sealed))

    def _handle(self, seed: str, app_id: str, key: str) -> str:
        message = "\0".join((seed, app_id, key)).encode()
        return "insulasecret" + hmac.new(self._handle_key, message, hashlib.sha256).hexdigest()[:32]


def _tell(app_id: str, run_id: str, words: str) -> None:
    """Log what a run of another app says in fewer words."""
    _log.warning("secret.refused", app_id=app_id, run_id=run_id, reason=words)


def _handle_key(connection: Connection) -> bytes:
    found = connection.scalar(select(facts.c.value).where(facts.c.name == _FACT))
    if found is not None:
        return bytes(found)
    key = random.token_bytes(32)
    connection.execute(insert(facts).values(name=_FACT, value=key))
    return key
