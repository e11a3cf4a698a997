"""``insula db``: upgrade, check, back up, restore, and move an installation to PostgreSQL."""

from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from insula.cli.options import Data, Json, perform

commands = typer.Typer(
    help="Upgrade, check, back up, restore or move the database.", no_args_is_help=True
)

BackupFile = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]
Force = Annotated[bool, typer.Option("--force", help="Lose what the database holds.")]


def _work() -> ModuleType:
    # Loaded here, with the databases, to keep other commands quick.
    from insula.cli.database import work

    return work


@commands.command("upgrade")
def upgrade(data: Data = None, as_json: Json = False) -> None:
    """Bring the database up to this program's schema, as the next start of a server would."""
    perform(_work().upgrade(data, as_json))


@commands.command("check")
def check(data: Data = None, as_json: Json = False) -> None:
    """Check that what is stored holds together; a server may be running."""
    perform(_work().check(data, as_json))


@commands.command("backup")
def backup(file: BackupFile, data: Data = None, as_json: Json = False) -> None:
    """Write all rows into a new file; a server may be running."""
    perform(_work().backup(data, file, as_json))


@commands.command("restore")
def restore(
    file: BackupFile, force: Force = False, data: Data = None, as_json: Json = False
) -> None:
    """Put a backup into an empty database of either kind."""
    perform(_work().restore(data, file, force, as_json))


@commands.command("copy")
def copy(
    source: Annotated[Path, typer.Argument(metavar="SQLITE_FILE", help="The database to move.")],
    target: Annotated[
        str, typer.Argument(metavar="POSTGRES_URL", help="An empty database: postgresql://…")
    ],
    files: Annotated[
        Path | None, typer.Option("--files", metavar="DIR", help="Copy the files there, too.")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Move an installation from SQLite to PostgreSQL; no server may be running."""
    perform(_work().copy(source, target, files, force, as_json))
