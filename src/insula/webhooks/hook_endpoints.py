"""``/hooks/…``: where the outside starts runs; and where an app finds those addresses."""

from functools import partial
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from insula.engine.document import InputStep
from insula.errors import BadInput, Conflict, NotFound
from insula.kit.clock import iso
from insula.web.auth import Writer
from insula.web.openapi import WRITES
from insula.web.respond import json_answer
from insula.webhooks import tokens
from insula.webhooks.incoming import METHODS, plain_path, receive
from insula.webhooks.opening import Webhooks
from insula.webhooks.tokens import Target, Token
from insula.workflows.paths import WORKFLOW

_PLAIN = "/!$&'()*+,;=:@"
"""What stands in an address's path as it is, besides letters, digits and ``-._~``."""


class HookSchema(BaseModel):
    """One input step that the outside may start a run at."""

    step_key: str
    method: str
    url: str


class HooksSchema(BaseModel):
    """The addresses of a workflow's latest version, or of its draft."""

    target: str
    url: str
    hooks: list[HookSchema]
    created_at: str


def add_routes(routes: APIRouter, webhooks: Webhooks) -> None:
    """Add the routes of calls from the outside, and of their addresses."""
    _add_addresses(routes, webhooks)

    # They are the workflows' own, and no part of this interface's description.
    @routes.api_route("/hooks/{token}", methods=[*METHODS], include_in_schema=False)
    async def call_hook(request: Request, token: str) -> Response:
        """Start a run at the step without a path."""
        return await receive(webhooks.services, request, token, "")

    @routes.api_route("/hooks/{token}/{path:path}", methods=[*METHODS], include_in_schema=False)
    async def call_hook_at(request: Request, token: str, path: str) -> Response:
        """Start a run at the step of this path."""
        return await receive(webhooks.services, request, token, path)


def _add_addresses(routes: APIRouter, webhooks: Webhooks) -> None:
    # A key that only reads must not see them: whoever knows an address may start runs.
    @routes.get(WORKFLOW + "/hooks", response_model=list[HooksSchema], responses=WRITES)
    async def list_hooks(principal: Writer, workflow_id: str) -> Response:
        """Tell the addresses by which the outside starts runs of a workflow."""
        await webhooks.services.resolver.check_own(principal.app_id, workflow_id)
        unit = partial(
            tokens.provide, ring=webhooks.ring, app_id=principal.app_id, workflow_id=workflow_id
        )
        found = await webhooks.database.write(unit)
        return json_answer([await _wire(webhooks, principal.app_id, workflow_id, t) for t in found])

    @routes.post(WORKFLOW + "/hooks/{target}/rotate", response_model=HooksSchema, responses=WRITES)
    async def rotate_hooks(principal: Writer, workflow_id: str, target: Target) -> Response:
        """Change the addresses; those before start nothing any more."""
        await webhooks.services.resolver.check_own(principal.app_id, workflow_id)
        unit = partial(
            tokens.rotate,
            ring=webhooks.ring,
            app_id=principal.app_id,
            workflow_id=workflow_id,
            target=target,
        )
        token = await webhooks.database.write(unit)
        return json_answer(await _wire(webhooks, principal.app_id, workflow_id, token))


async def _wire(webhooks: Webhooks, app_id: str, workflow_id: str, token: Token) -> dict[str, Any]:
    base = f"{webhooks.services.files.store.urls.base}/hooks/{token.text}"
    return {
        "target": token.target,
        "url": base,
        "hooks": await _hooks(webhooks, app_id, workflow_id, token.target, base),
        "created_at": iso(token.created_at),
    }


async def _hooks(
    webhooks: Webhooks, app_id: str, workflow_id: str, target: str, base: str
) -> list[dict[str, str]]:
    try:
        runnable = await webhooks.services.resolver.resolve(app_id, workflow_id, target)
    except (BadInput, Conflict, NotFound):  # nothing is deployed, or it is disabled
        return []
    return [
        {
            "step_key": step.key,
            "method": step.webhook.method,
            "url": base + quote(plain_path(step.webhook.path), safe=_PLAIN),
        }
        for step in runnable.document.steps
        if isinstance(step, InputStep) and step.webhook is not None
    ]
