"""Rows of ``extractions``: what is to be read from a document, who reads it, what was found."""

import zlib
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, and_, insert, or_, select, update

from insula.adapters.extraction.kinds import kind_of, refusal
from insula.files.wish import Wish, decode_wish, encode_wish
from insula.kit import json
from insula.kit.clock import now_ms
from insula.storage import dialect
from insula.storage.tables import extractions, files, nodes

ATTEMPTS = 3
"""How often a document is begun with before it counts as one that ends its readers."""
_GRACE_MS = 1_000
_MESSAGE = 2_000


class ExtractionRow(msgspec.Struct, frozen=True):
    """One extraction, without what was found."""

    file_id: str
    app_id: str
    status: str
    message: str | None
    progress: float
    wanted: bytes
    owner: str | None
    attempts: int

    @property
    def wish(self) -> Wish:
        """What is to be extracted."""
        return decode_wish(self.wanted)

    @property
    def may_be_tried(self) -> bool:
        """Of one that FAILED: whether that says nothing of the document, as after a cancel."""
        return self.attempts == 0


_COLUMNS = [extractions.c[field] for field in ExtractionRow.__struct_fields__]


def begin(
    connection: Connection, file_id: str, app_id: str, mimetype: str, wish: Wish
) -> ExtractionRow:
    """Note what is to be extracted; a type of which nothing can be has failed at once."""
    now = now_ms()
    message = None if kind_of(mimetype) is not None else refusal(mimetype)
    row = ExtractionRow(
        file_id=file_id,
        app_id=app_id,
        status="PROCESSING" if message is None else "FAILED",
        message=message,
        progress=0.0,
        wanted=encode_wish(wish),
        owner=None,
        attempts=0,
    )
    values = msgspec.structs.asdict(row) | {"created_at": now, "updated_at": now}
    connection.execute(insert(extractions).values(values))
    return row


def ensure(
    connection: Connection, file_id: str, app_id: str, mimetype: str, wish: Wish
) -> ExtractionRow | None:
    """Have a file extracted as wished, if it is not already, or being so; ``None`` if there is no
    such file any more. What was cancelled, or could not be had, is tried again; what could not be
    read is not."""
    while True:
        found = find(connection, file_id)
        if found is None:
            # Held until the commit: who deletes runs deletes their files beside other writes.
            file = select(files.c.id).where(files.c.id == file_id)
            if connection.scalar(file.with_for_update(read=True, key_share=True)) is None:
                return None
            return begin(connection, file_id, app_id, mimetype, wish)
        failed = found.status == "FAILED"
        if failed and (kind_of(mimetype) is None or not found.may_be_tried):
            settled = found.wish.covers(wish)
        else:
            settled = not failed and found.wish.covers(wish)
        if settled or _want(connection, found, wish):
            return find(connection, file_id) or found


def _want(connection: Connection, found: ExtractionRow, wish: Wish) -> bool:
    """Add to what is wanted, and begin anew if that is more than is, or was, read; say whether
    it still was as it was found."""
    joined = found.wish.joined(wish)
    if found.status == "FAILED":  # what failed was perhaps too much
        joined = msgspec.structs.replace(joined, whole=wish.whole)
    values: dict[str, Any] = {"wanted": encode_wish(joined), "updated_at": now_ms()}
    if found.status == "FAILED" or not found.wish.suffices(joined):
        anew = {"message": None, "progress": 0.0, "owner": None, "attempts": 0}
        values |= {"status": "PROCESSING", **anew}
    same = (extractions.c.wanted == found.wanted) & (extractions.c.status == found.status)
    mine = (extractions.c.file_id == found.file_id) & same
    return connection.execute(update(extractions).where(mine).values(**values)).rowcount > 0


def find(connection: Connection, file_id: str) -> ExtractionRow | None:
    """Find a file's extraction."""
    query = select(*_COLUMNS).where(extractions.c.file_id == file_id)
    row = connection.execute(query).first()
    return None if row is None else _row(row)


def find_many(connection: Connection, file_ids: Sequence[str]) -> dict[str, ExtractionRow]:
    """Find the extractions of a page of files."""
    query = select(*_COLUMNS).where(extractions.c.file_id.in_(file_ids))
    return {row.file_id: row for row in map(_row, connection.execute(query))}


def find_document(connection: Connection, file_id: str) -> dict[str, Any] | None:
    """Return what was found in a document."""
    data = connection.scalar(select(extractions.c.document).where(extractions.c.file_id == file_id))
    return None if data is None else json.decode(zlib.decompress(bytes(data)))


def find_whole(
    connection: Connection, file_ids: Sequence[str]
) -> list[tuple[ExtractionRow, bytes | None]]:
    """Find the extractions of files, each with what was found, as it is stored."""
    found = []
    for file_id in file_ids:
        query = select(*_COLUMNS, extractions.c.document).where(extractions.c.file_id == file_id)
        row = connection.execute(query).first()
        if row is not None:
            found.append((_row(row[:-1]), None if row[-1] is None else bytes(row[-1])))
    return found


def insert_whole(connection: Connection, row: ExtractionRow, document: bytes | None) -> None:
    """Insert an extraction with what was found, as ``find_whole`` gives it."""
    now = now_ms()
    values = msgspec.structs.asdict(row) | {"created_at": now, "updated_at": now}
    connection.execute(insert(extractions).values(values | {"document": document}))


def compressed(document: object) -> bytes:
    """Return what was found as it is stored."""
    return packed(json.encode(document))


def packed(text: bytes) -> bytes:
    """Return a text of JSON as it is stored."""
    return zlib.compress(text, 6)


def unpacked(data: bytes) -> bytes:
    """Return the text that ``packed`` stores."""
    return zlib.decompress(data)


def claim(
    connection: Connection,
    token: str,
    working: Sequence[str],
    after: str,
    only: Collection[str] | None = None,
) -> ExtractionRow | None:
    """Take the next document that nobody reads, of the app after ``after`` if there is one.

    ``working`` are those that this process reads already, ``only`` those that it may read.
    """
    free = _free(connection, token, working, only)
    for further in (extractions.c.app_id > after, extractions.c.app_id <= after):
        order = (extractions.c.app_id, extractions.c.file_id)
        query = select(extractions.c.file_id).where(free, further).order_by(*order).limit(1)
        file_id = connection.scalar(query)
        if file_id is not None:
            return _take(connection, token, str(file_id), free)
    return None


def any_free(
    connection: Connection,
    token: str,
    working: Sequence[str],
    only: Collection[str] | None = None,
) -> bool:
    """Say whether there is a document that ``claim`` might take, so that nobody writes for none."""
    free = _free(connection, token, working, only)
    query = select(extractions.c.file_id).where(free).limit(1)
    return connection.scalar(query) is not None


def _take(
    connection: Connection, token: str, file_id: str, free: ColumnElement[bool]
) -> ExtractionRow | None:
    taken = connection.execute(
        update(extractions)
        .where(extractions.c.file_id == file_id, free)
        .values(owner=token, attempts=extractions.c.attempts + 1, updated_at=now_ms())
        .returning(*_COLUMNS)
    ).first()
    return None if taken is None else _row(taken)


def _free(
    connection: Connection, token: str, working: Sequence[str], only: Collection[str] | None
) -> ColumnElement[bool]:
    now = dialect.now_ms(connection)
    alive = select(nodes.c.token).where(nodes.c.expires_at + _GRACE_MS > now)
    owner = extractions.c.owner
    nobody = or_(owner.is_(None), owner == token, owner.not_in(alive))
    elsewhere = extractions.c.file_id.not_in(working)
    free = and_(extractions.c.status == "PROCESSING", elsewhere, nobody)
    return free if only is None else and_(free, extractions.c.file_id.in_(only))


def is_mine(connection: Connection, file_id: str, token: str) -> bool:
    """Whether this process is still to read the document: nobody cancelled, or took it over."""
    query = select(extractions.c.file_id).where(_mine(file_id, token))
    return connection.scalar(query) is not None


def tell_progress(connection: Connection, file_id: str, token: str, progress: float) -> bool:
    """Store how much is done; say whether the document is still this process's to read."""
    written = update(extractions).where(_mine(file_id, token))
    values = {"progress": progress, "updated_at": now_ms()}
    return connection.execute(written.values(values)).rowcount > 0


def finish(
    connection: Connection,
    file_id: str,
    token: str,
    *,
    document: bytes | None,
    message: str | None,
) -> bool:
    """Store the end, with what was found or why nothing was; say whether it was ours to tell."""
    done = update(extractions).where(_mine(file_id, token))
    values: dict[str, Any] = {
        "status": "FAILED" if document is None else "PROCESSED",
        "message": message and message[:_MESSAGE],
        "owner": None,
        "document": document,
        "updated_at": now_ms(),
    }
    if document is not None:
        values["progress"] = 1.0
    return connection.execute(done.values(values)).rowcount > 0


def cancel(
    connection: Connection, app_id: str, file_id: str, message: str
) -> tuple[bool, str | None]:
    """End an extraction; say whether there was one to end, and who reads the document: its owner
    stays in the row until it lets go."""
    mine = (extractions.c.file_id == file_id) & (extractions.c.app_id == app_id)
    ended = connection.execute(
        update(extractions)
        .where(mine, extractions.c.status == "PROCESSING")
        .values(status="FAILED", message=message, attempts=0, updated_at=now_ms())
    )
    over = extractions.c.status == "FAILED"
    owner = connection.scalar(select(extractions.c.owner).where(mine, over))
    return ended.rowcount > 0, None if owner is None else str(owner)


def is_held(connection: Connection, file_id: str) -> bool:
    """Whether a living process still reads a document whose extraction is over."""
    now = dialect.now_ms(connection)
    alive = select(nodes.c.token).where(nodes.c.expires_at + _GRACE_MS > now)
    query = select(extractions.c.file_id).where(
        extractions.c.file_id == file_id,
        extractions.c.status == "FAILED",
        extractions.c.owner.in_(alive),
    )
    return connection.scalar(query) is not None


def let_go(connection: Connection, file_id: str, token: str) -> None:
    """Say that this process reads the document no more, which others have ended."""
    over = (extractions.c.owner == token) & (extractions.c.status != "PROCESSING")
    connection.execute(
        update(extractions).where(extractions.c.file_id == file_id, over).values(owner=None)
    )


def finishing(file_id: str) -> Select[Any]:
    """Select the extraction of a file if it is under way or done: then what came of it stays."""
    status = extractions.c.status.in_(("PROCESSING", "PROCESSED"))
    return select(extractions.c.file_id).where(extractions.c.file_id == file_id, status)


def release(connection: Connection, tokens: Sequence[str]) -> None:
    """Give back what this process reads, as if it had not begun: it goes down in peace."""
    connection.execute(
        update(extractions)
        .where(extractions.c.owner.in_(tokens), extractions.c.status == "PROCESSING")
        .values(owner=None, attempts=extractions.c.attempts - 1)
    )


def give_back(connection: Connection, file_id: str, token: str) -> None:
    """Give a document back that could not be read for now, as if it had not been begun."""
    back = update(extractions).where(_mine(file_id, token))
    connection.execute(back.values(owner=None, attempts=extractions.c.attempts - 1))


def _mine(file_id: str, token: str) -> ColumnElement[bool]:
    owned = (extractions.c.owner == token) & (extractions.c.status == "PROCESSING")
    return (extractions.c.file_id == file_id) & owned


def _row(row: Any) -> ExtractionRow:
    values = dict(zip(ExtractionRow.__struct_fields__, row, strict=True))
    return ExtractionRow(**{**values, "wanted": bytes(values["wanted"])})
