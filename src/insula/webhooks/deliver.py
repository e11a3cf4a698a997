"""Delivers what is due: a few attempts at once, of each app its share, each claimed by one node."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection, Row

from insula.adapters.keyring import KeyRing, Unreadable
from insula.engine.failures import StepFailure
from insula.engine.ports import Activity, HttpRequest
from insula.errors import InsulaError
from insula.kit import json
from insula.kit.clock import DAY_MS, iso, now_ms
from insula.kit.ids import first_id
from insula.runs.services import RunServices
from insula.webhooks import bounds, deliveries, repository, turns
from insula.webhooks.signature import Signers, headers
from insula.webhooks.telling import Teller

_log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
TIMEOUT = 15.0
"""Seconds that an address has for its answer."""
DELAYS = (5, 60, 300, 1800, 7200, 18_000, 28_800, 30_000)
"""Seconds between attempts: 24 hours together."""
KEPT_DAYS = 30
KIND = "webhook"
_CLAIM_MS = 60_000
_ANSWER_MAX = 64 * 1024
_GONE = 410
_SPREAD = 0.1
_DEAD_MS = 20 * 60 * 60 * 1000
"""How long nothing has to have arrived when a delivery is given up, for an address to be dead."""
_SWEEP_SECONDS = 600.0
_BOUND_SECONDS = 10.0
_SWEPT = 500
_SWEPT_REST = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt."""

    at: int
    ms: int
    status: int | None = None
    error: str | None = None

    @property
    def arrived(self) -> bool:
        """Whether the address took it."""
        return self.error is None

    def wire(self) -> dict[str, Any]:
        """Return it as an entry of a delivery's log."""
        told: dict[str, Any] = {"at": iso(self.at), "ms": self.ms}
        if self.status is not None:
            told["status"] = self.status
        return told if self.error is None else told | {"error": self.error}


async def attempt(services: RunServices, ring: KeyRing, row: Row[Any]) -> Outcome:
    """Send a delivery once; ``row`` has the webhook's address and secret, too."""
    began, at = time.monotonic(), now_ms()

    def outcome(status: int | None = None, error: str | None = None) -> Outcome:
        return Outcome(at, round((time.monotonic() - began) * 1000), status, error)

    try:
        signers = Signers.parse(ring.open(bytes(row.sealed), KIND, row.app_id, row.webhook_id))
        body = bytes(row.body)
        request = HttpRequest(
            "POST",
            row.url,
            headers(signers.at(at), row.id, at // 1000, body),
            body,
            timeout=TIMEOUT,
            idempotency_key=row.id,
            max_bytes=_ANSWER_MAX,
            redirects=False,
            app_id=row.app_id,
        )
        answer = await services.http.send(request, Activity("telling a webhook", at))
    except Unreadable as error:
        return outcome(error=str(error))
    except StepFailure as failure:
        return outcome(error=failure.message)
    if 300 <= answer.status < 400:
        told = f"it answered {answer.status}, which redirects elsewhere: name the address itself"
        return outcome(answer.status, told)
    if not 200 <= answer.status < 300:
        return outcome(answer.status, f"it answered {answer.status}")
    return outcome(answer.status)


@dataclass(slots=True)
class Deliverer:
    """One in each process that executes runs."""

    services: RunServices
    ring: KeyRing
    teller: Teller
    due: asyncio.Event = field(default_factory=asyncio.Event)
    _busy: turns.Busy = field(default_factory=turns.Busy)
    _after: str = ""
    """The webhook behind which the next look begins."""
    _under_way: dict[asyncio.Task[None], str] = field(default_factory=dict)
    """What is being sent here, with the ids of the webhooks."""

    async def run(self) -> None:
        """Deliver what is due; for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forget_for_ever())
            group.create_task(self._bound_for_ever())
            while True:
                self.due.clear()
                try:
                    await self.refresh()
                    await self.stop_gone()
                    await self.look(group)
                except InsulaError as error:
                    _log.warning("webhooks.not_read", reason=error.message)
                except Exception:  # it comes round again
                    _log.exception("webhooks.broke")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self.due.wait()

    async def refresh(self) -> None:
        """Look up whose runs' ends are told."""
        self.teller.apps = await self.services.database.read(repository.apps_told_of_runs)

    async def stop_gone(self) -> None:
        """Stop what is being sent to webhooks that are gone; return when it has stopped."""
        if not self._under_way:
            return
        known = partial(repository.known, webhook_ids=set(self._under_way.values()))
        kept = await self.services.database.read(known)
        gone = [task for task, webhook_id in self._under_way.items() if webhook_id not in kept]
        for task in gone:
            task.cancel()
        if gone:
            await asyncio.wait(gone)

    async def look(self, group: asyncio.TaskGroup) -> None:
        """Begin what is due and has room."""
        if self._busy.room <= 0 or self.services.draining:
            return
        query = partial(_due, busy=self._busy, after=self._after)
        rows, self._after = await self.services.database.read(query)
        for row in rows:
            claimed = await self.services.database.write(partial(_claim, row=row))
            if claimed is not None:
                self._busy.change(row.app_id, row.webhook_id, 1)
                task = group.create_task(self._deliver(row, claimed))
                self._under_way[task] = row.webhook_id
                task.add_done_callback(self._under_way.pop)

    async def _deliver(self, row: Row[Any], claimed: int) -> None:
        try:
            outcome = await attempt(self.services, self.ring, row)
            await self.services.database.write(
                partial(_settle, row=row, claimed=claimed, outcome=outcome)
            )
        except InsulaError as error:  # its claim lapses, and it is due again
            _log.warning("webhook.not_settled", webhook_id=row.webhook_id, reason=error.message)
        except Exception:  # one delivery's defect must not hold up the others
            _log.exception("webhook.broke", webhook_id=row.webhook_id)
        finally:
            self._busy.change(row.app_id, row.webhook_id, -1)
            self.due.set()

    async def _forget_for_ever(self) -> None:
        while True:
            try:
                await self.forget()
            except InsulaError as error:
                _log.warning("webhooks.not_swept", reason=error.message)
            except Exception:  # it comes round again
                _log.exception("webhooks.sweep_broke")
            await asyncio.sleep(_SWEEP_SECONDS)

    async def forget(self) -> None:
        """Remove what is old from all logs, and the oldest of those that are too long."""
        before = first_id("msg", now_ms() - KEPT_DAYS * DAY_MS)
        await self._sweep(partial(deliveries.forget, before=before, limit=_SWEPT))
        for webhook_id in await self.services.database.read(bounds.all_ids):
            await self._sweep(partial(bounds.trim, webhook_id=webhook_id, limit=_SWEPT))

    async def _sweep(self, unit: Callable[[Connection], int]) -> None:
        while True:
            if await self.services.database.write(unit) < _SWEPT:
                return
            await asyncio.sleep(_SWEPT_REST)

    async def _bound_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_BOUND_SECONDS)
            try:
                await self.bound()
            except InsulaError as error:
                _log.warning("webhooks.not_counted", reason=error.message)
            except Exception:  # it comes round again
                _log.exception("webhooks.bound_broke")

    async def bound(self) -> None:
        """Switch addresses off that fall behind too far."""
        database = self.services.database
        if not await database.read(bounds.overfull):
            return
        for webhook_id in await database.write(partial(bounds.switch_off_overfull, now=now_ms())):
            _log.warning("webhook.disabled", webhook_id=webhook_id, reason="too much is pending")


def _due(connection: Connection, busy: turns.Busy, after: str) -> turns.Due:
    return turns.due(connection, deliveries.clock(connection), busy, after)


def _claim(connection: Connection, row: Row[Any]) -> int | None:
    """In a unit: take a delivery; return until when it is this node's, if it is."""
    until = deliveries.clock(connection) + _CLAIM_MS
    return until if deliveries.claim(connection, row, until) else None


def _settle(connection: Connection, row: Row[Any], claimed: int, outcome: Outcome) -> None:
    """In a unit: store what came of an attempt, and what it means for the address."""
    now = now_ms()
    values: dict[str, Any] = {
        "log": json.encode([*json.decode(bytes(row.log)), outcome.wire()][-len(DELAYS) - 1 :]),
        "updated_at": now,
        "next_at": None,
        "status": deliveries.DELIVERED,
    }
    if outcome.arrived:
        deliveries.settle(connection, row, claimed, values)
        repository.mark_failing(connection, row.webhook_id, None)
        return
    gone = outcome.status == _GONE
    ended = gone or row.attempts >= len(DELAYS)
    values["status"] = deliveries.FAILED if ended else deliveries.PENDING
    if not ended:
        seconds = DELAYS[row.attempts] * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311  # no secret
        values["next_at"] = deliveries.clock(connection) + round(seconds * 1000)
    deliveries.settle(connection, row, claimed, values)
    repository.mark_failing(connection, row.webhook_id, outcome.at)
    current = repository.find(connection, row.app_id, row.webhook_id)
    if not ended or current is None:
        return
    if gone or now - (current.failing_since or now) >= _DEAD_MS:
        _switch_off(connection, row, now, outcome)


def _switch_off(connection: Connection, row: Row[Any], now: int, outcome: Outcome) -> None:
    """The address is dead: nobody is told there any more."""
    why = "It said that it is gone" if outcome.status == _GONE else "Nothing arrived for a day"
    reason = f"{why}; the last attempt: {outcome.error}"
    bounds.switch_off(connection, row.app_id, row.webhook_id, reason, now)
    _log.warning("webhook.disabled", webhook_id=row.webhook_id, reason=reason[:500])
