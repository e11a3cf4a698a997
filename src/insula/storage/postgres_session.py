"""The session of the connection that writes to PostgreSQL: it begins with the first statement and
commits with the last ones, reconnects by itself, and finds out what became of a commit that nobody
answered.

Each transaction leaves a mark, a row of ``commits``, and stands if its mark does. The server's own
numbers of transactions would not do: one that a crash has undone gives its number to another.
"""

import secrets
import time
from contextlib import suppress
from itertools import count
from struct import Struct

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from insula.errors import InsulaError, Unavailable
from insula.kit.clock import DAY_MS
from insula.storage.counters import use_slot
from insula.storage.postgres_connection import (
    Limits,
    Raw,
    execute_simple,
    hang_up,
    is_conflict,
    is_read_only,
    make_engine,
    raw_of,
    translate,
)
from insula.storage.postgres_pipeline import Command
from insula.storage.session import Unsettled

SERIAL_LOCK = 0x1A5C_5E71
"""The advisory lock of transactions that must not run beside each other."""
_BEGIN = Command(b"BEGIN", as_is=True)
_COMMIT = Command(b"COMMIT", as_is=True)
_BEGIN_SERIAL = b"BEGIN; SELECT pg_advisory_xact_lock(%d)" % SERIAL_LOCK
_BIGINT = Struct(">q")
_BIGINT_TYPE = 20
# The database's time: those of its clients differ, and each takes away what is old for all.
_NOW = b"(extract(epoch FROM now()) * 1000)::bigint"
_MARK = b"INSERT INTO commits (writer, number, stands, created_at) VALUES ($1, $2, true, %s)" % _NOW
# It waits for the transaction that it asks about, if that is under way; and where it comes first,
# that one cannot commit any more.
_SETTLE = (
    b"BEGIN; SET LOCAL lock_timeout = '100ms';"
    b" INSERT INTO commits (writer, number, stands, created_at) VALUES (%%d, %%d, false, %s)"
    b" ON CONFLICT (writer, number) DO NOTHING; COMMIT;"
    b" SELECT stands::int FROM commits WHERE writer = %%d AND number = %%d"
) % _NOW
# What was found not to stand is kept: a commit that was held up on its way may arrive late.
_SWEEP = b"DELETE FROM commits WHERE writer = $1 AND number >= $2 AND number < $3 AND stands"
_SWEEP_EVERY = 256
_SWEEP_OLD = b"DELETE FROM commits WHERE created_at < %s - %%d" % _NOW
_KEPT_MS = 7 * DAY_MS
"""For so long the last marks outlive their process, and a commit may be held up."""
# What waits for more than the disk of the server alone is its administrator's choice, and stays.
_DURABLE = (
    b"SELECT set_config('synchronous_commit', 'on', false)"
    b" WHERE current_setting('synchronous_commit') = 'off'"
)
_UNUSABLE = (TransactionStatus.ACTIVE, TransactionStatus.UNKNOWN)
_BACKOFF_FIRST = 0.05
_BACKOFF_MAX = 1.0


class Line:
    """A connection that is made anew when it was lost, though not more often than makes sense.

    With ``durable`` its commits are on the server's disk when they are told, whatever the server's
    default is.
    """

    def __init__(
        self, url: str, name: str, limits: Limits, slot: int = 0, durable: bool = False
    ) -> None:
        self._engine: Engine = make_engine(url, name, limits)
        self._slot = slot
        self._durable = durable
        self._connection: Connection | None = None
        self._raw: Raw | None = None
        self._backoff = 0.0
        self._not_before = 0.0

    @property
    def connection(self) -> Connection:
        """The connection, as it was last made."""
        if self._connection is None:
            raise Unavailable("The database cannot be reached.", retry_after=1)
        return self._connection

    @property
    def raw(self) -> Raw:
        """psycopg's own."""
        if self._raw is None:
            raise Unavailable("The database cannot be reached.", retry_after=1)
        return self._raw

    def is_lost(self) -> bool:
        """Say whether there is no connection, or none of use, as far as is known without asking.

        Not every error of the way has libpq give it up: one on which an answer is still to come,
        while nobody waits for any, is lost as well.
        """
        raw = self._raw
        return raw is None or raw.closed or raw.info.transaction_status in _UNUSABLE

    def connect(self) -> None:
        """Make the connection, in the place of one that was lost.

        Raises:
            Unavailable: it failed a moment ago, and is not tried again yet.
            psycopg.Error: it fails.
        """
        if time.monotonic() < self._not_before:
            raise Unavailable(
                "Nothing can be stored or read now: the database cannot be reached. Try again.",
                retry_after=1,
            )
        self.drop()
        try:
            self._connection = self._engine.connect()
        except (DBAPIError, psycopg.Error):
            self._backoff = min(max(self._backoff * 2, _BACKOFF_FIRST), _BACKOFF_MAX)
            self._not_before = time.monotonic() + self._backoff
            raise
        self._backoff = 0.0
        try:
            self._raw = raw_of(self._connection)
            if self._durable:
                execute_simple(self._raw, _DURABLE)
        except BaseException:
            self.drop()
            raise
        use_slot(self._connection, self._slot)

    def drop(self) -> None:
        """Close the connection, whatever state it is in."""
        connection, self._connection, self._raw = self._connection, None, None
        if connection is not None:
            with suppress(DBAPIError, psycopg.Error):  # it is lost: what else can it say
                connection.invalidate()
                connection.close()

    def abort(self) -> None:
        """From any thread: end what the connection waits for."""
        raw = self._raw
        if raw is not None:
            hang_up(raw)

    def close(self) -> None:
        """Close the connection for good."""
        self.drop()
        self._engine.dispose()


class PostgresSession:
    """The writer's connection and its transactions, as ``storage.session.Session``."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._writer = secrets.randbits(63)
        self._numbers = count(1)
        self._mark = 0
        self._unsettled: set[int] = set()
        self._swept = self._sweeping = 0

    @property
    def connection(self) -> Connection:
        """The connection that units are given."""
        return self._line.connection

    def begin(self, serial: bool) -> None:
        """Begin a transaction, with the first statement that is sent; ``serial`` begins it at once,
        and waits for the installation's lock."""
        line = self._line
        self._mark = next(self._numbers)
        rested = not line.is_lost()
        if not rested:
            line.connect()
        if not serial:
            line.raw.own_pipeline.begin(_BEGIN, *self._marking())
            return
        try:
            self._begin_serial_on(rested=rested)
        except BaseException:
            # What failed after BEGIN, as a lock that was waited for too long, left one open.
            self.rollback()
            raise

    def _begin_serial_on(self, *, rested: bool) -> None:
        """Begin; a connection that was lost while it rested is made anew, once."""
        try:
            self._begin_serial()
        except psycopg.Error:
            if not (rested and self._line.is_lost()):
                raise
            self._line.connect()
            self._begin_serial()

    def _begin_serial(self) -> None:
        raw = self._line.raw
        execute_simple(raw, _BEGIN_SERIAL)
        raw.own_pipeline.deferring = True
        for command in self._marking():
            raw.own_pipeline.defer(command)

    def _marking(self) -> list[Command]:
        """Return what leaves this transaction's mark, and now and then takes earlier ones away."""
        marking = [_command(_MARK, self._writer, self._mark)]
        self._sweeping = self._swept
        if self._mark % _SWEEP_EVERY == 0:
            self._sweeping = min(self._unsettled, default=self._mark)
            # From where the last one came to: the server would go over all that is gone before.
            marking.append(_command(_SWEEP, self._writer, self._swept, self._sweeping))
        return marking

    def commit(self) -> None:
        """Commit, with what was deferred.

        Raises:
            Unsettled: the connection was lost, and nobody knows whether it was.
        """
        line = self._line
        pipeline = line.raw.own_pipeline
        if pipeline.untouched:
            self._forget()
            return
        try:
            result = pipeline.ask(_COMMIT)
        except psycopg.Error as error:
            if not line.is_lost():
                raise
            self._unsettled.add(self._mark)
            raise Unsettled(self._mark, error) from error
        if result.command_status != b"COMMIT":
            raise RuntimeError("A unit went on after a statement that failed.")
        self._swept = self._sweeping
        self._forget()

    def rollback(self) -> None:
        """Undo and end the transaction; a connection on which that fails is dropped."""
        if self._line.is_lost():
            self._line.drop()
            return
        try:
            self._line.raw.own_pipeline.forget()
            if self.is_open():
                # Before SQLAlchemy does: psycopg's own would have all be prepared anew.
                execute_simple(self._line.raw, b"ROLLBACK")
            self._forget()
        except (DBAPIError, psycopg.Error):
            self._line.drop()

    def is_open(self) -> bool:
        """Say whether a transaction is open, be it one that can only be undone."""
        if self._line.is_lost():
            return False
        raw = self._line.raw
        status = raw.info.transaction_status
        begun = status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)
        return begun or raw.own_pipeline.unbegun

    def settle(self, mark: int) -> bool:
        """Say whether the transaction of an ``Unsettled`` was committed; if not it never will be.

        Raises:
            psycopg.Error, Unavailable: it cannot be said yet.
        """
        if self._line.is_lost():
            self._line.connect()
        writer = self._writer
        try:
            asked = _SETTLE % (writer, mark, writer, mark)
            stands = execute_simple(self._line.raw, asked).get_value(0, 0)
        except BaseException:
            self.rollback()
            raise
        self._unsettled.discard(mark)
        return stands == b"1"

    def translate(self, error: BaseException) -> InsulaError | None:
        """Translate an error of the server, of the way to it or of a lock; a server that takes no
        writes any more is left for the one that does."""
        if is_read_only(error):
            self._line.drop()
        return translate(error)

    def is_retryable(self, error: BaseException) -> bool:
        """Say whether the transaction failed for others' sake: a conflict, a connection lost."""
        if isinstance(error, Unavailable):
            return False
        return is_conflict(error) or (self._line.is_lost() and translate(error) is not None)

    def abort(self) -> None:
        """From any thread: end what the connection waits for."""
        self._line.abort()

    def close(self) -> None:
        """Close the connection."""
        self._line.close()

    def _forget(self) -> None:
        """Leave unsent what was deferred, and end the transaction that SQLAlchemy began for itself
        when a unit used it."""
        self._line.raw.own_pipeline.forget()
        if self.connection.in_transaction():
            self.connection.rollback()


def _command(text: bytes, *values: int) -> Command:
    return Command(text, [_BIGINT.pack(one) for one in values], (_BIGINT_TYPE,) * len(values))


def sweep_marks(raw: Raw) -> None:
    """Take away the marks of processes that ended long ago."""
    execute_simple(raw, _SWEEP_OLD % _KEPT_MS)
