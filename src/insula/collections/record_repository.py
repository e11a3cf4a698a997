"""Records and their rules in the database. Every function takes a connection."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    text,
    update,
)

from insula.collections import counts
from insula.collections.rows import LIVE, RecordRow, RuleRow, Standing, names, values
from insula.kit.clock import now_ms
from insula.runs.remove import due_now
from insula.storage.dialect import by_index
from insula.storage.tables import collections, files, record_rules, records, runs
from insula.storage.together import Question, ask_together
from insula.tags import repository as tags

_STALE_MS = 5_000
SOME = 500
"""How many records are found at once."""
_LIVE = text("records.status IN ('QUEUED', 'RUNNING')")
_RESTING = """
    NOT EXISTS (SELECT 1 FROM record_rules {index}
                WHERE record_rules.record_id = records.id AND record_rules.status = 'RUNNING')
"""
_STANDING = [record_rules.c[name] for name in names(Standing)]
_HELD = [func.coalesce(func.length(record_rules.c[name]), 0) for name in ("input", "outcome")]
RULES = Question(lambda among: select(record_rules).where(among(record_rules.c.record_id, "ids")))
"""The rules of records."""
SIZES = Question(
    lambda among: (
        select(record_rules.c.record_id, func.sum(_HELD[0] + _HELD[1]))
        .where(among(record_rules.c.record_id, "ids"))
        .group_by(record_rules.c.record_id)
    )
)
"""How many bytes of inputs and results records hold."""


def find(
    connection: Connection, app_id: str, collection_id: str | None, record_id: str
) -> RecordRow | None:
    """Return one record of an app, unless its collection is being deleted."""
    query = select(records).where(records.c.id == record_id, records.c.app_id == app_id)
    if collection_id is not None:
        query = query.where(records.c.collection_id == collection_id)
    row = connection.execute(query.where(reachable())).first()
    return None if row is None else RecordRow(*row)


def by_id(connection: Connection, record_id: str) -> RecordRow | None:
    """Return a record, whosever it is."""
    row = connection.execute(select(records).where(records.c.id == record_id)).first()
    return None if row is None else RecordRow(*row)


def reachable() -> ColumnElement[bool]:
    """Match records whose collection is not being deleted."""
    return exists().where(
        collections.c.id == records.c.collection_id, collections.c.deleting.is_(False)
    )


def rules_of(connection: Connection, record_ids: Sequence[str]) -> dict[str, list[RuleRow]]:
    """Return the rules of records by the records' ids, in order."""
    (rows,) = ask_together(connection, RULES.of(ids=record_ids))
    return by_record(rows)


def by_record(rows: Sequence[Any]) -> dict[str, list[RuleRow]]:
    """Return the rows of ``RULES`` by the records' ids, in order."""
    found: dict[str, list[RuleRow]] = defaultdict(list)
    for row in rows:
        found[row.record_id].append(RuleRow(*row))
    for rules in found.values():
        rules.sort(key=lambda rule: rule.place)
    return found


def fitting(rows: Sequence[RecordRow], held: Sequence[Any], within: int) -> list[RecordRow]:
    """Return as many records, from the first on, as hold so many bytes of inputs and results, and
    one in any case; ``held`` are the rows of ``SIZES``."""
    sizes = {record_id: int(size) for record_id, size in held}
    fits: list[RecordRow] = []
    for row in rows:
        within -= sizes.get(row.id, 0)
        if within < 0 and fits:
            break
        fits.append(row)
    return fits


def standing(connection: Connection, record_id: str) -> list[Standing]:
    """Return how far each rule of a record is, in order."""
    mine = record_rules.c.record_id == record_id
    query = select(*_STANDING).where(mine).order_by(record_rules.c.place)
    return [Standing(*row) for row in connection.execute(query).all()]


def rule(connection: Connection, record_id: str, key: str) -> RuleRow | None:
    """Return one rule of a record."""
    mine = and_(record_rules.c.record_id == record_id, record_rules.c.key == key)
    row = connection.execute(select(record_rules).where(mine)).first()
    return None if row is None else RuleRow(*row)


def store(connection: Connection, row: RecordRow, rules: Sequence[RuleRow]) -> None:
    """Insert a record with its rules, and count it."""
    connection.execute(insert(records).values(values(row)))
    if rules:
        connection.execute(insert(record_rules), [values(rule) for rule in rules])
    counts.change_records(connection, row.collection_id, row.status, 1)


def change(connection: Connection, row: RecordRow, changed: Mapping[str, Any]) -> None:
    """Change a record that was read in this unit; ``row`` shows it afterwards."""
    status = changed.get("status", row.status)
    if status != row.status:
        counts.change_records(connection, row.collection_id, row.status, -1)
        counts.change_records(connection, row.collection_id, status, 1)
    row.updated_at = max(now_ms(), row.updated_at + 1)
    for name, value in changed.items():
        setattr(row, name, value)
    statement = update(records).where(records.c.id == row.id)
    connection.execute(statement.values(updated_at=row.updated_at, **changed))


def change_rule(
    connection: Connection, record_id: str, key: str, changed: Mapping[str, Any]
) -> None:
    """Change one rule of a record."""
    mine = and_(record_rules.c.record_id == record_id, record_rules.c.key == key)
    connection.execute(update(record_rules).where(mine).values(updated_at=now_ms(), **changed))


def store_rules(connection: Connection, rules: Sequence[RuleRow]) -> None:
    """Insert rules of records."""
    if rules:
        connection.execute(insert(record_rules), [values(rule) for rule in rules])


def remove_rules(connection: Connection, record_id: str, keys: Sequence[str]) -> None:
    """Remove rules of a record."""
    mine = and_(record_rules.c.record_id == record_id, record_rules.c.key.in_(keys))
    connection.execute(delete(record_rules).where(mine))


def tally(rules: Sequence[RuleRow | Standing]) -> dict[str, int]:
    """Return the counts that a record shows of its rules."""
    asked = [rule.status for rule in rules if not rule.disabled]
    return {
        "rules_count": len(asked),
        "pass_count": asked.count("PASSED"),
        "fail_count": asked.count("FAILED"),
        "warn_count": asked.count("WARN"),
    }


def needing(connection: Connection, after: str) -> list[tuple[str, str | None, int]]:
    """Return records, from the one after ``after`` on, that somebody has to go on with: nothing of
    them runs, or somebody who was at it has left. With each id, who asked for its cancel, and the
    number of its analysis.
    """
    resting = text(_RESTING.format(index=by_index(connection, "record_rules_running")))
    due = exists().where(record_rules.c.record_id == records.c.id, record_rules.c.due.is_(True))
    stale = now_ms() - _STALE_MS
    left = or_(
        resting,
        and_(due, records.c.updated_at < stale),
        records.c.cancel_requested_at < stale,
    )
    columns = (records.c.id, records.c.cancel_requested_by, records.c.analysis)
    query = select(*columns).where(_LIVE, records.c.id > after, left)
    found = connection.execute(query.order_by(records.c.id).limit(SOME))
    return [(record_id, by, analysis) for record_id, by, analysis in found]


def live_in(connection: Connection, collection_id: str) -> list[str]:
    """Return ids of some records of a collection whose rules are being run."""
    query = select(records.c.id).where(
        records.c.collection_id == collection_id, records.c.status.in_(LIVE)
    )
    return list(connection.scalars(query.limit(SOME)))


def some_in(connection: Connection, collection_id: str, limit: int) -> list[RecordRow]:
    """Return some records of a collection."""
    query = select(records).where(records.c.collection_id == collection_id).limit(limit)
    return [RecordRow(*row) for row in connection.execute(query).all()]


def remove(connection: Connection, row: RecordRow) -> list[str]:
    """Remove a record with its rules and tags; return the ids of the files that came in with it.

    The data of its rules' runs, and of what ran below them, is due from now on.
    """
    mine = and_(runs.c.app_id == row.app_id, runs.c.identifier == row.id)
    due_now(
        connection,
        list(connection.scalars(select(runs.c.id).where(mine, runs.c.origin == "RECORD"))),
    )
    connection.execute(delete(record_rules).where(record_rules.c.record_id == row.id))
    tags.take_off(connection, row.id)
    connection.execute(delete(records).where(records.c.id == row.id))
    counts.change_records(connection, row.collection_id, row.status, -1)
    return held(connection, row)


def held(connection: Connection, row: RecordRow) -> list[str]:
    """Return the ids of the files that came in with a record."""
    query = select(files.c.id).where(files.c.run_id == row.id, files.c.app_id == row.app_id)
    return list(connection.scalars(query))


def clear(
    connection: Connection, record_id: str, keys: Sequence[str], changed: Mapping[str, Any]
) -> None:
    """Change some rules of a record in the same way."""
    mine = and_(record_rules.c.record_id == record_id, record_rules.c.key.in_(keys))
    connection.execute(update(record_rules).where(mine).values(updated_at=now_ms(), **changed))


def take(
    connection: Connection, record_id: str, key: str, run_id: str, ran: bytes, outcome: bytes
) -> bool:
    """Let a rule that is due be run by this run; say whether it was due."""
    changed = {"due": False, "status": "RUNNING", "run_id": run_id, "ran": ran}
    return settle(connection, record_id, key, {**changed, "outcome": outcome})


def settle(connection: Connection, record_id: str, key: str, changed: Mapping[str, Any]) -> bool:
    """Change a rule that is due; say whether it was."""
    mine = and_(
        record_rules.c.record_id == record_id,
        record_rules.c.key == key,
        record_rules.c.due.is_(True),
    )
    statement = update(record_rules).where(mine).values(updated_at=now_ms(), **changed)
    return connection.execute(statement).rowcount == 1


def settle_due(connection: Connection, record_id: str, changed: Mapping[str, Any]) -> None:
    """Change every rule of a record that is due."""
    mine = and_(record_rules.c.record_id == record_id, record_rules.c.due.is_(True))
    connection.execute(update(record_rules).where(mine).values(updated_at=now_ms(), **changed))


def request_cancels(connection: Connection, run_ids: Sequence[str], by: str) -> None:
    """Mark runs of rules that have not ended as to be cancelled; who asked first is remembered."""
    if run_ids:
        now = now_ms()
        open_ = and_(runs.c.ended_at.is_(None), runs.c.cancel_requested_at.is_(None))
        asked = update(runs).where(runs.c.id.in_(run_ids), open_)
        connection.execute(
            asked.values(cancel_requested_at=now, cancel_requested_by=by, updated_at=now)
        )


def land(
    connection: Connection, record_id: str, key: str, run_id: str, changed: Mapping[str, Any]
) -> None:
    """Store a rule's verdict, if this run is the one that it waits for. Holds by itself."""
    mine = and_(
        record_rules.c.record_id == record_id,
        record_rules.c.key == key,
        record_rules.c.run_id == run_id,
        record_rules.c.status == "RUNNING",
    )
    connection.execute(update(record_rules).where(mine).values(updated_at=now_ms(), **changed))
