"""What the writer says to PostgreSQL, in as few round trips as there are answers to wait for.

A statement whose answer nobody needs is deferred, and goes out with the next one that somebody
waits for; at the latest with the commit. The server carries out all of them in order, and nothing
after one that failed.
"""

import select
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import psycopg
from psycopg.pq import ConnStatus, ExecStatus, Format, PipelineStatus
from psycopg.pq.abc import PGconn, PGresult
from sqlalchemy import Connection

_PREPARED_MAX = 500
_DEFERRED_MAX = 64
"""So many go out by themselves: the server's answers to them must not fill the way back."""


class Command(NamedTuple):
    """A statement with ``$1`` and so on, and its parameters in binary, with their types."""

    text: bytes
    values: Sequence[bytes] = ()
    types: tuple[int, ...] = ()
    as_is: bool = False
    """Send its text each time, and do not have it prepared."""


class Pipeline:
    """The way of one connection; used by the thread that has it."""

    def __init__(self, pgconn: PGconn) -> None:
        self.deferring = False
        """Whether a transaction is open that sends what is left before it commits."""
        self.unbegun = False
        """Whether the transaction's own beginning has not been sent yet."""
        self._pgconn = pgconn
        self._deferred: list[Command] = []
        self._beginning = 0
        self._prepared: dict[bytes, bytes] = {}
        self._number = 0
        self._poll: select.poll | None = None
        self.leaving = False
        """Whether the answer to what ended a transaction has not been taken yet."""

    @property
    def untouched(self) -> bool:
        """Whether nothing is there to be sent but the transaction's own beginning."""
        return self.unbegun and len(self._deferred) == self._beginning

    def begin(self, *commands: Command) -> None:
        """Begin a transaction with the first statement that is sent."""
        self._deferred[:] = commands
        self._beginning = len(commands)
        self.deferring = self.unbegun = True

    def defer(self, command: Command) -> None:
        """Send a statement with the next one, where a transaction is open; else now.

        What is wrong with it is raised when it is sent.
        """
        self._deferred.append(command)
        if not self.deferring or len(self._deferred) >= _DEFERRED_MAX:
            self.flush()

    def ask(self, command: Command) -> PGresult:
        """Send a statement after those that were deferred; return its result.

        Raises:
            psycopg.Error: it failed, or one of them; none after that was carried out.
        """
        return self._ask([command])[-1]

    def ask_all(self, commands: Sequence[Command]) -> list[PGresult]:
        """Send queries together; return the result of each. Raises as ``ask``."""
        results = [one for one in self._ask(commands) if one.status == ExecStatus.TUPLES_OK]
        return results[-len(commands) :]

    def flush(self) -> None:
        """Send what was deferred; raises as ``ask``."""
        if self._deferred:
            self.ask(self._deferred.pop())

    def forget(self) -> None:
        """Leave unsent what was deferred, and be done with the transaction."""
        self._deferred.clear()
        self.deferring = self.unbegun = False

    def withdraw(self) -> None:
        """Leave unsent what was deferred since something was sent, the transaction goes on."""
        if not self.unbegun:
            self._deferred.clear()

    def leave(self, command: bytes) -> None:
        """Send what ends a transaction, and leave its answer to whoever comes next."""
        self._pgconn.send_query(command)
        self._pgconn.flush()
        self.leaving = True

    def arrive(self) -> None:
        """Take the answer that was left, which mostly is there by now.

        Raises:
            psycopg.Error: it says that something failed, or there is none.
        """
        while self.leaving:
            result = self._result()
            if result is None:
                self.leaving = False
            elif result.status != ExecStatus.COMMAND_OK:
                raise psycopg.errors.error_from_result(result)

    def _ask(self, commands: Sequence[Command]) -> list[PGresult]:
        everything, self._deferred = [*self._deferred, *commands], []
        self.unbegun = False
        return self._exchange(everything)

    def _exchange(self, commands: list[Command]) -> list[PGresult]:
        pgconn, named = self._pgconn, dict[bytes, bytes]()
        pgconn.enter_pipeline_mode()
        try:
            for command in commands:
                self._send(command, named)
            pgconn.pipeline_sync()
            results = self._results()
        finally:
            if pgconn.status == ConnStatus.OK and pgconn.pipeline_status != PipelineStatus.OFF:
                with suppress(psycopg.Error):  # something is left in it: of no use to anybody
                    pgconn.exit_pipeline_mode()
        self._prepared |= named
        return results

    def _send(self, command: Command, named: dict[bytes, bytes]) -> None:
        """Put a statement on its way, prepared where it was not yet."""
        text, values, types, as_is = command
        formats = [Format.BINARY] * len(values)
        name = self._prepared.get(text) or named.get(text)
        if as_is or (name is None and len(self._prepared) + len(named) >= _PREPARED_MAX):
            self._pgconn.send_query_params(text, values, types, formats, Format.BINARY)
            return
        if name is None:
            # A name is never used again: one that failed may be known to the server all the same.
            self._number += 1
            name = named[text] = b"insula_%d" % self._number
            self._pgconn.send_prepare(name, text, types)
        self._pgconn.send_query_prepared(name, values, formats, Format.BINARY)

    def _results(self) -> list[PGresult]:
        """Read all answers; raise what the first one says that is no success."""
        results: list[PGresult] = []
        failed: PGresult | None = None
        try:
            while (result := self._next()).status != ExecStatus.PIPELINE_SYNC:
                if result.status in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
                    results.append(result)
                elif failed is None:
                    failed = result
        except psycopg.Error:
            if failed is None:
                raise
        if failed is not None:
            raise psycopg.errors.error_from_result(failed)
        return results

    def _next(self) -> PGresult:
        while (result := self._result()) is None:
            if self._pgconn.status != ConnStatus.OK:
                raise psycopg.OperationalError("the connection was lost")
        return result

    def _result(self) -> PGresult | None:
        """Wait for the next answer; ``None`` where a statement has no more."""
        pgconn = self._pgconn
        while pgconn.flush():
            self._wait(select.POLLIN | select.POLLOUT)
            pgconn.consume_input()
        while pgconn.is_busy():
            self._wait(select.POLLIN)
            pgconn.consume_input()
        return pgconn.get_result()

    def _wait(self, events: int) -> None:
        if self._poll is None:
            self._poll = select.poll()
        self._poll.register(self._pgconn.socket, events)
        self._poll.poll()


class PipelinedConnection(psycopg.Connection[Any]):
    """psycopg's connection, with a pipeline beside its own, which sends each statement at once."""

    def __init__(self, pgconn: PGconn, *given: Any, **named: Any) -> None:
        super().__init__(pgconn, *given, **named)
        self.own_pipeline = Pipeline(pgconn)

    def rollback(self) -> None:
        """Undo, unless that was sent already."""
        if not self.own_pipeline.leaving:
            super().rollback()


def pipeline_of(connection: Connection) -> Pipeline:
    """Return the pipeline of a connection to PostgreSQL."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, PipelinedConnection)
    return raw.own_pipeline
