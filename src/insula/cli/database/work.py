"""What the commands of ``insula db`` do, and what they tell of it."""

from pathlib import Path
from typing import Any

from insula.adapters.keyring import FILE as KEYS
from insula.cli.database import transfer
from insula.cli.database.checks import look
from insula.cli.database.files import copy_files
from insula.cli.database.place import Place, checked, refuse_living_nodes, told_in_words
from insula.cli.database.progress import Progress, on_a_thread
from insula.cli.failures import ExitCode
from insula.cli.output import say, show, show_json, show_table
from insula.storage.lock import FolderLock
from insula.storage.migrate import chain, migrate, version
from insula.storage.offline import open_server, read_file
from insula.storage.portable import End
from insula.storage.postgres_address import describe


async def upgrade(data: Path | None, as_json: bool) -> None:
    """Apply the migrations that are missing, and name them."""
    place = Place(data)

    def work(progress: Progress) -> dict[str, Any]:
        with place.alone(make=True) as connection:
            before = version(connection)
            migrate(connection)
            links = chain(connection.dialect.name)[before:]
            applied = [f"{link.number:04}_{link.name}" for link in links]
            return {"before": before, "schema": version(connection), "applied": applied}

    done = await on_a_thread(Progress(as_json), work)
    if as_json:
        show_json(done)
        return
    for name in done["applied"]:
        show(name)
    was = f" It was {done['before']}." if done["applied"] else " Nothing was missing."
    say(f"{place} has schema {done['schema']}.{was}")


async def check(data: Path | None, as_json: bool) -> ExitCode:
    """Look at everything; say what is wrong."""
    place = Place(data)
    with told_in_words():
        findings = await look(place, Progress(as_json))
    if as_json:
        show_json([finding._asdict() for finding in findings])
    else:
        rows = (
            (
                f"{finding.wrong:,} wrong" if finding.wrong else "ok",
                finding.check,
                f"{finding.seen:,}",
                "; ".join([*finding.examples, *filter(None, [finding.note])]),
            )
            for finding in findings
        )
        show_table(("", "WHAT", "LOOKED AT", "FOUND"), rows, "Nothing was checked.")
    wrong = sum(bool(finding.wrong) for finding in findings)
    say(f"{wrong} of {len(findings)} checks failed." if wrong else f"{place} holds together.")
    return ExitCode.FAILED if wrong else ExitCode.OK


async def backup(data: Path | None, file: Path, as_json: bool) -> None:
    """Write a backup."""
    place = Place(data)

    def work(progress: Progress) -> End:
        with place.reading() as connection:
            return transfer.back_up(connection, file, progress)

    _tell(await on_a_thread(Progress(as_json), work), f"in {file}", as_json)
    say(f"Files are not in it: back up {place.folder / 'files'} too, afterwards.")
    if (place.folder / KEYS).exists():
        say(f"Nor are keys: keep {place.folder / KEYS} elsewhere, or its secrets are lost.")


async def restore(data: Path | None, file: Path, force: bool, as_json: bool) -> None:
    """Put a backup back."""
    place = Place(data)

    def work(progress: Progress) -> End:
        with told_in_words(), file.open("rb"):
            pass
        with place.alone(make=True) as connection:
            return transfer.restore(connection, file, force, progress)

    _tell(await on_a_thread(Progress(as_json), work), f"in {place}", as_json)
    say(f"Put the files of that time into {place.folder / 'files'}.")


async def copy(source: Path, target: str, files: Path | None, force: bool, as_json: bool) -> None:
    """Move an installation."""
    where = f"PostgreSQL {describe(checked(target))}"

    def work(progress: Progress) -> tuple[End, int]:
        with (
            told_in_words(),
            read_file(source) as old,
            FolderLock(source.parent),
            open_server(target) as new,
        ):
            refuse_living_nodes(new, where)
            end = transfer.copy(old, new, force, progress)
            held = source.parent / "files"
            return end, 0 if files is None else copy_files(held, files, progress)

    end, copied = await on_a_thread(Progress(as_json), work)
    _tell(end, f"in {where}", as_json)
    if files is None:
        say(f"The files are not: every node needs {source.parent / 'files'} in its data folder.")
    else:
        say(f"{copied:,} files are in {files}.")
    say("Keep the old folder until you have looked at the new installation.")


def _tell(end: End, where: str, as_json: bool) -> None:
    rows = {name: total.rows for name, total in end.totals.items()}
    if as_json:
        show_json({"rows": rows})
        return
    show_table(("TABLE", "ROWS"), ((n, f"{count:,}") for n, count in rows.items()), "No tables.")
    say(f"{sum(rows.values()):,} rows are {where}, counted and compared.")
