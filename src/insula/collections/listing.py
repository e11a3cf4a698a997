"""Lists of records. What a list costs does not grow with what it does not show: what no index has
in order is looked for in steps of so many rows, and a cursor goes on where the last step ended.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Select,
    bindparam,
    exists,
    func,
    select,
)

from insula.collections import counts
from insula.collections.record_repository import reachable
from insula.collections.repository import Found
from insula.collections.rows import RecordRow
from insula.storage.tables import records, tagged
from insula.storage.together import Question, ask_together
from insula.tags import repository as tags
from insula.web.pagination import Page

LOOKED = 2_500
"""Rows that one step looks at; the first ones at fewer: where most match, some are enough."""
_FIRST = 4
"""How many times as many rows as are wanted the first step looks at."""
_MORE = 5
"""How many times as many each further one."""
COUNTED = 10_000
"""Matches among the newest so many rows are counted."""
STEPS = 42
"""Of one answer, at most: some 100,000 rows."""

_NAMED = Question(
    lambda among: select(records).where(
        among(records.c.id, "ids"), records.c.app_id == bindparam("app")
    )
)


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Which records of an app; ``None`` does not restrict."""

    app_id: str
    collection_id: str | None = None
    search: str | None = None
    status: str | None = None
    tag_ids: Sequence[str] = ()


@dataclass(slots=True)
class _Looked:
    """The ids that were found, in order; ``at`` is where the looking stopped before the end."""

    ids: list[str] = field(default_factory=list)
    at: str | None = None
    rows: list[RecordRow] = field(default_factory=list)
    """Those of the ids, where they were read at once."""
    count: int | None = None
    """How many match, where that was read at once."""


def list_records(connection: Connection, wanted: RecordFilter, page: Page) -> Found:
    """Read a page of records, newest first.

    Where words or tags are looked for, it may be short, or empty, and still go on.
    """
    cursor = page.cursor or {}
    before = page.position()
    most = page.offset + page.take + 1
    find = _take if page.offset == 0 and _by_index(wanted) else _look
    found = find(connection, wanted, before, most)
    shown = found.ids[page.offset : most - 1]
    rows = found.rows[: page.take] or _rows(connection, wanted.app_id, shown)
    count, capped = (
        (found.count, False) if found.count is not None else _counted(connection, wanted, cursor)
    )
    following: dict[str, object] | None = None
    if len(found.ids) == most or found.at is not None:
        at = shown[-1] if len(found.ids) == most else found.at
        following = _position(at, count, capped)
    return Found(rows, count, capped, following)


def after(found: Found, record_id: str) -> Mapping[str, object]:
    """Return where a page goes on that ends with this record already."""
    return _position(record_id, found.count, found.capped)


def _position(before: str | None, count: int, capped: bool) -> dict[str, object]:
    return {"before": before, "count": count, "capped": capped}


def _counted(
    connection: Connection, wanted: RecordFilter, cursor: Mapping[str, object]
) -> tuple[int, bool]:
    """Return what a walk's first page counted, where counting looks at many rows."""
    count = cursor.get("count")
    if isinstance(count, int) and count >= 0 and not _by_index(wanted):
        return count, bool(cursor.get("capped"))
    return _count(connection, wanted)


def _rows(connection: Connection, app_id: str, ids: Sequence[str]) -> list[RecordRow]:
    if not ids:
        return []
    (rows,) = ask_together(connection, _NAMED.of(ids=ids, app=app_id))
    found = {row.id: RecordRow(*row) for row in rows}
    return [found[record_id] for record_id in ids if record_id in found]


def _take(connection: Connection, wanted: RecordFilter, before: str | None, most: int) -> _Looked:
    """Read the first ``most`` rows, after a cursor, that an index has in order, and how many there
    are."""
    assert wanted.collection_id is not None
    values = {"collection": wanted.collection_id, "most": most}
    values |= {} if wanted.status is None else {"status": wanted.status}
    values |= {} if before is None else {"before": before}
    found, (count,) = ask_together(
        connection,
        _newest(by_status=wanted.status is not None, further=before is not None).of(**values),
        counts.of_collection(wanted.collection_id, wanted.status),
    )
    rows = [RecordRow(*row) for row in found]
    return _Looked([row.id for row in rows], rows=rows, count=int(count[0]))


@cache
def _newest(*, by_status: bool, further: bool) -> Question:
    """Make the question for the newest records of a collection; of those with a status; of those
    before another."""
    conditions = [records.c.collection_id == bindparam("collection")]
    conditions += [records.c.status == bindparam("status")] if by_status else []
    conditions += [records.c.id < bindparam("before")] if further else []
    query = select(*records.c).where(*conditions).order_by(records.c.id.desc())
    return Question(lambda _: query.limit(bindparam("most", type_=Integer())))


def _look(connection: Connection, wanted: RecordFilter, before: str | None, most: int) -> _Looked:
    """Find the first ``most`` ids that match, after a cursor."""
    if _by_index(wanted):
        query = _matching(wanted, before, None).limit(most)
        return _Looked(list(connection.scalars(query)))
    looked, step = _Looked(), _FIRST * most
    for _ in range(STEPS):
        step = min(step, LOOKED)
        looked.at = _floor(connection, wanted, before, step)
        query = _matching(wanted, before, looked.at).limit(most - len(looked.ids))
        looked.ids += connection.scalars(query)
        if looked.at is None or len(looked.ids) == most:
            break
        before, step = looked.at, step * _MORE
    return looked


def _by_index(wanted: RecordFilter) -> bool:
    """Say whether one index has what is wanted, in order, and the counters its number."""
    return wanted.collection_id is not None and not wanted.search and not wanted.tag_ids


def _count(connection: Connection, wanted: RecordFilter) -> tuple[int, bool]:
    """Count what matches; of what was looked for, the flag says that there may be more."""
    if _by_index(wanted) and wanted.collection_id is not None:
        return counts.records(connection, wanted.collection_id, wanted.status), False
    floor = _floor(connection, wanted, None, COUNTED)
    matching = _matching(wanted, None, floor).order_by(None).subquery()
    count = connection.execute(select(func.count()).select_from(matching)).scalar_one()
    return int(count), floor is not None


def _floor(
    connection: Connection, wanted: RecordFilter, before: str | None, rows: int
) -> str | None:
    """Return the last id of so many that are looked at, ``None`` if there are not more."""
    ids, conditions = _base(wanted)
    query = select(ids).where(*conditions, *([] if before is None else [ids < before]))
    found: str | None = connection.scalar(query.order_by(ids.desc()).offset(rows - 1).limit(1))
    return found


def _base(wanted: RecordFilter) -> tuple[ColumnElement[str], list[ColumnElement[bool]]]:
    """Return the ids that are looked at, and what an index says of them: the first tag's, the
    collection's with their status, or the app's."""
    if wanted.tag_ids:
        ids = tagged.c.thing_id
        return ids, [tagged.c.tag_id == wanted.tag_ids[0], ids >= "rec_", ids < "rec`"]
    if wanted.collection_id is None:
        return records.c.id, [records.c.app_id == wanted.app_id]
    conditions = [records.c.collection_id == wanted.collection_id]
    if wanted.status is not None:
        conditions.append(records.c.status == wanted.status)
    return records.c.id, conditions


def _matching(wanted: RecordFilter, before: str | None, floor: str | None) -> Select[Any]:
    """Select ids between a cursor and a floor, newest first."""
    ids, conditions = _base(wanted)
    query = select(ids).where(*conditions)
    if before is not None:
        query = query.where(ids < before)
    if floor is not None:
        query = query.where(ids >= floor)
    conditions = [
        records.c.name.icontains(word, autoescape=True) for word in (wanted.search or "").split()
    ]
    if wanted.collection_id is None:
        conditions.append(reachable())
        if wanted.status is not None:
            conditions.append(records.c.status == wanted.status)
    if wanted.tag_ids:
        query = query.where(*(tags.has(ids, tag_id) for tag_id in wanted.tag_ids[1:]))
        conditions = [_is_of(wanted, ids, conditions)]
    return query.where(*conditions).order_by(ids.desc())


def _is_of(
    wanted: RecordFilter, ids: ColumnElement[str], conditions: Sequence[ColumnElement[bool]]
) -> ColumnElement[bool]:
    """Match ids of records that are wanted. Not a join: what is looked at is what has the tag, in
    the order of its index, whatever else a planner may think of."""
    mine = [records.c.id == ids, records.c.app_id == wanted.app_id]
    if wanted.collection_id is not None:
        mine.append(records.c.collection_id == wanted.collection_id)
        if wanted.status is not None:
            mine.append(records.c.status == wanted.status)
    return exists().where(*mine, *conditions)
