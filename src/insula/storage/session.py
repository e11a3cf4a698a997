"""What the writer asks of the connection that it owns, whichever database is behind it."""

from typing import Protocol

from sqlalchemy import Connection

from insula.errors import InsulaError


class Unsettled(Exception):
    """The connection was lost while a commit was on its way: it may stand, or not.

    ``mark`` is what the session finds out by, once there is a connection again.
    """

    def __init__(self, mark: int, cause: BaseException) -> None:
        super().__init__(f"The connection was lost during a commit: {cause}")
        self.mark = mark


class Session(Protocol):
    """One connection that writes, with its transactions. Used by one thread, but for ``abort``."""

    @property
    def connection(self) -> Connection:
        """The connection that units are given; another one after ``begin`` had to reconnect."""
        ...

    def begin(self, serial: bool) -> None:
        """Begin a transaction, on a new connection if the last one was lost.

        ``serial``: no other such transaction of the installation is open until this one ends.
        Where it raises none is open.
        """
        ...

    def commit(self) -> None:
        """Commit.

        Raises:
            Unsettled: nobody knows whether it was.
        """
        ...

    def rollback(self) -> None:
        """Undo and end the transaction, if one is open."""
        ...

    def is_open(self) -> bool:
        """Say whether a transaction is open, be it one that can only be undone."""
        ...

    def settle(self, mark: int) -> bool:
        """Say whether the transaction of an ``Unsettled`` was committed."""
        ...

    def translate(self, error: BaseException) -> InsulaError | None:
        """Translate an error that is not the program's own to what a caller may be told."""
        ...

    def is_retryable(self, error: BaseException) -> bool:
        """Say whether the same transaction, run again, would probably succeed."""
        ...

    def abort(self) -> None:
        """From any thread: end what the connection is waiting for, and the connection with it."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...
