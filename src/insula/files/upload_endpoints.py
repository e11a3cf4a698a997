"""``/apps/{app_id}/files/uploads``, and the address at which a link takes its one file."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NoReturn

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response

from insula.errors import BadInput, Conflict, FieldError, NotFound
from insula.files import extractions, repository, uploads
from insula.files.endpoints_given import given_file
from insula.files.repository import FileRow
from insula.files.resolve import FileInputs, resolve_file
from insula.files.schemas import AppFileSchema, file_wire
from insula.files.store import FileStore, Wanted
from insula.files.upload_schemas import (
    AppFileUploadSchema,
    CreateAppFileUploadSchema,
    UpdateAppFileUploadSchema,
    UploadAppFileSchema,
    check_metadata,
    upload_wire,
)
from insula.files.uploads import UploadRow
from insula.files.wish import Wish
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.kit.tasks import uninterrupted
from insula.web.auth import Reader, Writer, unknown
from insula.web.body import payload
from insula.web.idempotency import InFlight, claim, read_key
from insula.web.incoming import while_present
from insula.web.openapi import READS, WRITES, error_responses, request_body
from insula.web.pagination import Paging, list_answer
from insula.web.respond import json_answer, null_answer

_BASE = "/apps/{app_id}/files/uploads"


def add_uploads(routes: APIRouter, files: FileInputs) -> None:
    """Add the routes of upload links."""
    _add_making(routes, files.store)
    _add_reading(routes, files.store)
    _add_changing(routes, files.store)
    _add_arriving(routes, files)


def _add_making(routes: APIRouter, store: FileStore) -> None:
    in_flight = InFlight()

    @routes.post(
        _BASE,
        response_model=AppFileUploadSchema,
        responses=WRITES,
        openapi_extra=request_body(CreateAppFileUploadSchema),
    )
    async def create_upload(request: Request, principal: Writer) -> Response:
        """Make a link through which anybody may send one file, without a key."""
        wanted = await payload(request, CreateAppFileUploadSchema)
        idempotency = read_key(request)
        now = now_ms()
        row = UploadRow(
            id=new_id("upl"),
            app_id=principal.app_id,
            file_id=new_id("file"),
            storage=wanted.storage,
            visibility=wanted.visibility,
            options=uploads.encode_options(wanted.options()),
            used_at=None,
            expires_at=now + wanted.life_ms(),
            created_at=now,
            updated_at=now,
        )

        def unit(connection: Connection) -> str:
            earlier = idempotency and claim(connection, principal, idempotency, row.id)
            if not earlier:
                uploads.insert_upload(connection, row)
            return earlier or row.id

        with in_flight.hold(principal, idempotency):
            made = await store.database.write(unit)
        return json_answer(await _shown(store, made, principal.app_id))


def _add_reading(routes: APIRouter, store: FileStore) -> None:
    @routes.get(_BASE, response_model=list[AppFileUploadSchema], responses=READS)
    async def list_uploads(principal: Reader, page: Paging) -> Response:
        """List the app's upload links, newest first."""

        def query(connection: Connection) -> tuple[list[dict[str, Any]], int, str]:
            rows, count = uploads.list_uploads(
                connection, principal.app_id, page.take + 1, page.offset, page.position()
            )
            shown = [_wire(connection, store, row) for row in rows[: page.take]]
            more = len(rows) > page.take
            return shown, count, rows[page.take - 1].id if more else ""

        shown, count, last = await store.database.read(query)
        return list_answer(
            shown,
            page,
            min(count, repository.COUNTED),
            capped=count > repository.COUNTED,
            next_cursor={"before": last} if last else None,
        )

    @routes.get(_BASE + "/{file_upload_id}", response_model=AppFileUploadSchema, responses=READS)
    async def get_upload(file_upload_id: str, principal: Reader) -> Response:
        """Show a link, and its file if it has come."""
        return json_answer(await _shown(store, file_upload_id, principal.app_id))


def _add_changing(routes: APIRouter, store: FileStore) -> None:
    @routes.patch(
        _BASE + "/{file_upload_id}",
        response_model=AppFileUploadSchema,
        responses=WRITES,
        openapi_extra=request_body(UpdateAppFileUploadSchema),
    )
    async def update_upload(file_upload_id: str, request: Request, principal: Writer) -> Response:
        """Replace a link's metadata."""
        wanted = await payload(request, UpdateAppFileUploadSchema)
        check_metadata(wanted.metadata)
        if "metadata" in wanted.model_fields_set:
            change = partial(
                uploads.change_metadata,
                app_id=principal.app_id,
                upload_id=file_upload_id,
                metadata=wanted.metadata,
            )
            await store.database.write(change)
        return json_answer(await _shown(store, file_upload_id, principal.app_id))

    @routes.delete(_BASE + "/{file_upload_id}", response_model=None, responses=WRITES)
    async def delete_upload(file_upload_id: str, principal: Writer) -> Response:
        """Delete a link; a file that came through it stays."""
        delete = partial(uploads.delete_upload, app_id=principal.app_id, upload_id=file_upload_id)
        if not await store.database.write(delete):
            raise unknown()
        return null_answer()


def _add_arriving(routes: APIRouter, files: FileInputs) -> None:
    arriving = uploads.Arriving()

    @routes.post(
        "/public/apps/files/uploads/{file_upload_id}",
        response_model=AppFileSchema,
        response_model_exclude_none=True,
        responses=error_responses(400, 404, 409, 413, 415, 422, 429, 500, 503),
        openapi_extra=request_body(UploadAppFileSchema),
    )
    async def upload_file(file_upload_id: str, request: Request) -> Response:
        """Send the one file that an upload link takes; needs no key."""
        store = files.store
        find = partial(uploads.find_upload, upload_id=file_upload_id)
        row = await store.database.read(find)
        _check_open(row)
        assert row is not None
        with arriving.through(row.id) if row.id not in arriving else _busy():
            # Before the body is read, which may be large: whoever has the link might send many.
            async with _claimed(files, row.id) as token:
                sent = await payload(request, UploadAppFileSchema)
                given, path = given_file(sent.file, sent.file_url)
                taking = _take_in(files, row, given, path, token)
                return json_answer(await while_present(request.receive, taking))


@asynccontextmanager
async def _claimed(files: FileInputs, upload_id: str) -> AsyncIterator[str]:
    """Reserve a link for one sender, among all nodes; give the token that it is reserved for.

    Raises:
        Conflict: a file is arriving, or has arrived.
        NotFound, BadInput: the link is gone, or has expired.
    """
    database, token = files.store.database, files.token()
    take = partial(uploads.claim, upload_id=upload_id, token=token, ours_is_dead=True)
    try:
        if not await database.write(take):
            _check_open(await database.read(partial(uploads.find_upload, upload_id=upload_id)))
            _busy()
        yield token
    finally:  # nothing happens to a link that was used
        release = partial(uploads.release, upload_id=upload_id, token=token)
        await uninterrupted(database.write(release))


async def _take_in(
    files: FileInputs, row: UploadRow, given: object, path: str, token: str
) -> dict[str, Any]:
    """Store what is sent under the id that was promised, and close the link in the same unit."""
    store = files.store

    def closing(connection: Connection, _: FileRow) -> None:
        if not uploads.use(connection, row.id, token):
            raise unknown()  # deleted meanwhile

    def still_ours(connection: Connection) -> None:
        if not uploads.holds(connection, row.id, token):
            raise unknown()

    options = row.wanted
    wanted = Wanted(
        app_id=row.app_id,
        storage=row.storage,
        visibility=row.visibility,
        file_id=row.file_id,
        still_ours=still_ours,
        allowed_types=options.allowed_types,
        wish=Wish(bool(options.contents), bool(options.images), pages=options.pages),
        path=(path,),
    )
    return await resolve_file(store, given, wanted, closing, stored=False)


def _busy() -> NoReturn:
    raise Conflict("A file is arriving through this link just now.", retry_after=1)


def _check_open(row: UploadRow | None) -> None:
    if row is None:
        raise NotFound("There is no such upload link. Check the address.")
    if row.used_at is not None:
        raise Conflict("This upload link has been used: it takes one file. Ask for another.")
    if row.expires_at <= now_ms():
        message = "has expired; ask for another"
        raise BadInput(
            f"This upload link {message}.", [FieldError(("file_upload_id",), "expired", message)]
        )


async def _shown(store: FileStore, upload_id: str, app_id: str) -> dict[str, Any]:
    def query(connection: Connection) -> dict[str, Any] | None:
        row = uploads.find_upload(connection, upload_id, app_id)
        return None if row is None else _wire(connection, store, row)

    shown = await store.database.read(query)
    if shown is None:
        raise unknown()
    return shown


def _wire(connection: Connection, store: FileStore, row: UploadRow) -> dict[str, Any]:
    file = None
    if row.used_at is not None:
        file = repository.find_file(connection, row.file_id, row.app_id)
    extraction = None if file is None else extractions.find(connection, file.id)
    shown = None if file is None else file_wire(file, store.urls, extraction)
    return upload_wire(row, shown, store.urls)
