"""``FILES.*``: what *service* steps do with files."""

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from insula.adapters.blobs.port import MissingBlob
from insula.adapters.extraction.extractor import ExtractionFailed
from insula.adapters.extraction.messages import Piece
from insula.engine.failures import StepFailure, plain
from insula.engine.ports import Activity, ServiceCall
from insula.errors import InsulaError
from insula.files import repository
from insula.files.actions_input import Given, page_numbers
from insula.files.reader import FileReader
from insula.files.reading import copied, order_for, pieces
from insula.files.repository import FileRow
from insula.files.resolve import FileInputs, file_id_in, resolve_file
from insula.files.schemas import file_wire
from insula.files.store import Also, Wanted, remove_bytes, store_file
from insula.files.wish import Wish
from insula.kit import json
from insula.kit.json import Raw
from insula.web.auth import Principal
from insula.web.idempotency import Idempotency, claim

_NAMES = {
    "text/plain": "file.txt",
    "text/csv": "file.csv",
    "text/html": "file.html",
    "application/json": "file.json",
    "application/xml": "file.xml",
}


class FileActions:
    """Implements ``engine.ports.Services`` for the type FILES."""

    def __init__(self, files: FileInputs, reader: FileReader) -> None:
        self._files = files
        self._store = files.store
        self._reader = reader
        self._actions: dict[str, Callable[[ServiceCall, Given], Awaitable[Any]]] = {
            "DOWNLOAD_FILE": self._download,
            "UPLOAD_FILE": self._upload,
            "DELETE_FILE": self._delete,
            "EXTRACT_PAGES": self._extract_pages,
            "EXTRACT_CONTENTS": self._extract_contents,
            "EXTRACT_IMAGES": self._extract_images,
        }

    async def call(self, call: ServiceCall, activity: Activity) -> Raw:
        """Do it; return what the step gives. Raises ``StepFailure``."""
        action = self._actions.get(call.action)
        if action is None:
            known = ", ".join(sorted(self._actions))
            raise StepFailure(
                f"There is no action FILES.{plain(call.action, 60)}; there are: {known}",
                "not_available",
            )
        activity.effect_possible = True
        try:
            output = await action(call, Given(call.input))
        except InsulaError as error:
            raise StepFailure(error.message, "input") from error
        except MissingBlob:
            raise StepFailure("The bytes of the file are gone", "input") from None
        activity.effect_possible = False
        return json.raw(output)

    async def _download(self, call: ServiceCall, given: Given) -> Any:
        url = given.text("file")
        if not url[:8].lower().startswith(("http://", "https://")):
            raise StepFailure("file must be an http or https address", "input")
        return await resolve_file(self._store, url, self._wanted(call, given), _once(call))

    async def _upload(self, call: ServiceCall, given: Given) -> Any:
        value, kind = given.value("file"), given.choice("mime_type", ("auto", *_NAMES), "auto")
        wanted = self._wanted(call, given, None if kind == "auto" else kind)
        name = given.optional("name") or _NAMES.get(kind, "file.txt")
        is_file = file_id_in(value) is not None
        named = isinstance(value, str) and value[:8].lower().startswith(
            ("http://", "https://", "data:")
        )
        if not is_file and not named:
            text = value if isinstance(value, str) else json.encode(value).decode()
            value = {"data": text, "encoding": "raw", "name": name}
        elif is_file:
            row = await self._reader.find(call.app_id, value)
            wanted = replace(wanted, filename=given.optional("name") or row.filename)
            chunks = self._store.blobs.open_stream(row.id)
            copy = await store_file(self._store, wanted, chunks, _once(call))
            return file_wire(copy, self._store.urls)
        return await resolve_file(self._store, value, replace(wanted, filename=name), _once(call))

    async def _delete(self, call: ServiceCall, given: Given) -> Any:
        row_id = file_id_in(given.value("file_id"))
        if row_id is None:
            raise StepFailure("file_id must be the id of a file", "input")

        def unit(connection: Connection) -> list[str] | None:
            gone = repository.delete_file(connection, call.app_id, row_id)
            earlier = _claimed(connection, call, row_id)
            return gone if gone or earlier is not None else None

        await self._files.documents.cancel(call.app_id, row_id)
        gone = await self._store.database.write(unit)
        if gone is None:
            raise StepFailure(f"{row_id} is no file of this app", "input")
        await remove_bytes(self._store, gone)
        return {"file_id": row_id, "deleted": True}

    async def _extract_pages(self, call: ServiceCall, given: Given) -> Any:
        row = await self._named_file(call, given)
        wish = Wish(extract_pages=True, pages=page_numbers(given.text("pages")))
        if row.mimetype != "application/pdf":
            raise StepFailure(f"{row.filename} is no PDF: it has no pages to extract", "input")
        stem = row.filename.rpartition(".")[0] or row.filename
        name = given.optional("name") or f"{stem} (pages).pdf"
        if not name.lower().endswith(".pdf"):
            name += ".pdf"
        made = await self._write_pages(
            row, wish, replace(self._wanted(call, given), filename=name), call
        )
        return file_wire(made, self._store.urls)

    async def _write_pages(
        self, row: FileRow, wish: Wish, wanted: Wanted, call: ServiceCall
    ) -> FileRow:
        extractor = self._files.documents.extractor
        try:
            order = order_for(row, wish, extractor)
            async with extractor.read(order, copied(self._store, row)) as messages:
                async for message in messages:
                    if isinstance(message, Piece):
                        made: AsyncGenerator[bytes, None] = pieces(message, messages)
                        return await store_file(self._store, wanted, made, _once(call))
        except ExtractionFailed as failure:
            raise StepFailure(f"{row.filename}: {failure}", "input") from failure
        raise StepFailure(f"{row.filename}: no pages came of it", "input")

    async def _extract_contents(self, call: ServiceCall, given: Given) -> Any:
        return await self._extracted(call, given, Wish(contents=True, whole=True))

    async def _extract_images(self, call: ServiceCall, given: Given) -> Any:
        return await self._extracted(call, given, Wish(images=True, whole=True))

    async def _extracted(self, call: ServiceCall, given: Given, wish: Wish) -> Any:
        row = await self._named_file(call, given)
        document = await self._reader.document(row, wish)
        wire = file_wire(row, self._store.urls)
        wire |= {"file_format": "DOCUMENT", "file_status": "PROCESSED", "document": document}
        return wire

    async def _named_file(self, call: ServiceCall, given: Given) -> FileRow:
        """Find the file that is meant; store one that comes from elsewhere."""
        value = given.value("file")
        wire = await resolve_file(
            self._store, value, self._wanted(call, given, field="file"), _once(call, "file")
        )
        return await self._reader.find(call.app_id, wire)

    def _wanted(
        self, call: ServiceCall, given: Given, text_type: str | None = None, field: str = "file"
    ) -> Wanted:
        storage = given.choice("storage", ("PERSISTENT", "TEMPORARY"), "PERSISTENT")
        visibility = given.choice("visibility", ("PRIVATE", "PUBLIC"), "PRIVATE")
        return Wanted(
            app_id=call.app_id,
            storage=storage,
            visibility=visibility,
            run_id=call.run_id if storage == "TEMPORARY" else None,
            text_type=text_type,
            path=(field,),
        )


def _once(call: ServiceCall, part: str = "") -> Also:
    """Have what a call makes made once, however often the call is attempted."""

    def also(connection: Connection, row: FileRow) -> str | None:
        return _claimed(connection, call, row.id, part)

    return also


def _claimed(connection: Connection, call: ServiceCall, made: str, part: str = "") -> str | None:
    """Note what a call made; return what an earlier attempt at it made."""
    key = Idempotency(
        key=call.idempotency_key,
        method="CALL",
        path=f"/FILES/{call.action}/{part}",
        body_hash=hashlib.sha256(b"").digest(),
    )
    return claim(connection, Principal(call.app_id, call.run_id), key, made)
