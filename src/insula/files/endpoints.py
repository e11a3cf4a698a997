"""``/apps/{app_id}/files``, and the address under which a file's bytes are fetched."""

from codecs import getincrementaldecoder
from collections.abc import AsyncIterator
from urllib.parse import quote

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response, StreamingResponse

from insula.adapters.blobs.port import MissingBlob
from insula.errors import Forbidden
from insula.files import extractions, repository
from insula.files.endpoints_given import given_file
from insula.files.extractions import ExtractionRow
from insula.files.repository import FileRow
from insula.files.resolve import FileInputs, resolve_file, shown_again, shown_file
from insula.files.schemas import AppFileSchema, CreateAppFileSchema, file_wire
from insula.files.store import Also, FileStore, Wanted, remove_file
from insula.files.upload_endpoints import add_uploads
from insula.web.auth import Principal, Reader, Writer, unknown
from insula.web.body import payload
from insula.web.idempotency import Idempotency, InFlight, claim, made_before, read_key
from insula.web.incoming import while_present
from insula.web.openapi import READS, WRITES, error_responses, request_body
from insula.web.pagination import Paging, list_answer
from insula.web.respond import json_answer, null_answer
from insula.web.routing import create_router

# What a browser may show in place; everything else it saves.
_SHOWN = ("image/", "audio/", "video/", "application/pdf", "text/plain")
_NOT_SHOWN = ("image/svg+xml",)


def router(files: FileInputs) -> APIRouter:
    """Make the router."""
    store = files.store
    routes = create_router("files")
    add_uploads(routes, files)  # first: ``uploads`` would pass for a file's id
    _add_collection(routes, store)
    _add_file(routes, files)
    _add_content(routes, store)
    return routes


def _add_collection(routes: APIRouter, store: FileStore) -> None:
    in_flight = InFlight()

    @routes.post(
        "/apps/{app_id}/files",
        response_model=AppFileSchema,
        response_model_exclude_none=True,
        responses=WRITES,
        openapi_extra=request_body(CreateAppFileSchema),
    )
    async def create_file(request: Request, principal: Writer) -> Response:
        """Store a file: a form part, text, or an address to download it from."""
        wanted = await payload(request, CreateAppFileSchema)
        given, path = given_file(wanted.file, wanted.file_url)
        idempotency = read_key(request)
        how = Wanted(
            app_id=principal.app_id,
            storage=wanted.storage,
            visibility=wanted.visibility,
            allowed_types=wanted.allowed_types,
            wish=wanted.wish(),
            path=(path,),
        )
        with in_flight.hold(principal, idempotency):
            earlier = await made_before(store.database, principal, idempotency)
            if earlier is not None:
                return json_answer(await shown_again(store, principal.app_id, earlier))
            storing = resolve_file(store, given, how, _claiming(principal, idempotency))
            value = await while_present(request.receive, storing)
        return json_answer(value)

    @routes.get("/apps/{app_id}/files", response_model=list[AppFileSchema], responses=READS)
    async def list_files(principal: Reader, page: Paging) -> Response:
        """List the app's files, newest first."""

        def query(connection: Connection) -> tuple[list[FileRow], int, dict[str, ExtractionRow]]:
            rows, count = repository.list_files(
                connection, principal.app_id, page.take + 1, page.offset, page.position()
            )
            return rows, count, extractions.find_many(connection, [row.id for row in rows])

        rows, count, found = await store.database.read(query)
        more = len(rows) > page.take
        rows = rows[: page.take]
        return list_answer(
            [file_wire(row, store.urls, found.get(row.id)) for row in rows],
            page,
            min(count, repository.COUNTED),
            capped=count > repository.COUNTED,
            next_cursor={"before": rows[-1].id} if more else None,
        )


def _claiming(principal: Principal, idempotency: Idempotency | None) -> Also | None:
    if idempotency is None:
        return None

    def also(connection: Connection, row: FileRow) -> str | None:
        return claim(connection, principal, idempotency, row.id)

    return also


def _add_file(routes: APIRouter, files: FileInputs) -> None:
    @routes.get("/apps/{app_id}/files/{file_id}", response_model=AppFileSchema, responses=READS)
    async def get_file(file_id: str, principal: Reader) -> Response:
        """Show a file, with a fresh address of its bytes, and what was found in it."""
        return json_answer(await shown_file(files.store, principal.app_id, file_id))

    @routes.post(
        "/apps/{app_id}/files/{file_id}/cancel", response_model=AppFileSchema, responses=WRITES
    )
    async def cancel_file(file_id: str, principal: Writer) -> Response:
        """End the extraction of a file. One that has ended stays as it is."""
        await files.documents.cancel(principal.app_id, file_id)
        return json_answer(await shown_file(files.store, principal.app_id, file_id))

    @routes.delete("/apps/{app_id}/files/{file_id}", response_model=None, responses=WRITES)
    async def delete_file(file_id: str, principal: Writer) -> Response:
        """Delete a file and its bytes; what is extracted from it ends first."""
        await files.documents.cancel(principal.app_id, file_id)
        if not await remove_file(files.store, principal.app_id, file_id):
            raise unknown()
        return null_answer()


def _add_content(routes: APIRouter, store: FileStore) -> None:
    @routes.get(
        "/files/{file_id}/content",
        response_class=Response,
        responses={
            **error_responses(400, 403, 404, 429, 500, 503),
            200: {"description": "The bytes.", "content": {"*/*": {}}},
        },
    )
    async def download(
        file_id: str, expires: str | None = None, signature: str | None = None
    ) -> Response:
        """Fetch a file's bytes by its ``file_url``."""
        signed = expires is not None or signature is not None
        if signed and not store.urls.good(file_id, expires or "", signature or ""):
            raise Forbidden("This address is altered or has expired. Ask for the file again.")
        row = await store.database.read(
            lambda connection: repository.find_file(connection, file_id)
        )
        if row is None or not (signed or row.visibility == "PUBLIC"):
            raise unknown()
        chunks = store.blobs.open_stream(file_id)
        try:
            first = await anext(chunks, b"")
        except MissingBlob:
            raise unknown() from None

        async def body() -> AsyncIterator[bytes]:
            yield first
            async for chunk in chunks:
                yield chunk

        return StreamingResponse(body(), headers=_headers(row, first))


def _content_type(row: FileRow, first: bytes) -> str:
    """Return a file's type. A text's encoding is named where its beginning tells that it is UTF-8,
    for it may be any other one: then who reads it has to find out."""
    is_text = row.mimetype.startswith("text/") and "charset" not in row.mimetype
    if is_text and _is_utf8(first, whole=len(first) == row.size):
        return f"{row.mimetype}; charset=utf-8"
    return row.mimetype


def _is_utf8(first: bytes, *, whole: bool) -> bool:
    if b"\0" in first:  # as in UTF-16
        return False
    if first.isascii():  # what follows may be anything
        return whole
    try:
        getincrementaldecoder("utf-8")().decode(first, final=whole)
    except UnicodeDecodeError:
        return False
    return True


def _headers(row: FileRow, first: bytes) -> dict[str, str]:
    """Say how a browser is to treat bytes that anybody may have made."""
    shown = row.mimetype.startswith(_SHOWN) and row.mimetype not in _NOT_SHOWN
    plain = "".join(c if " " < c < "\x7f" and c not in '"\\%;' else "_" for c in row.filename)
    disposition = "inline" if shown else "attachment"
    return {
        "Content-Type": _content_type(row, first),  # here, or each text would be called UTF-8
        "Content-Length": str(row.size),
        "Content-Disposition": (
            f"{disposition}; filename=\"{plain}\"; filename*=UTF-8''{quote(row.filename, safe='')}"
        ),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Cache-Control": "no-store" if row.visibility == "PRIVATE" else "public, max-age=300",
    }
