"""A group of units in one transaction: all at once, or one by one where one of them fails."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from insula.storage import counters
from insula.storage.dialect import control, withdraw_deferred
from insula.storage.session import Session, Unsettled

Unit = Callable[[Connection], Any]

_RESTARTS = 3


class Outcome(NamedTuple):
    """What became of one unit: its value, or the exception to raise where it was written."""

    value: Any = None
    error: BaseException | None = None


class UnsettledGroup(Exception):
    """Nobody knows whether the group was committed; ``outcomes`` are its units' if it was."""

    def __init__(self, mark: int, outcomes: list[Outcome]) -> None:
        super().__init__(mark)
        self.mark = mark
        self.outcomes = outcomes


class _Lost(Exception):
    """The whole transaction is gone; ``position`` is the unit it happened in."""

    def __init__(self, position: int, error: BaseException) -> None:
        super().__init__(position)
        self.position = position
        self.error = error


def commit_group(session: Session, units: Sequence[Unit], serial: bool) -> list[Outcome]:
    """Run the units in one transaction and commit it; an outcome for each, in order.

    The group first runs without savepoints. If a unit fails all is rolled back and runs again with
    a savepoint for each, so that the one that failed is left out and the others stand.

    Raises:
        UnsettledGroup: the connection was lost in the commit.
    """
    try:
        _begin(session, serial)
    except Exception as error:
        return [_failed(session, error) for _ in units]
    outcomes: list[Outcome] = []
    try:
        outcomes += [Outcome(unit(session.connection)) for unit in units]
        _commit(session)
    except Unsettled as error:
        raise UnsettledGroup(error.mark, outcomes) from error
    except BaseException as error:
        # Whatever a unit raises, SystemExit included, is its caller's to see: this is its thread.
        session.rollback()
        if len(units) == 1 and not session.is_retryable(error):
            return [_failed(session, error)]
    else:
        return outcomes
    return _one_by_one(session, units, serial)


def _one_by_one(session: Session, units: Sequence[Unit], serial: bool) -> list[Outcome]:
    """Run every unit under a savepoint, again without those in which the transaction was lost."""
    failed: dict[int, Outcome] = {}
    error: BaseException
    for _ in range(_RESTARTS):
        left = [position for position in range(len(units)) if position not in failed]
        stood: list[Outcome] = []
        try:
            _isolate(session, [units[position] for position in left], serial, stood)
        except Unsettled as unsettled:
            raise UnsettledGroup(unsettled.mark, _merge(failed, left, stood)) from unsettled
        except _Lost as lost:
            session.rollback()
            failed[left[lost.position]] = _failed(session, lost.error)
            error = lost.error
        except BaseException as storage_error:
            session.rollback()
            error = storage_error
            if not session.is_retryable(error):
                break
        else:
            return _merge(failed, left, stood)
    return [failed.get(position) or _failed(session, error) for position in range(len(units))]


def _merge(failed: dict[int, Outcome], left: list[int], stood: list[Outcome]) -> list[Outcome]:
    outcomes = failed | dict(zip(left, stood, strict=True))
    return [outcomes[position] for position in range(len(outcomes))]


def _isolate(
    session: Session, units: Sequence[Unit], serial: bool, outcomes: list[Outcome]
) -> None:
    """Run every unit under a savepoint and commit; an error that concerns all is raised."""
    _begin(session, serial)
    connection = session.connection
    for position, unit in enumerate(units):
        bumps = counters.snapshot(connection)
        control(connection, "SAVEPOINT unit")
        try:
            outcome = Outcome(unit(connection))
            _check_open(session)
            control(connection, "RELEASE unit")  # after what the unit has deferred
        except BaseException as error:
            if session.is_retryable(error):
                raise
            if not session.is_open():
                raise _Lost(position, error) from error
            withdraw_deferred(connection)
            control(connection, "ROLLBACK TO unit")
            control(connection, "RELEASE unit")
            counters.restore(connection, bumps)
            outcome = _failed(session, error)
        outcomes.append(outcome)
    _commit(session)


def _begin(session: Session, serial: bool) -> None:
    session.begin(serial)
    counters.restore(session.connection, {})


def _commit(session: Session) -> None:
    counters.flush(session.connection)
    _check_open(session)
    session.commit()


def _check_open(session: Session) -> None:
    if not session.is_open():
        raise RuntimeError("A unit ended the transaction of its group: units never commit.")


def _failed(session: Session, error: BaseException) -> Outcome:
    told = session.translate(error)
    if told is not None:
        told.__cause__ = error
        return Outcome(error=told)
    if isinstance(error, StopIteration):  # a future cannot hold one
        return Outcome(error=RuntimeError("The unit raised StopIteration."))
    return Outcome(error=error)
