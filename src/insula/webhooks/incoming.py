"""A call from the outside that starts a run: which step takes it, its input, its answer."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from insula.engine.document import Document, InputStep
from insula.errors import BadInput, Conflict, FieldError, InsulaError
from insula.kit import json
from insula.runs.render import shown_result
from insula.runs.requests import ended_look
from insula.runs.services import RunServices
from insula.runs.start import Start, Started, attach, start
from insula.web.auth import Principal, unknown
from insula.web.body import is_form, payload
from insula.web.edge import HEAD
from insula.web.errors import answer as refusal
from insula.web.idempotency import Idempotency, has_key, made_before, read_key
from insula.web.respond import json_answer
from insula.webhooks.tokens import LENGTH, Goal, goal_of

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
RUN_ID = "insula-run-id"
"""The header that names the run."""
_KEY = "webhook"
_QUERY_FIELDS = 1_000
_SUCCESSES = ("COMPLETED", "SKIPPED")


class _Sent(BaseModel):
    """Whatever was sent: the workflow says what it takes."""

    model_config = ConfigDict(extra="allow")


async def receive(services: RunServices, request: Request, token: str, path: str) -> Response:
    """Start a run, wait for its end, and answer its result; 405 where the path takes other methods.

    Raises:
        NotFound: no such token, or no step that takes this path.
        BadInput: the input cannot be used, or nothing is deployed.
        Conflict: the workflow is disabled, or the run did not complete.
        TooMany: too many runs are live.
    """
    goal = await _goal(services, token)
    principal = Principal(goal.app_id, _KEY)
    version = None if goal.target == "latest" else goal.target
    try:
        runnable = await services.resolver.resolve(goal.app_id, goal.workflow_id, version)
        here = _steps_at(runnable.document, path)
    except InsulaError:
        earlier = await _made_before(services, request, goal, path)
        if earlier is None:
            raise
        return await _answer(services, request, goal, earlier)
    allowed = sorted({method for method, _ in here})
    if request.method not in allowed or HEAD in request.scope:
        words = f"This address takes {', '.join(allowed)}."
        return refusal(request, 405, words, headers={"Allow": ", ".join(allowed)})
    step_key = next(key for method, key in here if method == request.method)
    given, is_text = await _given(request)
    asked = Start(
        input=given,
        version=version,
        from_step_key=step_key,
        origin="WEBHOOK",
        text=is_text,
        idempotency=_idempotency(request, goal, path),
    )
    started = await start(services, principal, goal.workflow_id, asked)
    return await _answer(services, request, goal, started)


async def _made_before(
    services: RunServices, request: Request, goal: Goal, path: str
) -> Started | None:
    """Return the run that a call with the same key began, when there was what it calls."""
    if not has_key(request) or HEAD in request.scope:
        return None
    try:
        await _given(request)  # what was sent belongs to the key
    except BadInput:
        return None
    key = _idempotency(request, goal, path)
    run_id = await made_before(services.database, Principal(goal.app_id, _KEY), key)
    return None if run_id is None else await attach(services, run_id)


def _idempotency(request: Request, goal: Goal, path: str) -> Idempotency | None:
    found = read_key(request)
    if found is None:
        return None
    # A token is stored nowhere in clear.
    where = f"/hooks/{goal.workflow_id}/{goal.target}{plain_path(path)}"
    return replace(found, path=where)


async def _answer(
    services: RunServices, request: Request, goal: Goal, started: Started
) -> Response:
    look = await ended_look(services, request, goal.app_id, started)
    if look.row.status not in _SUCCESSES:
        raise Conflict(f"The run {look.row.id} ended {look.row.status}. Its app can read why.")
    response = json_answer(json.encode(shown_result(look.state, look.sight)))
    response.headers[RUN_ID] = look.row.id
    return response


async def _goal(services: RunServices, token: str) -> Goal:
    goal = None
    if len(token) == LENGTH and token.isascii():
        goal = await services.database.read(partial(goal_of, token=token))
    if goal is None:
        raise unknown()
    return goal


def plain_path(path: str | None) -> str:
    """Return a path with one slash before it and none behind; nothing for the root."""
    inner = (path or "").strip("/")
    return f"/{inner}" if inner else ""


def _steps_at(document: Document, path: str) -> Sequence[tuple[str, str | None]]:
    """Return the methods that a path takes, and where each begins; ``None``: where runs begin
    anyhow, which is at the first input.

    Raises:
        NotFound: no step takes this path.
    """
    inputs = [step for step in document.steps if isinstance(step, InputStep)]
    here = [
        (step.webhook.method, None if step is inputs[0] else step.key)
        for step in inputs
        if step.webhook is not None and plain_path(step.webhook.path) == plain_path(path)
    ]
    if not here:
        raise unknown()
    return here


async def _given(request: Request) -> tuple[dict[str, Any], bool]:
    """Return what was sent as the run's input, and whether it came as text."""
    if request.method == "GET":
        return _queried(request), True
    sent = await payload(request, _Sent)
    return dict(sent.model_extra or {}), is_form(request)


def _queried(request: Request) -> dict[str, Any]:
    pairs = request.query_params.multi_items()
    if len(pairs) > _QUERY_FIELDS:
        message = f"holds more than {_QUERY_FIELDS:,} fields"
        raise BadInput(f"The query {message}.", [FieldError((), "too_many", message, "query")])
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found
