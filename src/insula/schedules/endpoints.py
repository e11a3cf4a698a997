"""The routes of an app's schedules."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from insula.runs.services import RunServices
from insula.schedules import actions, repository
from insula.schedules.schemas import (
    CreateSchedule,
    ScheduleSchema,
    UpdateSchedule,
    schedule_wire,
)
from insula.schedules.timekeeper import Timekeeper
from insula.web.auth import Reader, Writer, unknown
from insula.web.body import payload
from insula.web.idempotency import InFlight, read_key
from insula.web.openapi import READS, WRITES, request_body
from insula.web.pagination import Paging, list_answer
from insula.web.respond import json_answer, null_answer
from insula.web.routing import create_router

_SCHEDULES = "/apps/{app_id}/schedules"
_SCHEDULE = _SCHEDULES + "/{schedule_id}"


def router(services: RunServices, timekeeper: Timekeeper) -> APIRouter:
    """Make the routes below ``/apps/{app_id}/schedules``."""
    routes = create_router("schedules")
    _add_reading(routes, services)
    _add_writing(routes, services, timekeeper)
    return routes


def _add_reading(routes: APIRouter, services: RunServices) -> None:
    @routes.get(
        _SCHEDULES,
        summary="List schedules",
        response_model=list[ScheduleSchema],
        responses=READS,
    )
    async def list_schedules(
        principal: Reader,
        page: Paging,
        workflow_id: Annotated[str | None, Query(max_length=100)] = None,
    ) -> Response:
        """Newest first, those of workflows' triggers included."""
        rows, count, following = await services.database.read(
            lambda c: repository.list_own(c, principal.app_id, workflow_id, page)
        )
        shown = [schedule_wire(row) for row in rows]
        return list_answer(shown, page, count, next_cursor=following)

    @routes.get(
        _SCHEDULE, summary="Read a schedule", response_model=ScheduleSchema, responses=READS
    )
    async def get_schedule(principal: Reader, schedule_id: str) -> Response:
        """With when it is due next, and what became of the last time."""
        query = partial(repository.find, app_id=principal.app_id, schedule_id=schedule_id)
        found = await services.database.read(query)
        if found is None:
            raise unknown()
        return json_answer(schedule_wire(found))


def _add_writing(routes: APIRouter, services: RunServices, timekeeper: Timekeeper) -> None:
    in_flight = InFlight()

    @routes.post(
        _SCHEDULES,
        summary="Make a schedule",
        response_model=ScheduleSchema,
        responses=WRITES,
        openapi_extra=request_body(CreateSchedule),
    )
    async def create_schedule(principal: Writer, request: Request) -> Response:
        """Starts runs of a workflow at a time, by cron, or at an interval."""
        fields = await payload(request, CreateSchedule)
        key = read_key(request)
        with in_flight.hold(principal, key):
            made = await actions.create(services, principal, fields, key)
        timekeeper.wake()
        return json_answer(schedule_wire(made))

    @routes.patch(
        _SCHEDULE,
        summary="Change a schedule",
        response_model=ScheduleSchema,
        responses=WRITES,
        openapi_extra=request_body(UpdateSchedule, required=False),
    )
    async def update_schedule(principal: Writer, request: Request, schedule_id: str) -> Response:
        """What is left out stays; new times count from now."""
        fields = await payload(request, UpdateSchedule)
        changed = await actions.update(services, principal, schedule_id, fields)
        timekeeper.wake()
        return json_answer(schedule_wire(changed))

    @routes.delete(_SCHEDULE, summary="Delete a schedule", response_model=None, responses=WRITES)
    async def delete_schedule(principal: Writer, schedule_id: str) -> Response:
        """Runs that it started go on."""
        await actions.delete(services, principal, schedule_id)
        return null_answer()
