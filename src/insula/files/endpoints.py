"""``/apps/{app_id}/files``, and the address under which a file's bytes are fetched."""

from collections.abc import AsyncIterator
from urllib.parse import quote

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response, StreamingResponse

from insula.adapters.blobs.port import MissingBlob
from insula.errors import BadInput, FieldError, Forbidden
from insula.files import repository
from insula.files.repository import FileRow
from insula.files.resolve import FileInputs, resolve_file
from insula.files.schemas import AppFileSchema, CreateAppFileSchema, file_wire
from insula.files.store import Also, FileStore, Wanted, remove_file
from insula.web.auth import Principal, Reader, Writer, unknown
from insula.web.body import payload
from insula.web.idempotency import Idempotency, InFlight, claim, read_key
from insula.web.openapi import READS, WRITES, error_responses, request_body
from insula.web.pagination import Page, Paging, list_answer
from insula.web.respond import json_answer, null_answer

_EXTRACTION = (
    "document_extract_contents",
    "document_extract_images",
    "document_extract_pages",
    "document_pages",
    "document_max_pages",
)
# What a browser may show in place; everything else it saves.
_SHOWN = ("image/", "audio/", "video/", "application/pdf", "text/plain")
_NOT_SHOWN = ("image/svg+xml",)


def router(files: FileInputs) -> APIRouter:
    """Make the router."""
    store = files.store
    routes = APIRouter(tags=["files"])
    _add_later(routes)  # first: ``uploads`` would pass for a file's id
    _add_collection(routes, store)
    _add_file(routes, store)
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
        given = _given(wanted)
        idempotency = read_key(request)
        how = Wanted(
            app_id=principal.app_id,
            storage=wanted.storage,
            visibility=wanted.visibility,
            allowed_types=wanted.allowed_types,
            path=("file",) if wanted.file is not None else ("file_url",),
        )
        with in_flight.hold(principal, idempotency):
            value = await resolve_file(store, given, how, _claiming(principal, idempotency))
        return json_answer(value)

    @routes.get("/apps/{app_id}/files", response_model=list[AppFileSchema], responses=READS)
    async def list_files(principal: Reader, page: Paging) -> Response:
        """List the app's files, newest first."""
        rows, count = await store.database.read(
            lambda connection: repository.list_files(
                connection, principal.app_id, page.take + 1, page.offset, _before(page)
            )
        )
        more = len(rows) > page.take
        rows = rows[: page.take]
        return list_answer(
            [file_wire(row, store.urls) for row in rows],
            page,
            min(count, repository.COUNTED),
            capped=count > repository.COUNTED,
            next_cursor={"before": rows[-1].id} if more else None,
        )


def _given(wanted: CreateAppFileSchema) -> object:
    """Return what is to be stored.

    Raises:
        BadInput: nothing is, or both, or more than storing is asked for.
    """
    for name in _EXTRACTION:
        if getattr(wanted, name):
            message = "is not available yet; leave it out to store the file as it is"
            problem = FieldError((name,), "not_available", message)
            raise BadInput(f"{name} {message}.", [problem])
    if (wanted.file is None) == (wanted.file_url is None):
        message = "send either file or file_url"
        raise BadInput(f"No file: {message}.", [FieldError(("file",), "required", message)])
    if wanted.file_url is not None:
        if not wanted.file_url[:8].lower().startswith(("http://", "https://")):
            message = "must be an http or https address"
            raise BadInput(f"file_url {message}.", [FieldError(("file_url",), "url", message)])
        return wanted.file_url
    return wanted.file


def _claiming(principal: Principal, idempotency: Idempotency | None) -> Also | None:
    if idempotency is None:
        return None

    def also(connection: Connection, row: FileRow) -> str | None:
        return claim(connection, principal, idempotency, row.id)

    return also


def _before(page: Page) -> str | None:
    if page.cursor is None:
        return None
    before = page.cursor.get("before")
    if not isinstance(before, str):
        message = "is not a cursor of this list"
        raise BadInput(f"`next` {message}.", [FieldError(("next",), "cursor", message, "query")])
    return before


def _add_file(routes: APIRouter, store: FileStore) -> None:
    @routes.get("/apps/{app_id}/files/{file_id}", response_model=AppFileSchema, responses=READS)
    async def get_file(file_id: str, principal: Reader) -> Response:
        """Show a file, with a fresh address of its bytes."""
        row = await store.database.read(
            lambda connection: repository.find_file(connection, file_id, principal.app_id)
        )
        if row is None:
            raise unknown()
        return json_answer(file_wire(row, store.urls))

    @routes.delete("/apps/{app_id}/files/{file_id}", response_model=None, responses=WRITES)
    async def delete_file(file_id: str, principal: Writer) -> Response:
        """Delete a file and its bytes."""
        if not await remove_file(store, principal.app_id, file_id):
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

        return StreamingResponse(body(), media_type=row.mimetype, headers=_headers(row))


def _headers(row: FileRow) -> dict[str, str]:
    """Say how a browser is to treat bytes that anybody may have made."""
    shown = row.mimetype.startswith(_SHOWN) and row.mimetype not in _NOT_SHOWN
    plain = "".join(c if " " < c < "\x7f" and c not in '"\\%;' else "_" for c in row.filename)
    disposition = "inline" if shown else "attachment"
    return {
        "Content-Length": str(row.size),
        "Content-Disposition": (
            f"{disposition}; filename=\"{plain}\"; filename*=UTF-8''{quote(row.filename, safe='')}"
        ),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Cache-Control": "no-store" if row.visibility == "PRIVATE" else "public, max-age=300",
    }


def _add_later(routes: APIRouter) -> None:
    """Answer for what is to come: upload links, and cancelling an extraction."""
    uploads = "/apps/{app_id}/files/uploads"
    for method, path, answer in (
        ("GET", uploads, _no_uploads),
        ("POST", uploads, _no_uploads),
        ("GET", uploads + "/{file_upload_id}", _no_uploads),
        ("PATCH", uploads + "/{file_upload_id}", _no_uploads),
        ("DELETE", uploads + "/{file_upload_id}", _no_uploads),
        ("POST", "/apps/{app_id}/files/{file_id}/cancel", _no_extraction),
    ):
        name = f"later_{method}_{path}".lower()
        routes.add_api_route(
            path, answer, methods=[method], responses=WRITES, response_model=None, operation_id=name
        )


async def _no_uploads(_: Reader) -> Response:
    """Not available yet."""
    raise BadInput("Upload links are not available yet. Send the file with POST …/files.")


async def _no_extraction(_: Reader) -> Response:
    """Not available yet."""
    raise BadInput("Extraction is not available yet, so there is nothing to cancel.")
