"""``/apps/{app_id}/webhooks``: addresses that are told of events, and what they were told."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import Row
from starlette.responses import Response

from insula.adapters.keyring import Unreadable
from insula.errors import Conflict
from insula.web.auth import Reader, Writer
from insula.web.body import payload
from insula.web.idempotency import read_key
from insula.web.openapi import READS, WRITES, request_body
from insula.web.pagination import Page, Paging, list_answer
from insula.web.respond import json_answer, null_answer
from insula.web.routing import create_router
from insula.webhooks import actions, deliveries, hook_endpoints, repository
from insula.webhooks.deliver import KIND
from insula.webhooks.opening import Webhooks
from insula.webhooks.schemas import (
    CreateWebhookSchema,
    DeliverySchema,
    DeliveryStatus,
    UpdateWebhookSchema,
    WebhookSchema,
    delivery_wire,
    webhook_wire,
)
from insula.webhooks.signature import Signers

_PATH = "/apps/{app_id}/webhooks"
_ONE = _PATH + "/{webhook_id}"
_DELIVERIES = _ONE + "/deliveries"
_DELIVERY = _DELIVERIES + "/{delivery_id}"


def router(webhooks: Webhooks) -> APIRouter:
    """Make the routes of webhooks that go out, and of those that come in."""
    routes = create_router("webhooks")
    _add_list(routes, webhooks)
    _add_one(routes, webhooks)
    _add_deliveries(routes, webhooks)
    hook_endpoints.add_routes(routes, webhooks)
    return routes


def _with_secret(webhooks: Webhooks, row: Row[Any]) -> dict[str, Any]:
    try:
        text = webhooks.ring.open(bytes(row.sealed), KIND, row.app_id, row.id)
    except Unreadable as error:
        raise Conflict(f"The secret cannot be read: {error}.") from None
    return webhook_wire(row, Signers.parse(text).current)


def _add_list(routes: APIRouter, webhooks: Webhooks) -> None:
    @routes.get(_PATH, response_model=list[WebhookSchema], responses=READS)
    async def list_webhooks(principal: Reader, page: Paging) -> Response:
        """List an app's webhooks, newest first. Their secrets are not among them."""
        query = partial(
            repository.list_page,
            app_id=principal.app_id,
            take=page.take + 1,
            offset=page.offset,
            before=page.position(),
        )
        rows, count = await webhooks.database.read(query)
        shown = [webhook_wire(row, read_only=principal.read_only) for row in rows]
        return _listed(shown, page, count)

    @routes.post(
        _PATH,
        response_model=WebhookSchema,
        responses=WRITES,
        openapi_extra=request_body(
            CreateWebhookSchema,
            example={
                "url": "https://example.com/insula",
                "events": ["record.completed"],
                "run_events": ["run.failed"],
            },
        ),
    )
    async def create_webhook(request: Request, principal: Writer) -> Response:
        """Make a webhook; the answer has the secret that its signatures are checked with."""
        wanted = await payload(request, CreateWebhookSchema)
        unit = partial(
            actions.create,
            ring=webhooks.ring,
            principal=principal,
            wanted=wanted,
            idempotency=read_key(request),
        )
        row = await webhooks.database.write(unit)
        await webhooks.changed()
        return json_answer(_with_secret(webhooks, row))


def _add_one(routes: APIRouter, webhooks: Webhooks) -> None:
    @routes.get(_ONE, response_model=WebhookSchema, responses=READS)
    async def get_webhook(webhook_id: str, principal: Reader) -> Response:
        """Read a webhook."""
        query = partial(actions.found, app_id=principal.app_id, webhook_id=webhook_id)
        row = await webhooks.database.read(query)
        return json_answer(webhook_wire(row, read_only=principal.read_only))

    @routes.patch(
        _ONE,
        response_model=WebhookSchema,
        responses=WRITES,
        openapi_extra=request_body(UpdateWebhookSchema),
    )
    async def change_webhook(request: Request, webhook_id: str, principal: Writer) -> Response:
        """Change a webhook, switch it off, or on again."""
        wanted = await payload(request, UpdateWebhookSchema)
        unit = partial(
            actions.change, app_id=principal.app_id, webhook_id=webhook_id, wanted=wanted
        )
        row = await webhooks.database.write(unit)
        await webhooks.changed()
        return json_answer(webhook_wire(row))

    @routes.delete(_ONE, response_model=None, responses=WRITES)
    async def delete_webhook(webhook_id: str, principal: Writer) -> Response:
        """Remove a webhook, and what it was to be told."""
        unit = partial(actions.remove, app_id=principal.app_id, webhook_id=webhook_id)
        await webhooks.database.write(unit)
        await webhooks.changed()
        return null_answer()

    @routes.post(_ONE + "/rotate", response_model=WebhookSchema, responses=WRITES)
    async def rotate_webhook_secret(webhook_id: str, principal: Writer) -> Response:
        """Sign with another secret, too; the answer has it. The one before signs for a day."""
        unit = partial(
            actions.rotate, ring=webhooks.ring, app_id=principal.app_id, webhook_id=webhook_id
        )
        return json_answer(_with_secret(webhooks, await webhooks.database.write(unit)))

    @routes.post(_ONE + "/test", response_model=DeliverySchema, responses=WRITES)
    async def test_webhook(request: Request, webhook_id: str, principal: Writer) -> Response:
        """Tell the address of a test at once; the answer says what came of it."""
        unit = partial(
            actions.ping,
            principal=principal,
            webhook_id=webhook_id,
            idempotency=read_key(request),
        )
        delivery_id = await webhooks.database.write(unit)
        row = await webhooks.attempted(principal.app_id, webhook_id, delivery_id)
        return json_answer(delivery_wire(row, whole=True))


def _add_deliveries(routes: APIRouter, webhooks: Webhooks) -> None:
    @routes.get(_DELIVERIES, response_model=list[DeliverySchema], responses=READS)
    async def list_webhook_deliveries(
        webhook_id: str, principal: Reader, page: Paging, status: DeliveryStatus = "ALL"
    ) -> Response:
        """List what a webhook was told in the last 30 days, newest first."""
        await webhooks.database.read(
            partial(actions.found, app_id=principal.app_id, webhook_id=webhook_id)
        )
        query = partial(
            deliveries.list_page,
            webhook_id=webhook_id,
            status=None if status == "ALL" else status,
            take=page.take + 1,
            offset=page.offset,
            before=page.position(),
        )
        rows, count = await webhooks.database.read(query)
        wire = [delivery_wire(row) for row in rows]
        capped = count > deliveries.SHOWN_MOST
        return _listed(wire, page, min(count, deliveries.SHOWN_MOST), capped=capped)

    @routes.get(_DELIVERY, response_model=DeliverySchema, responses=READS)
    async def get_webhook_delivery(
        webhook_id: str, delivery_id: str, principal: Reader
    ) -> Response:
        """Read a delivery with its body."""
        query = partial(
            actions.delivery,
            app_id=principal.app_id,
            webhook_id=webhook_id,
            delivery_id=delivery_id,
        )
        return json_answer(delivery_wire(await webhooks.database.read(query), whole=True))

    @routes.post(_DELIVERY + "/redeliver", response_model=DeliverySchema, responses=WRITES)
    async def redeliver_webhook(
        request: Request, webhook_id: str, delivery_id: str, principal: Writer
    ) -> Response:
        """Tell the same again, under the same id; also where it is switched off."""
        unit = partial(
            actions.redeliver,
            principal=principal,
            webhook_id=webhook_id,
            delivery_id=delivery_id,
            idempotency=read_key(request),
        )
        row = await webhooks.database.write(unit)
        webhooks.deliverer.due.set()
        return json_answer(delivery_wire(row, whole=True))


def _listed(
    wire: list[dict[str, Any]], page: Page, count: int, *, capped: bool = False
) -> Response:
    shown = wire[: page.take]
    following = {"before": shown[-1]["id"]} if len(wire) > page.take else None
    return list_answer(shown, page, count, capped, next_cursor=following)
