"""PostgreSQL connections: how they are opened, and which of their errors a caller is told."""

import os
import socket
from contextlib import suppress
from typing import Any, NamedTuple, Self

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq import DiagnosticField, ExecStatus, Format
from psycopg.pq.abc import PGresult
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from insula.errors import BadInput, InsulaError, Unavailable
from insula.storage.postgres_address import parse
from insula.storage.postgres_pipeline import PipelinedConnection

Raw = PipelinedConnection

_PREPARED_MAX = 500
_PREPARED_AFTER = 3
_NETWORK = {
    "connect_timeout": "3",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "8000",
    # Of several hosts the one that takes writes: the first may have come back as a standby.
    "target_session_attrs": "primary",
}
# Every query here is meant to use an index. The planner would prefer to read a whole table while
# its figures say that it is empty, and would stay with that.
# Units check, then act: each statement has to see what was committed before it.
_ALWAYS = {
    "enable_seqscan": "off",
    "jit": "off",
    "client_encoding": "UTF8",
    "default_transaction_isolation": "read\\ committed",
}

_NOT_NOW = {
    "53100": "the database's disk is full",
    "53200": "the database has not enough memory",
    "53300": "the database has too many connections",
    "53400": "the database has reached a limit of its configuration",
    "57014": "the database took too long",
    "57P01": "the database is being shut down",
    "57P02": "the database is being restarted",
    "57P03": "the database is starting",
    "25P03": "the transaction rested for too long",
    "55P03": "another process holds what is to be changed",
    "40001": "other processes change the same",
    "40P01": "other processes change the same",
    "58030": "the database's disk reports an error",
    "57P05": "the database closed the connection",
}
_READ_ONLY = "25006"
_NO_TEXT = ("22021", "22P05")
_CONFLICTS = ("40001", "40P01")


class Limits(NamedTuple):
    """What the server may do to a connection, in milliseconds; 0: nothing."""

    statement_ms: int
    lock_ms: int
    idle_in_transaction_ms: int
    read_only: bool = False


class _Cursor(psycopg.Cursor[Any]):
    """Takes values as they are, instead of as text; what was deferred goes first."""

    def __init__(self, connection: Raw, **given: Any) -> None:
        super().__init__(connection, **given)
        self.format = Format.BINARY
        self._pipeline = connection.own_pipeline

    def execute(self, *given: Any, **named: Any) -> Self:
        self._pipeline.flush()
        return super().execute(*given, **named)

    def executemany(self, *given: Any, **named: Any) -> None:
        self._pipeline.flush()
        super().executemany(*given, **named)


def make_engine(url: str, name: str, limits: Limits) -> Engine:
    """Make the engine that opens connections with these limits; nothing is opened yet."""
    conninfo = _conninfo(url, name, limits)

    def connect() -> Raw:
        raw = Raw.connect(
            conninfo,
            autocommit=True,  # transactions are begun by whoever holds the connection
            prepare_threshold=_PREPARED_AFTER,
            cursor_factory=_Cursor,
        )
        raw.prepared_max = _PREPARED_MAX
        return raw

    return create_engine(
        "postgresql+psycopg://", creator=connect, poolclass=NullPool, use_native_hstore=False
    )


def _conninfo(url: str, name: str, limits: Limits) -> str:
    parts = parse(url)
    settings = {
        **_ALWAYS,
        "statement_timeout": limits.statement_ms,
        "lock_timeout": limits.lock_ms,
        "idle_in_transaction_session_timeout": limits.idle_in_transaction_ms,
        "default_transaction_read_only": "on" if limits.read_only else "off",
        # A plan for any status could not use an index of some; and what writes has few statements.
        "plan_cache_mode": "force_custom_plan" if limits.read_only else "auto",
    }
    options = " ".join(f"-c {setting}={value}" for setting, value in settings.items())
    own = {"application_name": name, **_NETWORK, **parts}
    return make_conninfo(**{**own, "options": f"{parts.get('options', '')} {options}".strip()})


def raw_of(connection: Connection) -> Raw:
    """Return psycopg's own connection."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, PipelinedConnection)
    return raw


def execute_simple(raw: Raw, command: bytes) -> PGresult:
    """Execute statements without parameters, in one round trip; return the last one's result."""
    result = raw.pgconn.exec_(command)
    if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
        if raw.closed and result.error_field(DiagnosticField.SQLSTATE) is None:
            raise psycopg.OperationalError("the connection was lost")
        raise psycopg.errors.error_from_result(result)
    return result


def hang_up(raw: Raw) -> None:
    """From any thread: end what a connection waits for, whether or not anybody answers."""
    # What is closed already has no socket.
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(raw.pgconn.socket)) as same:
        same.shutdown(socket.SHUT_RDWR)


def is_conflict(error: BaseException) -> bool:
    """Say whether the transaction stood in the way of another, and would pass in its turn."""
    return _state(error) in _CONFLICTS


def is_read_only(error: BaseException) -> bool:
    """Say whether what takes no writes was asked to: a server that has become a standby."""
    return _state(error) == _READ_ONLY


def translate(error: BaseException, writing: bool = True) -> InsulaError | None:
    """Translate an error of the server, of the way to it, of a lock or of a text that no column
    holds to what a caller may be told."""
    original = _original(error)
    if not isinstance(original, psycopg.Error):
        return None
    state = original.sqlstate
    if state in _NO_TEXT or (isinstance(original, psycopg.DataError) and "NUL" in str(original)):
        return BadInput("A text holds a NUL character: it can be neither stored nor looked for.")
    reason = _NOT_NOW.get(state or "")
    if reason is None and state == _READ_ONLY and writing:
        reason = "the database can only be read"
    if reason is None and (state is None or state.startswith("08")) and _is_of_the_way(original):
        reason = "the database cannot be reached"
    if reason is None:
        return None
    return Unavailable(f"Nothing can be stored or read now: {reason}. Try again.", retry_after=1)


def _is_of_the_way(error: psycopg.Error) -> bool:
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


def _original(error: BaseException) -> BaseException | None:
    return error.orig if isinstance(error, DBAPIError) else error


def _state(error: BaseException) -> str | None:
    original = _original(error)
    return original.sqlstate if isinstance(original, psycopg.Error) else None
