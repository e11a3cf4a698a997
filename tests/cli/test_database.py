"""``insula db`` on real data, on both databases: upgrade, check, back up, restore, move."""

import json
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from insula.cli.database.place import told_in_words
from insula.cli.database.progress import Progress, Stopped
from insula.cli.failures import CommandFailed, ExitCode
from insula.storage.lock import FolderLock
from insula.storage.migrate import chain, migrate
from insula.storage.offline import open_file, transaction
from tests.postgres import PostgresServer

from .conftest import Invoke, Outcome
from .installation import Installation, goes_on, make

LATEST = len(chain())
Do = Callable[..., Outcome]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return make(tmp_path_factory.mktemp("original") / "data")


@pytest.fixture
def folder(original: Installation, tmp_path: Path) -> Path:
    copied = tmp_path / "data"
    shutil.copytree(original.folder, copied, ignore=shutil.ignore_patterns("*.sock"))
    return copied


@pytest.fixture
def db(invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Do:
    """Run a command of ``db`` on a folder, by default the copy; ``url`` names a database."""
    for name in ("INSULA_DATABASE_URL", "INSULA_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)

    def run(verb: str, *words: Any, data: Path | None = folder, url: str | None = None) -> Outcome:
        given = [] if data is None else ["--data", str(data)]
        if url is not None:
            monkeypatch.setenv("INSULA_DATABASE_URL", url)
        try:
            return invoke("db", verb, *map(str, words), *given)
        finally:
            monkeypatch.delenv("INSULA_DATABASE_URL", raising=False)

    return run


def ok(outcome: Outcome) -> Any:
    assert outcome.code == ExitCode.OK, outcome.err + outcome.out
    return json.loads(outcome.out)


def sql(folder: Path, statement: str, *values: Any) -> list[Any]:
    with sqlite3.connect(folder / "insula.db") as connection:
        rows = connection.execute(statement, values).fetchall()
    connection.close()
    return rows


def test_what_real_runs_left_holds_together(db: Do, original: Installation, folder: Path) -> None:
    sql(folder, "DELETE FROM nodes")
    findings = ok(db("check", "--json"))
    assert [finding["wrong"] for finding in findings] == [0] * len(findings)
    by_check = {finding["check"]: finding for finding in findings}
    statuses = by_check["every run has ended, waits or is owned"]
    assert statuses["seen"] == original.runs
    assert statuses["note"] == "1 go on when a server starts"
    assert by_check["journals of ended runs are whole"]["seen"] == original.runs - 1
    assert by_check["journals in rows are whole"]["seen"] == 1
    assert by_check["every file has its bytes"]["seen"] == 1


def test_a_backup_is_restored_as_it_was_and_what_was_under_way_goes_on(
    db: Do, original: Installation, folder: Path, tmp_path: Path
) -> None:
    outcome = db("backup", tmp_path / "one.backup", "--json")
    assert f"Nor are keys: keep {folder / 'secret.keys'} elsewhere" in outcome.err
    saved = ok(outcome)["rows"]
    assert saved["runs"] == original.runs
    assert (tmp_path / "one.backup").stat().st_mode & 0o777 == 0o600
    new = tmp_path / "new"
    assert ok(db("restore", tmp_path / "one.backup", "--json", data=new))["rows"] == saved
    assert goes_on(original, new) == "COMPLETED"
    again = ok(db("backup", tmp_path / "two.backup", "--json", data=new))["rows"]
    assert again["runs"] == saved["runs"]


def test_it_moves_to_postgres_with_its_files_and_goes_on_there(
    db: Do, original: Installation, folder: Path, tmp_path: Path, postgres_url: str
) -> None:
    new = tmp_path / "new"
    outcome = db("copy", folder / "insula.db", postgres_url, "--files", new / "files", data=None)
    assert outcome.code == ExitCode.OK, outcome.err
    assert "counted and compared" in outcome.err
    assert "1 files are in" in outcome.err
    findings = ok(db("check", "--json", data=new, url=postgres_url))
    assert [finding["wrong"] for finding in findings] == [0] * len(findings)
    assert goes_on(original, new, postgres_url) == "COMPLETED"


def test_a_backup_of_one_database_is_one_of_the_other(
    db: Do, folder: Path, tmp_path: Path, postgres_url: str
) -> None:
    saved = ok(db("backup", tmp_path / "a", "--json"))["rows"]
    assert ok(db("restore", tmp_path / "a", "--json", url=postgres_url))["rows"] == saved
    assert ok(db("backup", tmp_path / "b", "--json", url=postgres_url))["rows"] == saved
    assert ok(db("restore", tmp_path / "b", "--json", data=tmp_path / "new"))["rows"] == saved
    for table in ("runs", "run_data", "keys", "counters", "facts"):
        query = f"SELECT * FROM {table} ORDER BY 1, 2"
        assert sql(tmp_path / "new", query) == sql(folder, query)


def test_a_text_that_only_a_file_can_hold_is_moved_too(
    db: Do, folder: Path, tmp_path: Path, postgres_url: str
) -> None:
    with sqlite3.connect(folder / "insula.db") as connection:
        failed = "UPDATE runs SET error = ? WHERE status = 'FAILED'"
        assert connection.execute(failed, ("Error: a\0b",)).rowcount == 1
    connection.close()
    ok(db("backup", tmp_path / "a", "--json"))
    ok(db("restore", tmp_path / "a", "--json", url=postgres_url))
    copied = db("copy", folder / "insula.db", postgres_url, "--force", data=None)
    assert copied.code == ExitCode.OK, copied.err
    with psycopg.connect(postgres_url) as there:
        query = "SELECT error FROM runs WHERE status = 'FAILED'"
        assert there.execute(query).fetchall() == [("Error: a\ufffdb",)]


def test_a_database_that_is_not_empty_is_left_alone_unless_it_is_forced(
    db: Do, folder: Path, tmp_path: Path, postgres_url: str
) -> None:
    ok(db("backup", tmp_path / "a", "--json"))
    sql(folder, "DELETE FROM run_data")
    refused = db("restore", tmp_path / "a")
    assert refused.code == ExitCode.CONFLICT
    assert "not empty" in refused.err
    assert "--force" in refused.err
    assert sql(folder, "SELECT count(*) FROM run_data") == [(0,)]
    ok(db("restore", tmp_path / "a", "--force", "--json"))
    assert sql(folder, "SELECT count(*) FROM run_data") != [(0,)]
    ok(db("restore", tmp_path / "a", "--json", url=postgres_url))
    assert db("restore", tmp_path / "a", url=postgres_url).code == ExitCode.CONFLICT
    ok(db("restore", tmp_path / "a", "--force", "--json", url=postgres_url))


@pytest.mark.parametrize("on_server", [False, True], ids=["sqlite", "postgres"])
def test_a_restore_that_is_stopped_leaves_what_was_there(
    db: Do,
    folder: Path,
    tmp_path: Path,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    on_server: bool,
) -> None:
    url = postgres_url if on_server else None
    ok(db("backup", tmp_path / "a", "--json"))
    if on_server:
        ok(db("restore", tmp_path / "a", "--json", url=url))

    def stop(progress: Progress, what: str, done: int) -> None:
        if what == "runs":
            raise Stopped

    ok(db("backup", tmp_path / "before", "--json", url=url))
    with monkeypatch.context() as patched:
        patched.setattr(Progress, "__call__", stop)
        with pytest.raises(Stopped):
            db("restore", tmp_path / "a", "--force", url=url)
    after = ok(db("backup", tmp_path / "after", "--json", url=url))["rows"]
    assert after == ok(db("restore", tmp_path / "before", "--force", "--json", url=url))["rows"]
    assert after["runs"] > 0


def _cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [_cut, _flip, lambda data: data[:-4], lambda data: b"", lambda data: b"PK\x03\x04" + data],
    ids=["cut", "flipped", "without its checksum", "empty", "another format"],
)
def test_a_damaged_backup_changes_nothing(
    db: Do, folder: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    ok(db("backup", tmp_path / "a", "--json"))
    (tmp_path / "b").write_bytes(damage((tmp_path / "a").read_bytes()))
    before = sql(folder, "SELECT * FROM runs ORDER BY id")
    outcome = db("restore", tmp_path / "b", "--force")
    assert outcome.code == ExitCode.FAILED, outcome.err
    assert "backup" in outcome.err
    assert sql(folder, "SELECT * FROM runs ORDER BY id") == before
    empty = db("restore", tmp_path / "b", data=tmp_path / "new")
    assert empty.code == ExitCode.FAILED
    # What failed can be tried again with a good one.
    ok(db("restore", tmp_path / "a", "--json", data=tmp_path / "new"))


def test_a_backup_of_an_older_schema_is_brought_up_to_date(db: Do, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    with open_file(old / "insula.db") as connection:
        migrate(connection, until=1)
        with transaction(connection):
            connection.exec_driver_sql(
                "INSERT INTO apps (id, name, verified, settings, created_at, updated_at)"
                " VALUES ('app_1', 'Old', 1, x'7b7d', 1, 2)"
            )
    ok(db("backup", tmp_path / "a", "--json", data=old))
    ok(db("restore", tmp_path / "a", "--json", data=new))
    assert sql(new, "SELECT name FROM apps") == [("Old",)]
    assert sql(new, "SELECT value FROM facts WHERE name = 'schema_version'") == [
        (str(LATEST).encode(),)
    ]
    done = ok(db("upgrade", "--json", data=old))
    assert (done["before"], done["schema"]) == (1, LATEST)
    assert len(done["applied"]) == LATEST - 1
    assert ok(db("upgrade", "--json", data=old))["applied"] == []


def test_upgrade_makes_a_database_that_is_not_there(
    db: Do, tmp_path: Path, postgres_url: str
) -> None:
    assert ok(db("upgrade", "--json", data=tmp_path / "new"))["schema"] == LATEST
    assert ok(db("upgrade", "--json", url=postgres_url))["schema"] == LATEST
    again = db("upgrade", url=postgres_url)
    assert "Nothing was missing" in again.err


@pytest.mark.parametrize("verb", ["upgrade", "check", "backup"])
def test_a_newer_schema_is_refused_or_kept_as_it_is(
    db: Do, folder: Path, tmp_path: Path, verb: str
) -> None:
    sql(folder, "UPDATE facts SET value = x'393939' WHERE name = 'schema_version'")
    outcome = db(verb, *([tmp_path / "a"] if verb == "backup" else []))
    if verb == "backup":
        assert outcome.code == ExitCode.OK
        outcome = db("restore", tmp_path / "a", data=tmp_path / "new")
    assert outcome.code == ExitCode.CONFLICT
    assert "newer version" in outcome.err


def test_what_changes_a_folder_waits_for_its_server_to_stop(
    db: Do, folder: Path, tmp_path: Path, postgres_url: str
) -> None:
    ok(db("backup", tmp_path / "a", "--json"))
    with FolderLock(folder):
        for verb, words in (("upgrade", []), ("restore", [tmp_path / "a", "--force"])):
            outcome = db(verb, *words)
            assert outcome.code == ExitCode.CONFLICT
            assert "in use" in outcome.err
        moved = db("copy", folder / "insula.db", postgres_url, data=None)
        assert moved.code == ExitCode.CONFLICT
        assert ok(db("check", "--json"))
        ok(db("backup", tmp_path / "b", "--json"))


def test_tables_of_others_are_left_alone(
    db: Do, tmp_path: Path, postgres_url: str, postgres_server: PostgresServer
) -> None:
    ok(db("backup", tmp_path / "a", "--json"))
    ok(db("restore", tmp_path / "a", "--json", url=postgres_url))
    database = postgres_url.rpartition("/")[2]
    postgres_server.execute("CREATE TABLE theirs (id int); INSERT INTO theirs VALUES (1)", database)
    refused = db("restore", tmp_path / "a", "--force", url=postgres_url)
    assert refused.code == ExitCode.CONFLICT
    assert "theirs" in refused.err
    assert postgres_server.execute("SELECT count(*) FROM theirs", database) == [(1,)]
    assert postgres_server.execute("SELECT count(*) > 5 FROM runs", database) == [(True,)]
    assert "theirs" not in ok(db("backup", tmp_path / "b", "--json", url=postgres_url))["rows"]


def test_a_database_on_which_nodes_work_is_left_alone(
    db: Do, folder: Path, tmp_path: Path, postgres_url: str
) -> None:
    ok(db("backup", tmp_path / "a", "--json"))
    ok(db("restore", tmp_path / "a", "--json", url=postgres_url))
    soon = int(time.time() * 1000) + 3_600_000
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "INSERT INTO nodes (token, name, expires_at, started_at) VALUES ('n', 'gull', %s, 1)",
            (soon,),
        )
    outcome = db("restore", tmp_path / "a", "--force", url=postgres_url)
    assert outcome.code == ExitCode.CONFLICT
    assert "gull" in outcome.err
    moved = db("copy", folder / "insula.db", postgres_url, "--force", data=None)
    assert moved.code == ExitCode.CONFLICT


BROKEN = {
    "every run has ended, waits or is owned": [
        "UPDATE runs SET status = 'RUNNING' WHERE status = 'FAILED'",
        "UPDATE runs SET owner = NULL WHERE ended_at IS NULL",
    ],
    "counters equal the rows": [
        "UPDATE counters SET count = count + 1 WHERE status = 'FAILED'",
        "DELETE FROM counters WHERE status = 'SKIPPED'",
        "DELETE FROM counters WHERE app_id = 'catalogue'",
        "UPDATE counters SET count = count - 1 WHERE app_id = 'workflows'",
        "UPDATE counters SET count = count - 1 WHERE app_id = 'collections'",
        "UPDATE counters SET count = count + 1 WHERE app_id = 'records' AND status = 'DRAFT'",
    ],
    "journals of ended runs are whole": [
        "UPDATE run_data SET events = x'5b7b5d' WHERE events IS NOT NULL",
        "UPDATE run_data SET events = substr(events, 1, 40) WHERE events IS NOT NULL",
        "UPDATE run_data SET events = NULL",
        "UPDATE runs SET status = 'COMPLETED' WHERE status = 'FAILED'",
    ],
    "journals in rows are whole": [
        "DELETE FROM run_events",
        "UPDATE run_events SET seq = seq + 1",
        "UPDATE runs SET seq = seq + 1 WHERE ended_at IS NULL",
    ],
    "no data is left of runs that are gone or erased": [
        "INSERT INTO run_data (run_id, input) VALUES ('run_gone', x'7b7d')",
        "UPDATE runs SET erased_at = 5 WHERE status = 'FAILED'",
    ],
}


@pytest.mark.parametrize(
    ("check", "statement"),
    [(check, statement) for check, statements in BROKEN.items() for statement in statements],
)
def test_what_does_not_hold_together_is_found(
    db: Do, folder: Path, check: str, statement: str
) -> None:
    sql(folder, statement)
    outcome = db("check", "--json")
    assert outcome.code == ExitCode.FAILED
    wrong = {finding["check"]: finding for finding in json.loads(outcome.out) if finding["wrong"]}
    assert check in wrong
    assert wrong[check]["examples"]


def test_a_file_that_keeps_its_size_is_found(db: Do, folder: Path) -> None:
    connection = sqlite3.connect(folder / "insula.db")
    connection.execute("PRAGMA auto_vacuum = NONE")
    connection.execute("VACUUM")
    connection.close()
    outcome = db("check", "--json")
    assert outcome.code == ExitCode.FAILED
    (wrong,) = [finding for finding in json.loads(outcome.out) if finding["wrong"]]
    assert wrong["check"] == "the file shrinks with what is erased"


def test_files_without_bytes_are_found(db: Do, folder: Path) -> None:
    shutil.rmtree(folder / "files")
    outcome = db("check")
    assert outcome.code == ExitCode.FAILED
    assert "1 wrong" in outcome.out
    assert "1 of 9 checks failed." in outcome.err


def test_a_file_that_sqlite_finds_damaged_is_not_backed_up(
    db: Do, folder: Path, tmp_path: Path
) -> None:
    sql(folder, "PRAGMA wal_checkpoint(TRUNCATE)")
    with (folder / "insula.db").open("r+b") as file:
        file.seek(-3 * 4096, 2)
        file.write(b"\xff" * 4096)
    outcome = db("backup", tmp_path / "a")
    assert outcome.code == ExitCode.FAILED
    assert not (tmp_path / "a").exists()
    with (folder / "insula.db").open("r+b") as file:
        file.truncate(5000)
    for verb in ("check", "upgrade"):
        outcome = db(verb)
        assert outcome.code == ExitCode.FAILED
        assert "damaged" in outcome.err
        assert "insula db restore" in outcome.err


def test_a_folder_that_cannot_be_written_to_is_told_in_words() -> None:
    refused = sqlite3.OperationalError("attempt to write a readonly database")
    refused.sqlite_errorcode = sqlite3.SQLITE_READONLY_DIRECTORY
    with pytest.raises(CommandFailed, match="cannot be written to") as caught, told_in_words():
        raise OperationalError("PRAGMA integrity_check", {}, refused)
    assert caught.value.code == ExitCode.FAILED


def test_wrong_places_are_told_in_words(db: Do, folder: Path, tmp_path: Path) -> None:
    missing = db("check", data=tmp_path / "none")
    assert missing.code == ExitCode.NOT_FOUND
    assert db("backup", tmp_path / "a", data=tmp_path / "none").code == ExitCode.NOT_FOUND
    assert db("restore", tmp_path / "none").code == ExitCode.NOT_FOUND
    assert db("copy", tmp_path / "none.db", "postgresql://h/d", data=None).code == (
        ExitCode.NOT_FOUND
    )
    wrong = db("copy", folder / "insula.db", "mysql://user:hush@h/d", data=None)
    assert wrong.code == ExitCode.USAGE
    assert "hush" not in wrong.err
    (tmp_path / "a").write_text("here")
    there = db("backup", tmp_path / "a")
    assert there.code == ExitCode.CONFLICT
    assert (tmp_path / "a").read_text() == "here"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "insula.db").write_text("no database at all")
    assert db("check", data=tmp_path / "other").code == ExitCode.CONFLICT


def test_a_server_that_is_not_there_is_told_without_its_password(db: Do, folder: Path) -> None:
    nobody = "postgresql://insula:hush@127.0.0.1:1/insula"
    for outcome in (
        db("check", url=nobody),
        db("copy", folder / "insula.db", nobody, data=None),
    ):
        assert outcome.code == ExitCode.UNREACHABLE
        assert "hush" not in outcome.err + outcome.out
