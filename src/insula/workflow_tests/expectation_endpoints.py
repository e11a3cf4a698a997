"""The routes of shared expectations."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator
from starlette.responses import Response

from insula.runs.services import RunServices
from insula.web.auth import Reader, Writer, unknown
from insula.web.body import payload
from insula.web.fields import storable
from insula.web.idempotency import InFlight, read_key
from insula.web.openapi import READS, WRITES, request_body
from insula.web.pagination import Paging, list_answer
from insula.web.respond import json_answer, null_answer
from insula.workflow_tests import expectation_actions, expectations
from insula.workflow_tests.schemas import (
    CreateExpectation,
    ExpectationSchema,
    UpdateExpectation,
    expectation_wire,
)
from insula.workflows.paths import WORKFLOW

_ALL = WORKFLOW + "/tests/expectations"
_ONE = _ALL + "/{expectation_id}"
Search = Annotated[
    Annotated[str, AfterValidator(storable)] | None,
    Query(max_length=200, description="Words that the name holds."),
]


def add(routes: APIRouter, services: RunServices) -> None:
    """Add the routes below ``…/tests/expectations``."""
    _add_reading(routes, services)
    _add_writing(routes, services)


def _add_reading(routes: APIRouter, services: RunServices) -> None:
    @routes.get(
        _ALL,
        summary="List shared expectations",
        response_model=list[ExpectationSchema],
        responses=READS,
    )
    async def list_expectations(
        principal: Reader, workflow_id: str, page: Paging, search: Search = None
    ) -> Response:
        """Newest first."""
        await services.resolver.check_own(principal.app_id, workflow_id)
        found, count, following = await services.database.read(
            lambda c: expectations.list_own(c, workflow_id, search, page)
        )
        shown = [expectation_wire(row) for row in found]
        return list_answer(shown, page, count, next_cursor=following)

    @routes.get(
        _ONE,
        summary="Read a shared expectation",
        response_model=ExpectationSchema,
        responses=READS,
    )
    async def get_expectation(principal: Reader, workflow_id: str, expectation_id: str) -> Response:
        """Its name and its script."""
        await services.resolver.check_own(principal.app_id, workflow_id)
        query = partial(
            expectations.find,
            app_id=principal.app_id,
            workflow_id=workflow_id,
            expectation_id=expectation_id,
        )
        found = await services.database.read(query)
        if found is None:
            raise unknown()
        return json_answer(expectation_wire(found))


def _add_writing(routes: APIRouter, services: RunServices) -> None:
    in_flight = InFlight()

    @routes.post(
        _ALL,
        summary="Create a shared expectation",
        response_model=ExpectationSchema,
        responses=WRITES,
        openapi_extra=request_body(CreateExpectation),
    )
    async def create_expectation(principal: Writer, request: Request, workflow_id: str) -> Response:
        """Tests of the workflow name it by its id."""
        fields = await payload(request, CreateExpectation)
        await services.resolver.check_own(principal.app_id, workflow_id)
        key = read_key(request)
        with in_flight.hold(principal, key):
            made = await expectation_actions.create_expectation(
                services, principal, workflow_id, fields, key
            )
        return json_answer(expectation_wire(made))

    @routes.patch(
        _ONE,
        summary="Change a shared expectation",
        response_model=ExpectationSchema,
        responses=WRITES,
        openapi_extra=request_body(UpdateExpectation, required=False),
    )
    async def update_expectation(
        principal: Writer, request: Request, workflow_id: str, expectation_id: str
    ) -> Response:
        """What is left out stays; tests are judged by it from their next execution on."""
        fields = await payload(request, UpdateExpectation)
        await services.resolver.check_own(principal.app_id, workflow_id)
        changed = await expectation_actions.update_expectation(
            services, principal, workflow_id, expectation_id, fields
        )
        return json_answer(expectation_wire(changed))

    @routes.delete(
        _ONE, summary="Delete a shared expectation", response_model=None, responses=WRITES
    )
    async def delete_expectation(
        principal: Writer, workflow_id: str, expectation_id: str
    ) -> Response:
        """Tests that share it fail from then on, and say so."""
        await services.resolver.check_own(principal.app_id, workflow_id)
        await expectation_actions.delete_expectation(
            services, principal, workflow_id, expectation_id
        )
        return null_answer()
