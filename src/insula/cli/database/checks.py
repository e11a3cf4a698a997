"""Everything that ``insula db check`` looks at, on one snapshot."""

from insula.adapters.blobs.opening import open_blobs
from insula.apps import repository as apps
from insula.cli.database.files import missing_files, stored_files
from insula.cli.database.place import Place
from insula.cli.database.progress import Progress, on_a_thread
from insula.cli.failures import usage
from insula.collections import counts as collections
from insula.runs.audit import EXAMPLES, Finding, audit
from insula.settings import SettingsError, load_settings
from insula.storage.migrate import NewerSchema, chain, version
from insula.storage.offline import faults, shrinks, snapshot
from insula.workflows import counts as workflows

COUNTED = (apps.rows_by_counter, workflows.rows_by_counter, collections.rows_by_counter)
"""What has counters besides runs."""


async def look(place: Place, progress: Progress) -> list[Finding]:
    """Check the schema, the database's file, what is stored of runs, and the files."""
    findings, keys = await on_a_thread(progress, lambda told: _database(place, told))
    if keys:
        try:
            settings = load_settings(data_dir=place.folder)
            async with open_blobs(settings, "") as blobs:  # nothing is written
                findings.append(await missing_files(blobs, keys, progress))
        except SettingsError as error:
            raise usage(str(error)) from error
    return findings


def _database(place: Place, progress: Progress) -> tuple[list[Finding], list[str]]:
    """Return what was found, and the files to look for; none where the schema is another one."""
    with place.reading() as connection, snapshot(connection):
        known = len(chain(connection.dialect.name))
        current = version(connection)
        if current > known:
            raise NewerSchema(
                f"This database was written by a newer version of Insula: its schema is {current}, "
                f"this program knows {known}."
            )
        findings = [_schema(current, known)]
        problems = faults(connection)
        findings.append(Finding("the file is sound", len(problems), problems[:EXAMPLES], 1))
        findings.append(_shrinks(shrinks(connection)))
        if current < known:
            return findings, []
        findings += audit(connection, progress, COUNTED)
        return findings, stored_files(connection)


def _schema(current: int, known: int) -> Finding:
    check = f"its schema is {known}"
    if current == known:
        return Finding(check, 0, [], 1)
    words = f"it is {current}: `insula db upgrade`, or the next start of a server, changes that"
    return Finding(check, 1, [words], 1)


def _shrinks(does: bool) -> Finding:
    words = (
        "another program has made the file: it stays as large as it is. `insula db backup`, and "
        "`insula db restore` into a new folder, make one that shrinks"
    )
    return Finding(
        "the file shrinks with what is erased", int(not does), [] if does else [words], 1
    )
