"""The routes of runs: of an app's own workflows, and of all its runs together."""

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from sqlalchemy import Connection
from starlette.responses import Response
from starlette.routing import Route

from insula.runs.answers import (
    CancelledRunsSchema,
    CancelledSchema,
    RunSchema,
    RunStepSchema,
)
from insula.runs.cancel import cancel, cancel_matching, cancel_workflow
from insula.runs.change import change_retention, delete_run
from insula.runs.listing import RunPage, has_run, list_runs
from insula.runs.ranges import RunFilter
from insula.runs.reading import (
    Look,
    Stored,
    encode_many,
    find,
    look_live,
    look_many,
    look_stored,
    mine,
    read_stored,
    stored_many,
)
from insula.runs.replay import replay
from insula.runs.requests import (
    answer,
    asked_start,
    instant,
    is_verbose,
    resume_answer,
)
from insula.runs.schemas import CancelRuns, CreateRun, CreateRunStep, ReplayRun, UpdateRetention
from insula.runs.services import RunServices
from insula.runs.single_step import run_step, stream_step
from insula.runs.start import start
from insula.web.auth import (
    Principal,
    Reader,
    Writer,
    authenticate_request,
    require_write,
    unknown,
)
from insula.web.body import is_form, payload
from insula.web.openapi import EVENTS, READS, STREAM, WRITES, none_given, request_body
from insula.web.pagination import Paging, list_answer
from insula.web.respond import json_answer, null_answer
from insula.web.routing import create_router
from insula.web.sse import EventStream
from insula.workflows.access import finds
from insula.workflows.paths import WORKFLOW
from insula.workflows.retention import stored as stored_retention

Status = Literal["ALL", "PENDING", "RUNNING", "CANCELLED", "COMPLETED", "SKIPPED", "FAILED"]
Origin = Literal["ALL", "WORKFLOW", "TRIGGER", "RECORD", "TEST", "ENDPOINT", "WEBHOOK"]
Verbose = Annotated[list[Literal["all"]], Query(default_factory=none_given)]
Text = Annotated[str | None, Query(max_length=256)]

_LIST_MAX = 32 * 1024 * 1024
"""Bytes of one page of runs, stored and encoded; the page ends before the run that is beyond."""
OWNER = "owner"
"""Who asked for a cancel, as callers see it, where the workflow's owner did."""


def router(services: RunServices) -> APIRouter:
    """Make the routes of runs but those of the catalogue."""
    routes = create_router("runs")
    add_workflow_runs(routes, services, WORKFLOW + "/runs", own=True)
    _add_app_runs(routes, services)
    return routes


def add_workflow_runs(routes: APIRouter, services: RunServices, base: str, *, own: bool) -> None:
    """Add the routes of one workflow's runs: an app's ``own``, or one from the catalogue."""
    _add_starting(routes, services, base, own=own)
    _add_reading(routes, services, base, own=own)
    _add_changing(routes, services, base, own=own)


def plain_routes(services: RunServices, base: str, *, own: bool) -> list[Route]:
    """Make the two routes that have to be fast, without what FastAPI does for the others.

    They answer as the routes of the same paths in the document do, and come before them.
    """

    async def create_run(request: Request) -> Response:
        principal = require_write(await authenticate_request(request))
        workflow_id = request.path_params["workflow_id"]
        return await post_run(services, request, principal, workflow_id, own=own)

    async def cancel_run(request: Request) -> Response:
        principal = require_write(await authenticate_request(request))
        named = request.path_params
        return await post_cancel(
            services, request, principal, named["workflow_id"], named["run_id"], own=own
        )

    return [
        Route(base, create_run, methods=["POST"]),
        Route(base + "/{run_id}/cancel", cancel_run, methods=["POST"]),
    ]


async def post_run(
    services: RunServices, request: Request, principal: Principal, workflow_id: str, *, own: bool
) -> Response:
    """Start a run and answer it as its body asks."""
    verbose = is_verbose(request)
    body = await payload(request, CreateRun)
    asked = asked_start(request, body, through_catalogue=not own, text=is_form(request))
    started = await start(services, principal, workflow_id, asked)
    return await answer(services, request, principal.app_id, started, body, verbose=verbose)


async def post_cancel(
    services: RunServices,
    request: Request,
    principal: Principal,
    workflow_id: str,
    run_id: str,
    *,
    own: bool,
) -> Response:
    """Cancel a run and answer it as it ended."""
    verbose = is_verbose(request)
    _, live = await cancel(services, principal, workflow_id, run_id, own_workflow=own)
    if live is not None:
        look: Look = await look_live(services, live, principal.app_id)
    else:
        find_it = mine(principal.app_id, workflow_id, run_id, own_workflow=own)
        look = await look_stored(services, find_it, principal.app_id)
    return json_answer(look.encoded(verbose=verbose))


def _add_starting(routes: APIRouter, services: RunServices, base: str, *, own: bool) -> None:
    @routes.post(
        base,
        summary="Run a workflow",
        response_model=RunSchema,
        responses={**WRITES, **EVENTS},
        openapi_extra=request_body(
            CreateRun, required=False, example={"input": {"text": "The shop is down!"}}
        ),
    )
    async def create_run(
        principal: Writer, request: Request, workflow_id: str, verbose: Verbose
    ) -> Response:
        """Waits for the run's end; with `background` answers at once, with `stream` streams."""
        return await post_run(services, request, principal, workflow_id, own=own)

    @routes.post(
        base + "/{run_id}/replay",
        summary="Replay a run from a step",
        response_model=RunSchema,
        responses={**WRITES, **EVENTS},
        openapi_extra=request_body(ReplayRun, example={"stepKey": "summary"}),
    )
    async def replay_run(
        principal: Writer, request: Request, workflow_id: str, run_id: str, verbose: Verbose
    ) -> Response:
        """A new run of the same version and input; steps before `stepKey` are kept."""
        body = await payload(request, ReplayRun)
        source = mine(principal.app_id, workflow_id, run_id, own_workflow=own)
        asked = asked_start(request, body, through_catalogue=not own)
        started = await replay(services, principal, source, body.stepKey, asked)
        everything = is_verbose(request)
        return await answer(services, request, principal.app_id, started, body, verbose=everything)


def _add_reading(routes: APIRouter, services: RunServices, base: str, *, own: bool) -> None:
    @routes.get(
        base, summary="List a workflow's runs", response_model=list[RunSchema], responses=READS
    )
    async def list_workflow_runs(
        principal: Reader,
        request: Request,
        workflow_id: str,
        page: Paging,
        verbose: Verbose,
        status: Status = "ALL",
        origin: Origin = "ALL",
        identifier: Text = None,
    ) -> Response:
        """Newest first; only runs of the calling app."""
        await _check_workflow(services, principal, workflow_id, own=own)
        wanted = _filter(request, principal, workflow_id, status, origin, identifier, own=own)
        return await _list(services, principal, wanted, page, verbose=is_verbose(request))

    @routes.get(base + "/{run_id}", summary="Read a run", response_model=RunSchema, responses=READS)
    async def get_run(
        principal: Reader, request: Request, workflow_id: str, run_id: str, verbose: Verbose
    ) -> Response:
        """As it is stored now."""
        find_it = mine(principal.app_id, workflow_id, run_id, own_workflow=own)
        look = await look_stored(services, find_it, principal.app_id)
        return json_answer(look.encoded(verbose=is_verbose(request)))

    @routes.get(
        base + "/{run_id}/stream",
        summary="Stream a run",
        response_class=Response,
        responses={
            **READS,
            200: {"description": "Server-sent events.", "content": STREAM},
            204: {"description": "The run is over and all of it was streamed."},
        },
    )
    async def stream_run(
        principal: Reader, request: Request, workflow_id: str, run_id: str
    ) -> Response:
        """Server-sent events from `Last-Event-ID` or `from`; without, from the run's fold now."""
        find_it = mine(principal.app_id, workflow_id, run_id, own_workflow=own)
        stored = await read_stored(services, find_it)
        return await resume_answer(services, request, stored, principal.app_id)


def _add_changing(routes: APIRouter, services: RunServices, base: str, *, own: bool) -> None:
    @routes.post(
        base + "/{run_id}/cancel",
        summary="Cancel a run",
        response_model=RunSchema,
        responses=WRITES,
    )
    async def cancel_run(
        principal: Writer, request: Request, workflow_id: str, run_id: str, verbose: Verbose
    ) -> Response:
        """Answers when everything has stopped, with the run as it ended."""
        return await post_cancel(services, request, principal, workflow_id, run_id, own=own)

    @routes.patch(
        base + "/{run_id}/retention",
        summary="Change how long a run's data is kept",
        response_model=RunSchema,
        responses=WRITES,
        openapi_extra=request_body(
            UpdateRetention, example={"retention": {"max_age_in_seconds": 86400}}
        ),
    )
    async def patch_retention(
        principal: Writer, request: Request, workflow_id: str, run_id: str, verbose: Verbose
    ) -> Response:
        """Seconds after the run's end, -1 for ever, 0 at once, null for the default."""
        body = await payload(request, UpdateRetention)
        row = await find(services, principal.app_id, workflow_id, run_id, own_workflow=own)
        if "retention" in body.model_fields_set:
            await change_retention(services, row, stored_retention(body.retention))
        find_it = mine(principal.app_id, workflow_id, run_id, own_workflow=own)
        look = await look_stored(services, find_it, principal.app_id)
        return json_answer(look.encoded(verbose=is_verbose(request)))

    if own:

        @routes.post(
            base + "/cancel",
            summary="Cancel a workflow's runs",
            response_model=CancelledSchema,
            responses=WRITES,
        )
        async def cancel_workflow_runs(
            principal: Writer, workflow_id: str, scope: Literal["callers", "all"] = "all"
        ) -> Response:
            """For the owner: cancels the runs of its callers, or all; answers how many."""
            await services.resolver.check_own(principal.app_id, workflow_id)
            count = await cancel_workflow(services, workflow_id, OWNER, callers_of=principal.app_id)
            if scope == "all":
                count += await cancel_workflow(services, workflow_id, principal.key_id)
            return json_answer({"count": count})

        @routes.delete(base + "/{run_id}", summary="Delete a run's data", responses=WRITES)
        async def delete_workflow_run(principal: Writer, workflow_id: str, run_id: str) -> Response:
            """Erases input, output, events and files now; the row with its facts stays."""
            row = await find(services, principal.app_id, workflow_id, run_id, own_workflow=True)
            await delete_run(services, row)
            return null_answer()


def _add_app_runs(routes: APIRouter, services: RunServices) -> None:
    @routes.get(
        "/apps/{app_id}/runs",
        summary="List all runs of an app",
        response_model=list[RunSchema],
        responses=READS,
    )
    async def list_app_runs(
        principal: Reader,
        request: Request,
        page: Paging,
        verbose: Verbose,
        status: Status = "ALL",
        origin: Origin = "ALL",
        workflow_id: Text = None,
        identifier: Text = None,
        since: Text = None,
        until: Text = None,
    ) -> Response:
        """Newest first, of all workflows, other apps' included that this app ran."""
        wanted = _filter(request, principal, workflow_id, status, origin, identifier, own=False)
        return await _list(services, principal, wanted, page, verbose=is_verbose(request))

    @routes.post(
        "/apps/{app_id}/runs/cancel",
        summary="Cancel many runs",
        response_model=CancelledRunsSchema,
        responses=WRITES,
        openapi_extra=request_body(CancelRuns, required=False),
    )
    async def cancel_runs(
        principal: Writer, request: Request, query: Annotated[CancelRuns, Query()]
    ) -> Response:
        """Cancels every run of the app that matches and is not final; answers their ids.

        The filter stands in the body, in the query, or in both. 503 if one of the runs has not
        stopped in time: its cancel stays requested.
        """
        body = await payload(request, CancelRuns)
        wanted = _to_cancel(principal, query, body)
        stopped = await cancel_matching(services, wanted, principal.key_id)
        return json_answer({"count": len(stopped), "runs": stopped})

    @routes.post(
        "/apps/{app_id}/runs/step",
        summary="Run one step by itself",
        response_model=RunStepSchema,
        responses={**WRITES, **EVENTS},
        openapi_extra=request_body(
            CreateRunStep,
            example={"step": {"type": "code", "key": "sum", "code": "return 1 + 1"}},
        ),
    )
    async def create_run_step(principal: Writer, request: Request) -> Response:
        """Nothing is stored; the caller's going away cancels it."""
        body = await payload(request, CreateRunStep)
        if body.stream:
            return EventStream(await stream_step(services, principal.app_id, body.step))
        return json_answer(await run_step(services, request, principal.app_id, body.step))


async def _check_workflow(
    services: RunServices, principal: Principal, workflow_id: str, *, own: bool
) -> None:
    """Under ``workflows/`` a list is of an app's own workflow; under ``discover`` of one that the
    app finds there, or has run before it was withdrawn. All else is a 404."""
    app_id = principal.app_id
    if own:
        await services.resolver.check_own(app_id, workflow_id)
        return
    facts = await services.resolver.facts(workflow_id)
    if facts is not None and finds(facts, app_id):
        return
    if not await services.database.read(partial(has_run, app_id=app_id, workflow_id=workflow_id)):
        raise unknown()


def _filter(
    request: Request,
    principal: Principal,
    workflow_id: str | None,
    status: str,
    origin: str,
    identifier: str | None,
    *,
    own: bool,
) -> RunFilter:
    query = request.query_params
    return RunFilter(
        principal.app_id,
        workflow_id,
        own_workflow=own,
        status=_one(status),
        origin=_one(origin),
        identifier=identifier,
        since=instant(query.get("since"), "since"),
        until=instant(query.get("until"), "until"),
    )


def _to_cancel(principal: Principal, query: CancelRuns, body: CancelRuns) -> RunFilter:
    """Put the two parts of a filter together; what both name is as the body says."""
    asked = query.model_copy(update=body.model_dump(exclude_unset=True))

    def moment(name: str) -> int | None:
        where = "body" if name in body.model_fields_set else "query"
        return instant(getattr(asked, name), name, where)

    return RunFilter(
        principal.app_id,
        asked.workflow_id,
        status=_one(asked.status),
        origin=_one(asked.origin),
        identifier=asked.identifier,
        since=moment("since"),
        until=moment("until"),
    )


def _one(value: str) -> str | None:
    return None if value == "ALL" else value


async def _list(
    services: RunServices, principal: Principal, wanted: RunFilter, page: Paging, *, verbose: bool
) -> Response:
    def read(connection: Connection) -> tuple[RunPage, list[Stored]]:
        found = list_runs(connection, wanted, page)
        return found, stored_many(connection, found.rows, _LIST_MAX)

    # One snapshot: a run's status, its steps and what became of its data are of the same moment.
    found, stored = await services.database.read(read)
    looks = await look_many(services, stored, principal.app_id)
    shown = await encode_many(looks, _LIST_MAX, verbose=verbose)
    whole = len(shown) == len(found.rows)
    following = found.next if whole else {"id": found.rows[len(shown) - 1].id}
    body = b"[" + b",".join(shown) + b"]"
    return list_answer(body, page, found.count, found.capped, following)
