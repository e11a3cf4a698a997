"""Moving an installation's rows: into a backup, out of one, or from one database to another."""

from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import Connection

from insula.cli.database.progress import Progress
from insula.cli.failures import CommandFailed, ExitCode
from insula.storage.backup_file import read_backup, write_backup
from insula.storage.migrate import NewerSchema, chain, make, migrate, version
from insula.storage.offline import faults, snapshot, transaction
from insula.storage.portable import (
    Damaged,
    End,
    Frame,
    Head,
    check_head,
    drop_all,
    examine,
    frames,
    load,
    occupied,
    strangers,
)

Coming = Callable[[], Iterator[Frame]]
"""Gives the frames, from the first one on; called twice where they are examined before."""


def back_up(connection: Connection, path: Path, progress: Progress) -> End:
    """Write everything that is stored in this moment into a new file, and read it again."""
    problems = faults(connection)
    if problems:
        raise CommandFailed(
            f"The database is damaged: {problems[0]}.",
            ExitCode.FAILED,
            "`insula db check` says more. A backup of it was not made.",
        )
    with snapshot(connection):
        end = write_backup(path, frames(connection, progress))
    with path.open("rb") as file:
        coming = read_backup(file)
        next(coming)
        examine(coming, progress)
    return end


def restore(connection: Connection, path: Path, force: bool, progress: Progress) -> End:
    """Put a backup into the database, which has to be empty or, with ``force``, is emptied."""
    with path.open("rb") as file:

        def coming() -> Iterator[Frame]:
            file.seek(0)
            return read_backup(file)

        return fill(connection, coming, force, progress)


def fill(connection: Connection, coming: Coming, force: bool, progress: Progress) -> End:
    """Write frames into a database and bring it up to this program's schema.

    What was there stays there until the frames have been read to their end and found whole, and
    all of them stand in its place.
    """
    head = _head(coming())
    if head.schema > len(chain(connection.dialect.name)):
        raise NewerSchema(
            f"It was made by a newer version of Insula: its schema is {head.schema}, this program "
            f"knows {len(chain(connection.dialect.name))}. Install version {head.program} or later."
        )
    anew = _is_to_be_made(connection, coming, head, force, progress)
    frames_again = coming()
    with transaction(connection):
        if anew:
            drop_all(connection)
            make(connection, head.schema)
        first = check_head(connection, next(frames_again))
        end = load(connection, frames_again, progress)
        if first.schema != head.schema:
            raise Damaged("It changed while it was read.")
    migrate(connection)
    return end


def _head(coming: Iterator[Frame]) -> Head:
    first = next(coming)
    if not isinstance(first, Head):
        raise Damaged("It does not begin with its head.")
    return first


def _is_to_be_made(
    connection: Connection, coming: Coming, head: Head, force: bool, progress: Progress
) -> bool:
    """Say whether the database has to be made anew to have the schema of what comes, and no rows;
    raise if it must not be.
    """
    current = version(connection)
    table = occupied(connection) if current else None
    if table is not None and not force:
        raise CommandFailed(
            f"The database is not empty: there are rows in {table}.",
            ExitCode.CONFLICT,
            "Name another one, or give --force to lose what is in it.",
        )
    if table is not None:
        again = coming()
        next(again)
        examine(again, progress)
    if current == head.schema and table is None:
        return False
    _refuse_strangers(connection)
    return True


def _refuse_strangers(connection: Connection) -> None:
    """Raise if the schema could not be made anew beside what else is there."""
    others = strangers(connection)
    if others:
        raise CommandFailed(
            f"The database has tables of another program: {', '.join(others[:5])}.",
            ExitCode.CONFLICT,
            "Name an empty one.",
        )


def copy(source: Connection, target: Connection, force: bool, progress: Progress) -> End:
    """Move all rows from one database to another."""
    with snapshot(source):
        return fill(target, lambda: frames(source, progress), force, progress)
