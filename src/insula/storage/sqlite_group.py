"""A group of units in one transaction: all at once, or one by one where one of them fails."""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from insula.storage import counters
from insula.storage.sqlite_connection import driver, not_now

Unit = Callable[[Connection], Any]

_RESTARTS = 3


class Outcome(NamedTuple):
    """What became of one unit: its value, or the exception to raise where it was written."""

    value: Any = None
    error: BaseException | None = None


class _Lost(Exception):
    """SQLite rolled the whole transaction back; ``position`` is the unit it happened in."""

    def __init__(self, position: int, error: BaseException) -> None:
        super().__init__(position)
        self.position = position
        self.error = error


def commit_group(connection: Connection, units: Sequence[Unit]) -> list[Outcome]:
    """Run the units in one transaction and commit it; an outcome for each, in order.

    The group first runs without savepoints. If a unit fails all is rolled back and runs again with
    a savepoint for each, so that the one that failed is left out and the others stand.
    """
    raw = driver(connection)
    try:
        _begin(connection, raw)
    except sqlite3.Error as error:
        return [_failed(error) for _ in units]
    try:
        outcomes = [Outcome(unit(connection)) for unit in units]
        _commit(connection, raw)
    except BaseException as error:
        # Whatever a unit raises, SystemExit included, is its caller's to see: this is its thread.
        _reset(connection)
        if len(units) == 1:
            return [_failed(error)]
    else:
        return outcomes
    return _one_by_one(connection, units)


def _one_by_one(connection: Connection, units: Sequence[Unit]) -> list[Outcome]:
    """Run every unit under a savepoint, again without those in which the transaction was lost."""
    failed: dict[int, Outcome] = {}
    error: BaseException
    for _ in range(_RESTARTS):
        left = [position for position in range(len(units)) if position not in failed]
        try:
            stood = _isolated(connection, [units[position] for position in left])
        except _Lost as lost:
            _reset(connection)
            failed[left[lost.position]] = _failed(lost.error)
            error = lost.error
        except BaseException as storage_error:
            _reset(connection)
            error = storage_error
            break
        else:
            outcomes = failed | dict(zip(left, stood, strict=True))
            return [outcomes[position] for position in range(len(units))]
    return [failed.get(position) or _failed(error) for position in range(len(units))]


def _isolated(connection: Connection, units: Sequence[Unit]) -> list[Outcome]:
    raw = driver(connection)
    _begin(connection, raw)
    outcomes = []
    for position, unit in enumerate(units):
        bumps = counters.snapshot(connection)
        raw.execute("SAVEPOINT unit")
        try:
            outcome = Outcome(unit(connection))
            _check_open(raw)
        except BaseException as error:
            if not raw.in_transaction:
                raise _Lost(position, error) from error
            raw.execute("ROLLBACK TO unit")
            counters.restore(connection, bumps)
            outcome = _failed(error)
        raw.execute("RELEASE unit")
        outcomes.append(outcome)
    _commit(connection, raw)
    return outcomes


def _begin(connection: Connection, raw: sqlite3.Connection) -> None:
    counters.restore(connection, {})
    raw.execute("BEGIN IMMEDIATE")


def _commit(connection: Connection, raw: sqlite3.Connection) -> None:
    counters.flush(connection)
    _check_open(raw)
    raw.execute("COMMIT")
    _forget(connection)


def _check_open(raw: sqlite3.Connection) -> None:
    if not raw.in_transaction:
        raise RuntimeError("A unit ended the transaction of its group: units never commit.")


def _reset(connection: Connection) -> None:
    _forget(connection)
    raw = driver(connection)
    if raw.in_transaction:
        raw.execute("ROLLBACK")


def _forget(connection: Connection) -> None:
    """End the transaction that SQLAlchemy began for itself when a unit used it."""
    if connection.in_transaction():
        connection.rollback()


def _failed(error: BaseException) -> Outcome:
    unavailable = not_now(error)
    if unavailable is not None:
        unavailable.__cause__ = error
        return Outcome(error=unavailable)
    if isinstance(error, StopIteration):  # a future cannot hold one
        return Outcome(error=RuntimeError("The unit raised StopIteration."))
    return Outcome(error=error)
