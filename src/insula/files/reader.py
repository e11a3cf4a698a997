"""What runs read of files: the engine's port, over the files of the run's app."""

import base64
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

from sqlalchemy import Connection

from insula.adapters.blobs.port import MissingBlob
from insula.adapters.extraction.extractor import ExtractionFailed
from insula.engine.failures import NoRoom, StepFailure, plain
from insula.engine.ports import Activity, Aspect
from insula.files.documents import Documents
from insula.files.reading import Gone
from insula.files.repository import FileRow, find_file
from insula.files.resolve import file_id_in
from insula.files.schemas import document_wire
from insula.files.store import FileStore
from insula.files.uploads import find_upload
from insula.files.wish import Wish
from insula.kit import json
from insula.kit.json import Raw

WHOLE_MAX = 32 * 1024 * 1024
"""Bytes of a file that is handed over whole."""
SEVERAL_MAX = 1_000
"""Files that are read at once, those in lists of lists too."""


class FileReader:
    """Implements ``engine.ports.Files``."""

    def __init__(self, store: FileStore, documents: Documents) -> None:
        self._store = store
        self._documents = documents

    async def read(
        self, app_id: str, aspect: Aspect, file: Any, room: int, activity: Activity
    ) -> Any:
        """Return what is asked for of a file; of a list, a list.

        A file that is there several times is read once, and counts each time.
        """
        if sum(1 for _ in islice(_each(file), SEVERAL_MAX + 1)) > SEVERAL_MAX:
            raise StepFailure(f"More than {SEVERAL_MAX:,} files are read at once", "input")
        known: dict[str, str | Raw] = {}

        async def read(file: Any) -> Any:
            nonlocal room
            if isinstance(file, list):
                return [await read(each) for each in file]
            row = await self.find(app_id, file)
            if row.id not in known:
                known[row.id] = await self._read(row, aspect, room, activity)
            room -= len(known[row.id])
            if room < 0:
                raise NoRoom
            return known[row.id]

        return await read(file)

    async def _read(self, row: FileRow, aspect: Aspect, room: int, activity: Activity) -> str | Raw:
        if aspect == "url":
            urls = self._store.urls
            return urls.public(row.id) if row.visibility == "PUBLIC" else urls.signed(row.id)
        if aspect == "file":
            return await self._whole(row, room)
        activity.doing = f"reading {plain(row.filename, 80)}"
        found = await self.document(
            row, Wish(contents=aspect != "images", images=aspect == "images", whole=True)
        )
        if aspect == "text":
            return "\n\n".join(block["content"] for block in found["contents"])
        return json.raw(found[aspect])

    async def find(self, app_id: str, file: Any) -> FileRow:
        """Find the file that a value means: its object, its id, its upload link, its address.

        Raises:
            StepFailure: ``input``, it is no file of this app.
        """
        named = file_id_in(file)
        if named is None and isinstance(file, str):
            ours = self._store.urls.read(file)
            named = None if ours is None else ours[0]
        row = None
        if named is not None:
            row = await self._store.database.read(partial(_find, app_id=app_id, named=named))
        if row is None:
            shown = plain(str(named or file), 100)
            raise StepFailure(f"{shown!r} is no file of this app", "input")
        return row

    async def document(self, row: FileRow, wish: Wish) -> dict[str, Any]:
        """Return what is in a document, as ``DocumentSchema``; wait until it has been read.

        Raises:
            StepFailure: ``input``, it cannot be read.
        """
        try:
            found = await self._documents.document(row, wish)
        except ExtractionFailed as failure:
            raise StepFailure(f"{row.filename}: {failure}", "input") from failure
        except Gone:
            raise StepFailure(f"{row.filename} was deleted meanwhile", "input") from None
        return document_wire(row, found, self._store.urls)

    async def _whole(self, row: FileRow, room: int) -> str:
        if row.size > WHOLE_MAX:
            raise StepFailure(
                f"{row.filename} has {row.size:,} bytes, more than {WHOLE_MAX:,}: it cannot be "
                "handed over whole",
                "input",
            )
        head = f"data:{row.mimetype};base64,"
        if len(head) + (row.size + 2) // 3 * 4 > room:
            raise NoRoom
        try:
            data = await self._store.blobs.read(row.id)
        except MissingBlob:
            raise StepFailure(f"The bytes of {row.filename} are gone", "input") from None
        return head + base64.b64encode(data).decode()


def _each(value: Any) -> Iterator[Any]:
    """Give what is in a list, and in its lists; an empty one as itself."""
    if not isinstance(value, list) or not value:
        yield value
        return
    for each in value:
        yield from _each(each)


def _find(connection: Connection, app_id: str, named: str) -> FileRow | None:
    promise = find_upload(connection, named, app_id)
    return find_file(connection, named if promise is None else promise.file_id, app_id)
