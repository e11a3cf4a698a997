"""Which database a command is about: the one of INSULA_DATABASE_URL, or the file in the data
folder; opened so that nobody else changes it meanwhile, and its errors in words for people.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg import Error as PostgresError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from insula.cli.failures import CommandFailed, ExitCode, usage
from insula.errors import InsulaError
from insula.settings import Settings
from insula.storage.lock import FolderLock, FolderLocked
from insula.storage.migrate import ForeignFile, NewerSchema
from insula.storage.offline import living_nodes, open_file, open_server, read_file
from insula.storage.portable import Damaged
from insula.storage.postgres_address import describe, parse

FILE = "insula.db"
_DAMAGED = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))


class Place:
    """One installation's data folder, and its database there or on a server."""

    def __init__(self, given: Path | None) -> None:
        named = os.environ.get("INSULA_DATA_DIR")
        self.folder = given or Path(named or Settings.model_fields["data_dir"].default)
        self.url = os.environ.get("INSULA_DATABASE_URL") or None
        if self.url is not None:
            checked(self.url)

    def __str__(self) -> str:
        return str(self.folder / FILE) if self.url is None else f"PostgreSQL {describe(self.url)}"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open it beside whoever uses it."""
        with told_in_words():
            if self.url is not None:
                with open_server(self.url, read_only=True) as connection:
                    yield connection
            else:
                with read_file(self.folder / FILE) as connection:
                    yield connection

    @contextmanager
    def alone(self, make: bool = False) -> Iterator[Connection]:
        """Open it while no server uses it; ``make`` the file if it is not there."""
        with told_in_words():
            if self.url is not None:
                with open_server(self.url) as connection:
                    refuse_living_nodes(connection, self)
                    yield connection
                return
            if make:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif not (self.folder / FILE).is_file():
                raise FileNotFoundError(str(self.folder / FILE))
            with FolderLock(self.folder), open_file(self.folder / FILE) as connection:
                yield connection


def refuse_living_nodes(connection: Connection, place: object) -> None:
    """Raise if a node works on this database."""
    alive = living_nodes(connection)
    if alive:
        names = ", ".join(sorted(set(alive))[:5])
        raise CommandFailed(
            f"{place} is in use by {len(alive)} nodes: {names}.",
            ExitCode.CONFLICT,
            "Stop them first; one that was killed counts for six more seconds.",
        )


def checked(url: str) -> str:
    """Return a URL of PostgreSQL.

    Raises:
        CommandFailed: it is none; the message does not repeat it.
    """
    try:
        parse(url)
    except ValueError as error:
        raise usage(f"The database's URL {error}.") from error
    return url


@contextmanager
def told_in_words() -> Iterator[None]:
    """Turn what databases, files and locks raise into failures of a command."""
    try:
        yield
    except (FolderLocked, NewerSchema, ForeignFile) as error:
        raise CommandFailed(str(error), ExitCode.CONFLICT) from error
    except Damaged as error:
        raise CommandFailed(f"The backup cannot be used. {error}", ExitCode.FAILED) from error
    except InsulaError as error:
        raise CommandFailed(error.message, ExitCode.UNREACHABLE) from error
    except FileNotFoundError as error:
        missing = error.filename or error
        raise CommandFailed(f"There is no {missing}.", ExitCode.NOT_FOUND) from error
    except FileExistsError as error:
        there = error.filename or error
        raise CommandFailed(
            f"{there} is there already.", ExitCode.CONFLICT, "Name another file."
        ) from error
    except (DBAPIError, PostgresError) as error:
        original = error.orig if isinstance(error, DBAPIError) else error
        words = " ".join(str(original).split())
        failure = _of_the_file(original, words) or CommandFailed(
            f"The database does not do what was asked: {words}", ExitCode.UNREACHABLE
        )
        raise failure from error
    except OSError as error:
        raise CommandFailed(
            f"{error.filename or 'The disk'}: {error.strerror}.", ExitCode.FAILED
        ) from error


def _of_the_file(error: BaseException | None, words: str) -> CommandFailed | None:
    """Return the failure whose reason is an SQLite file itself, if it is one."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what only tells more of it
    if code in _DAMAGED:
        hint = "Put a backup of it into a new folder: `insula db restore`."
        return CommandFailed(f"The database is damaged: {words}.", ExitCode.FAILED, hint)
    if code == sqlite3.SQLITE_READONLY:
        hint = "SQLite writes beside the file even to read it: copy the folder to where it can."
        return CommandFailed(f"The folder cannot be written to: {words}.", ExitCode.FAILED, hint)
    return None
