"""The routes of tests: reading, writing, executing, cancelling."""

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator
from starlette.responses import Response

from insula.runs.requests import is_verbose
from insula.runs.services import RunServices
from insula.web.auth import Principal, Reader, Writer, unknown
from insula.web.body import payload
from insula.web.fields import storable
from insula.web.idempotency import InFlight, read_key
from insula.web.incoming import while_present
from insula.web.openapi import READS, WRITES, none_given, request_body
from insula.web.pagination import Paging, list_answer
from insula.web.respond import json_answer, null_answer
from insula.web.routing import create_router
from insula.web.sse import EventStream
from insula.workflow_tests import actions, execute, expectation_endpoints, repository
from insula.workflow_tests.from_run import record_test
from insula.workflow_tests.given import check_given
from insula.workflow_tests.progress import progress
from insula.workflow_tests.render import tests_page, tests_wire
from insula.workflow_tests.rows import WorkflowTest
from insula.workflow_tests.runner import TestRunner
from insula.workflow_tests.schemas import (
    CreateTest,
    RecordTest,
    RunTest,
    RunTests,
    StartedSchema,
    StatsSchema,
    TestSchema,
    UpdateTest,
)
from insula.workflows.paths import WORKFLOW
from insula.workflows.tests_of import tests_stats

TESTS = WORKFLOW + "/tests"
_TEST = TESTS + "/{test_id}"
_LIST_MAX = 32 * 1024 * 1024
"""Bytes of one page of tests; the page ends before the test that is beyond."""
Verbose = Annotated[list[Literal["all"]], Query(default_factory=none_given)]
Search = Annotated[
    Annotated[str, AfterValidator(storable)] | None,
    Query(max_length=200, description="Words that the name holds."),
]
Status = Literal["ALL", "DRAFT", "CANCELLED", "RUNNING", "FAILED", "PASSED"]


def router(services: RunServices, runner: TestRunner) -> APIRouter:
    """Make the routes below ``…/workflows/{workflow_id}/tests``, and the one that makes a test of a
    run."""
    routes = create_router("tests")
    expectation_endpoints.add(routes, services)
    _add_all(routes, services, runner)
    _add_reading(routes, services)
    _add_writing(routes, services, runner)
    _add_executing(routes, services, runner)
    _add_recording(routes, services)
    return routes


async def _find(
    services: RunServices, principal: Principal, workflow_id: str, test_id: str
) -> WorkflowTest:
    await services.resolver.check_own(principal.app_id, workflow_id)
    query = partial(
        repository.find, app_id=principal.app_id, workflow_id=workflow_id, test_id=test_id
    )
    found = await services.database.read(query)
    if found is None:
        raise unknown()
    return found


async def _answer(
    services: RunServices, principal: Principal, workflow_id: str, test_id: str
) -> Response:
    """Answer one test: all of it, whatever ``verbose`` says, for it is what was asked about."""
    test = await _find(services, principal, workflow_id, test_id)
    shown: list[Any] = await tests_wire(services, principal.app_id, [test], verbose=True)
    return json_answer(shown[0])


def _add_all(routes: APIRouter, services: RunServices, runner: TestRunner) -> None:
    """Add what is about all tests of a workflow; before the routes that take any id."""

    @routes.get(
        TESTS + "/stats", summary="Count tests", response_model=StatsSchema, responses=READS
    )
    async def get_tests_stats(principal: Reader, workflow_id: str) -> Response:
        """By status, and how many expectations passed and failed."""
        await services.resolver.check_own(principal.app_id, workflow_id)
        stats = await services.database.read(partial(tests_stats, workflow_ids=[workflow_id]))
        return json_answer(stats[workflow_id])

    @routes.get(
        TESTS + "/stream",
        summary="Stream the progress of tests",
        responses={
            **READS,
            200: {"description": "Server-sent events.", "content": {"text/event-stream": {}}},
        },
        response_class=Response,
    )
    async def stream_tests(principal: Reader, workflow_id: str) -> Response:
        """`test` for each test and for each change, `stats` after them; ends when none runs."""
        await services.resolver.check_own(principal.app_id, workflow_id)
        return EventStream(progress(services, runner, workflow_id))

    @routes.post(
        TESTS + "/runs",
        summary="Run all tests",
        response_model=StartedSchema,
        responses=WRITES,
        openapi_extra=request_body(RunTests, required=False),
    )
    async def run_tests(principal: Writer, request: Request, workflow_id: str) -> Response:
        """Answers at once with the tests that begin: of the draft, or of a version."""
        fields = await payload(request, RunTests)
        await services.resolver.check_own(principal.app_id, workflow_id)
        key = read_key(request)
        begun = await execute.execute_all(services, runner, principal, workflow_id, fields, key)
        return json_answer({"count": len(begun), "tests": begun})

    @routes.post(
        TESTS + "/cancel",
        summary="Cancel all tests",
        response_model=StartedSchema,
        responses=WRITES,
    )
    async def cancel_tests(principal: Writer, workflow_id: str) -> Response:
        """Answers when everything has stopped, with the tests that were running."""
        await services.resolver.check_own(principal.app_id, workflow_id)
        stopped = await execute.cancel(services, runner, principal, workflow_id)
        return json_answer({"count": len(stopped), "tests": stopped})


def _add_reading(routes: APIRouter, services: RunServices) -> None:
    @routes.get(TESTS, summary="List tests", response_model=list[TestSchema], responses=READS)
    async def list_tests(
        principal: Reader,
        request: Request,
        workflow_id: str,
        page: Paging,
        verbose: Verbose,
        search: Search = None,
        status: Status = "ALL",
    ) -> Response:
        """Newest first; with `verbose=all` what they are given and expect, too."""
        await services.resolver.check_own(principal.app_id, workflow_id)
        wanted = None if status == "ALL" else status
        ids, count, more = await services.database.read(
            lambda c: repository.list_own(c, workflow_id, search, wanted, page)
        )
        body, left = await tests_page(
            services, principal.app_id, ids, _LIST_MAX, verbose=is_verbose(request)
        )
        following = {"before": ids[-1 - left]} if ids and (more or left) else None
        return list_answer(body, page, count, next_cursor=following)

    @routes.get(_TEST, summary="Read a test", response_model=TestSchema, responses=READS)
    async def get_test(
        principal: Reader, workflow_id: str, test_id: str, verbose: Verbose
    ) -> Response:
        """With the run that it was last judged on."""
        return await _answer(services, principal, workflow_id, test_id)


def _add_writing(routes: APIRouter, services: RunServices, runner: TestRunner) -> None:
    in_flight = InFlight()

    @routes.post(
        TESTS,
        summary="Create a test",
        response_model=TestSchema,
        responses=WRITES,
        openapi_extra=request_body(CreateTest),
    )
    async def create_test(
        principal: Writer, request: Request, workflow_id: str, verbose: Verbose
    ) -> Response:
        """Only `name` is required; it is a DRAFT until it is executed."""
        fields = await payload(request, CreateTest)
        await services.resolver.check_own(principal.app_id, workflow_id)
        await check_given(services, principal.app_id, workflow_id, fields.input_context)
        key = read_key(request)
        with in_flight.hold(principal, key):
            made = await actions.create(services, principal, workflow_id, fields, key)
        return await _answer(services, principal, workflow_id, made)

    @routes.patch(
        _TEST,
        summary="Change a test",
        response_model=TestSchema,
        responses=WRITES,
        openapi_extra=request_body(UpdateTest, required=False),
    )
    async def update_test(
        principal: Writer, request: Request, workflow_id: str, test_id: str, verbose: Verbose
    ) -> Response:
        """What is left out stays; `expectations` are replaced as a whole."""
        fields = await payload(request, UpdateTest)
        await services.resolver.check_own(principal.app_id, workflow_id)
        await check_given(services, principal.app_id, workflow_id, fields.input_context)
        await actions.update(services, principal, workflow_id, test_id, fields)
        return await _answer(services, principal, workflow_id, test_id)

    @routes.delete(_TEST, summary="Delete a test", response_model=None, responses=WRITES)
    async def delete_test(principal: Writer, workflow_id: str, test_id: str) -> Response:
        """What runs of it is cancelled first; its past runs stay until their retention."""
        await services.resolver.check_own(principal.app_id, workflow_id)
        await execute.delete(services, runner, principal, workflow_id, test_id)
        return null_answer()


def _add_executing(routes: APIRouter, services: RunServices, runner: TestRunner) -> None:
    @routes.post(
        _TEST + "/runs",
        summary="Run a test",
        response_model=TestSchema,
        responses=WRITES,
        openapi_extra=request_body(RunTest, required=False),
    )
    async def run_test(
        principal: Writer, request: Request, workflow_id: str, test_id: str, verbose: Verbose
    ) -> Response:
        """Waits until it is judged, unless `execute_async`; it goes on if the caller goes away."""
        fields = await payload(request, RunTest)
        await services.resolver.check_own(principal.app_id, workflow_id)
        key = read_key(request)
        await execute.execute(services, runner, principal, workflow_id, test_id, fields, key)
        if not fields.execute_async:
            # What is given up with the caller is the waiting: the test goes on.
            await while_present(request.receive, runner.settled(test_id))
        return await _answer(services, principal, workflow_id, test_id)

    @routes.post(
        _TEST + "/cancel", summary="Cancel a test", response_model=TestSchema, responses=WRITES
    )
    async def cancel_test(
        principal: Writer, workflow_id: str, test_id: str, verbose: Verbose
    ) -> Response:
        """Answers when its run has stopped; one that is not running is answered as it is."""
        await _find(services, principal, workflow_id, test_id)
        await execute.cancel(services, runner, principal, workflow_id, test_id)
        return await _answer(services, principal, workflow_id, test_id)


def _add_recording(routes: APIRouter, services: RunServices) -> None:
    in_flight = InFlight()

    @routes.post(
        "/apps/{app_id}/runs/{run_id}/test",
        summary="Make a test of a run",
        response_model=TestSchema,
        responses=WRITES,
        openapi_extra=request_body(RecordTest, required=False),
    )
    async def create_run_test(principal: Writer, request: Request, run_id: str) -> Response:
        """Its input, and what the outside answered it, which is played to the test's runs."""
        fields = await payload(request, RecordTest)
        key = read_key(request)
        with in_flight.hold(principal, key):
            workflow_id, made = await record_test(services, principal, run_id, fields, key)
        return await _answer(services, principal, workflow_id, made)
