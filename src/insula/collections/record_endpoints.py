"""The routes of a collection's records."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator
from sqlalchemy import Connection
from starlette.responses import Response

from insula.collections import listing, reading, records, repeats, repository
from insula.collections.answers import ExtendedRecordSchema, RecordSchema, RecordStatusSchema
from insula.collections.cancel import cancel
from insula.collections.listing import RecordFilter
from insula.collections.remove import remove_record
from insula.collections.report import report
from insula.collections.repository import Found
from insula.collections.schemas import CreateRecord, RunRecord, UpdateRecord
from insula.collections.services import RecordServices
from insula.collections.status import status
from insula.tags import repository as tags
from insula.web.auth import Principal, Reader, Writer, unknown
from insula.web.body import is_form, payload
from insula.web.fields import storable
from insula.web.idempotency import InFlight, read_key
from insula.web.openapi import READS, WRITES, none_given, request_body
from insula.web.pagination import Paging, list_answer
from insula.web.respond import json_answer, null_answer

Verbose = Annotated[
    list[Literal["all"]],
    Query(default_factory=none_given, max_length=10, description="`all`: the rules' runs, whole."),
]
Status = Literal["ALL", "DRAFT", "QUEUED", "RUNNING", "CANCELLED", "COMPLETED", "FAILED"]
Word = Annotated[str, AfterValidator(storable)]
Search = Annotated[Word | None, Query(max_length=200, description="Words that the name holds.")]
TagsAsked = Annotated[
    list[Word],
    Query(
        alias="tags",
        default_factory=none_given,
        max_length=100,
        description="Ids or names of tags, all of them.",
    ),
]
TagIds = Annotated[
    list[Word],
    Query(default_factory=none_given, max_length=100, description="Ids of tags, all of them."),
]


def add(routes: APIRouter, services: RecordServices, collection: str) -> None:
    """Add the routes below one collection."""
    base = collection + "/records"
    one = base + "/{record_id}"
    _add_list(routes, services, base)
    _add_making(routes, services, base)
    _add_one(routes, services, one)
    _add_looking(routes, services, one)
    _add_running(routes, services, one)
    _add_results(routes, services, one)


def _add_list(routes: APIRouter, services: RecordServices, base: str) -> None:
    @routes.get(base, summary="List records", response_model=list[RecordSchema], responses=READS)
    async def list_records(
        principal: Reader,
        page: Paging,
        collection_id: str,
        verbose: Verbose,
        tags_asked: TagsAsked,
        tag_ids: TagIds,
        search: Search = None,
        status: Status = "ALL",  # the contract's name
    ) -> Response:
        """Newest first. Runs are in short; `verbose=all` has them whole."""

        # One snapshot: what stands around the records is of the same moment.
        def query(connection: Connection) -> tuple[Found, reading.Seen] | None:
            if repository.find(connection, principal.app_id, collection_id) is None:
                return None
            wanted = RecordFilter(
                app_id=principal.app_id,
                collection_id=collection_id,
                search=search,
                status=None if status == "ALL" else status,
                tag_ids=[*tags.named(connection, principal.app_id, tags_asked), *tag_ids],
            )
            found = listing.list_records(connection, wanted, page)
            return found, reading.see_many(connection, found.rows, reading.base_of(services))

        read = await services.runs.database.read(query)
        if read is None:
            raise unknown()
        found, seen = read
        shown = await reading.encode_many(services, seen, verbose=bool(verbose))
        following = found.following
        if len(shown) < len(found.rows):
            following = listing.after(found, found.rows[len(shown) - 1].id)
        body = b"[" + b",".join(shown) + b"]"
        return list_answer(body, page, found.count, found.capped, following)


def _add_making(routes: APIRouter, services: RecordServices, base: str) -> None:
    in_flight = InFlight()

    @routes.post(
        base,
        summary="Create a record",
        response_model=ExtendedRecordSchema,
        responses=WRITES,
        openapi_extra=request_body(
            CreateRecord,
            example={"name": "Loan 17", "rules": {"age": {"born": "1990-02-01"}}, "run": "all"},
        ),
    )
    async def create_record(
        principal: Writer, request: Request, collection_id: str, verbose: Verbose
    ) -> Response:
        """`run` analyses it at once; then its inputs have to be complete."""
        fields = await payload(request, CreateRecord)
        key = read_key(request)
        with in_flight.hold(principal, key):
            made = await records.create(
                services, principal, collection_id, fields, key, from_text=is_form(request)
            )
        shown = await reading.record_bytes(
            services, principal.app_id, collection_id, made, verbose=bool(verbose), extended=True
        )
        return json_answer(shown)


def _add_one(routes: APIRouter, services: RecordServices, one: str) -> None:
    in_flight = InFlight()

    @routes.get(one, summary="Read a record", response_model=ExtendedRecordSchema, responses=READS)
    async def get_record(
        principal: Reader, collection_id: str, record_id: str, verbose: Verbose
    ) -> Response:
        """With the workflows and versions behind its rules."""
        shown = await reading.record_bytes(
            services,
            principal.app_id,
            collection_id,
            record_id,
            verbose=bool(verbose),
            extended=True,
        )
        return json_answer(shown)

    @routes.patch(
        one,
        summary="Change a record",
        response_model=ExtendedRecordSchema,
        responses=WRITES,
        openapi_extra=request_body(UpdateRecord),
    )
    async def update_record(
        principal: Writer, request: Request, collection_id: str, record_id: str, verbose: Verbose
    ) -> Response:
        """What is left out stays; a rule's input that is sent replaces the one before."""
        fields = await payload(request, UpdateRecord)
        key = read_key(request)
        with in_flight.hold(principal, key):
            if not await repeats.was_done(services, principal, key):
                await records.update(
                    services,
                    principal,
                    collection_id,
                    record_id,
                    fields,
                    from_text=is_form(request),
                    also=repeats.claiming(principal, key, record_id),
                )
        shown = await reading.record_bytes(
            services,
            principal.app_id,
            collection_id,
            record_id,
            verbose=bool(verbose),
            extended=True,
        )
        return json_answer(shown)

    @routes.delete(one, summary="Delete a record", responses=WRITES)
    async def delete_record(principal: Writer, collection_id: str, record_id: str) -> Response:
        """First cancels what runs for it; its files, and the data of its runs, go with it."""
        await remove_record(services, principal, collection_id, record_id)
        return null_answer()


def _add_looking(routes: APIRouter, services: RecordServices, one: str) -> None:
    @routes.get(
        one + "/status",
        summary="Say whether a record can be analysed",
        response_model=RecordStatusSchema,
        responses=READS,
    )
    async def record_status(principal: Reader, collection_id: str, record_id: str) -> Response:
        """What is wrong with its inputs, rule by rule."""
        return json_answer(await status(services, principal.app_id, collection_id, record_id))

    @routes.get(
        one + "/download",
        summary="Report on a record",
        response_class=Response,
        responses={
            **READS,
            200: {"description": "A PDF document.", "content": {"application/pdf": {}}},
        },
    )
    async def download_record(principal: Reader, collection_id: str, record_id: str) -> Response:
        """The verdicts in one table, then each rule with what it says."""
        name, document = await report(services, principal.app_id, collection_id, record_id)
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(document, headers=headers, media_type="application/pdf")


async def _answer(
    services: RecordServices, principal: Principal, collection_id: str, record_id: str
) -> Response:
    shown = await reading.record_bytes(services, principal.app_id, collection_id, record_id)
    return json_answer(shown)


def _add_running(routes: APIRouter, services: RecordServices, one: str) -> None:
    in_flight = InFlight()

    @routes.post(
        one + "/run",
        summary="Analyse a record",
        response_model=RecordSchema,
        responses=WRITES,
        openapi_extra=request_body(RunRecord, example={"mode": "changed"}),
    )
    async def run_record(
        principal: Writer, request: Request, collection_id: str, record_id: str
    ) -> Response:
        """`all` runs every rule, `changed` those whose input, rule or version is another."""
        fields = await payload(request, RunRecord)
        key = read_key(request)
        with in_flight.hold(principal, key):
            if not await repeats.was_done(services, principal, key):
                done = repeats.claiming(principal, key, record_id)
                await records.run(
                    services, principal, collection_id, record_id, fields.mode, also=done
                )
        return await _answer(services, principal, collection_id, record_id)

    @routes.post(
        one + "/cancel",
        summary="Cancel an analysis",
        response_model=RecordSchema,
        responses=WRITES,
    )
    async def cancel_record(principal: Writer, collection_id: str, record_id: str) -> Response:
        """Answers when everything that ran for it has stopped."""
        await cancel(services, principal, collection_id, record_id)
        return await _answer(services, principal, collection_id, record_id)


def _add_results(routes: APIRouter, services: RecordServices, one: str) -> None:
    @routes.post(
        one + "/update-rules",
        summary="Take the collection's rules",
        response_model=RecordSchema,
        responses=WRITES,
    )
    async def update_rules(principal: Writer, collection_id: str, record_id: str) -> Response:
        """Inputs and verdicts of rules that stay are kept."""
        await records.update_rules(services, principal, collection_id, record_id)
        return await _answer(services, principal, collection_id, record_id)

    @routes.post(
        one + "/reset",
        summary="Clear a record's results",
        response_model=RecordSchema,
        responses=WRITES,
    )
    async def reset_record(principal: Writer, collection_id: str, record_id: str) -> Response:
        """Its inputs stay."""
        await records.reset(services, principal, collection_id, record_id)
        return await _answer(services, principal, collection_id, record_id)
