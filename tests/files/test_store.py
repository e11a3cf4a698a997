"""Storing and removing: bytes and rows together, in that order, and nothing left of failures."""

from collections.abc import AsyncIterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from insula.adapters.blobs.disk import DiskBlobs
from insula.errors import BadInput, NotFound, TooLarge, Unavailable
from insula.files import repository
from insula.files import store as storing
from insula.files.resolve import FileInputs
from insula.files.store import (
    TEMPORARY_MS,
    FileStore,
    Wanted,
    clean_filename,
    remove_app_files,
    remove_bytes,
    remove_expired,
    remove_file,
    store_file,
    sweep_orphans,
)
from insula.kit.clock import now_ms
from insula.storage.tables import runs

MINE = Wanted("app_1", "a.txt")


async def _chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_file_is_stored_whole(store: FileStore) -> None:
    data = b"%PDF-1.4 " + b"x" * 100_000
    parts = [data[at : at + 7000] for at in range(0, len(data), 7000)]
    row = await store_file(store, Wanted("app_1", "../b/ä.pdf"), _chunks(*parts))
    assert (row.filename, row.mimetype, row.size) == ("ä.pdf", "application/pdf", len(data))
    assert (row.storage, row.visibility, row.expires_at) == ("PERSISTENT", "PRIVATE", None)
    assert await store.blobs.read(row.id) == data
    assert await store.database.read(lambda c: repository.find_file(c, row.id)) == row


async def test_a_wrong_type_is_refused_before_it_is_written(store, on_disk) -> None:
    wanted = Wanted("app_1", "x.pdf", allowed_types=["pdf"], path=("input", "doc"))
    with pytest.raises(BadInput, match="text/html") as caught:
        await store_file(store, wanted, _chunks(b"<html>", b"x"))
    assert caught.value.errors[0].path == ("input", "doc")
    assert on_disk() == set()


async def test_too_large(store, on_disk) -> None:
    with pytest.raises(TooLarge):
        await store_file(store, MINE, _chunks(*[b"x" * 100_000] * 4))
    assert on_disk() == set()


async def test_a_row_that_fails_takes_its_bytes_with_it(store, on_disk, monkeypatch) -> None:
    def fails(*_: object) -> None:
        raise Unavailable("no")

    monkeypatch.setattr(repository, "insert_file", fails)
    with pytest.raises(Unavailable):
        await store_file(store, MINE, _chunks(b"x"))
    assert on_disk() == set()


async def test_an_earlier_row_stands_instead(store, on_disk) -> None:
    first = await store_file(store, MINE, _chunks(b"x"))
    second = await store_file(store, MINE, _chunks(b"x"), lambda connection, row: first.id)
    assert second == first
    assert on_disk() == {first.id}


async def test_removing(store, on_disk) -> None:
    row = await store_file(store, MINE, _chunks(b"x"))
    assert not await remove_file(store, "app_2", row.id)
    assert await remove_file(store, "app_1", row.id)
    assert not await remove_file(store, "app_1", row.id)
    assert on_disk() == set()


async def test_what_arrives_for_an_app_that_is_gone_is_not_kept(store, on_disk) -> None:
    with pytest.raises(NotFound):
        await store_file(store, Wanted("app_3"), _chunks(b"x"))
    assert on_disk() == set()


async def test_an_apps_files_go_with_it(store, on_disk, monkeypatch) -> None:
    monkeypatch.setattr(storing, "_SWEEPS", 2)
    for _ in range(5):
        await store_file(store, MINE, _chunks(b"x"))
    other = await store_file(store, Wanted("app_2"), _chunks(b"x"))
    stopped: list[str] = []

    async def stop(file_id: str) -> None:
        stopped.append(file_id)

    await remove_app_files(store, "app_1", stop)
    assert on_disk() == {other.id}


def _fails(
    monkeypatch: pytest.MonkeyPatch, error: Exception, *keys: str, asked: list[str] | None = None
) -> None:
    """Have the storage fail to delete some keys, or all."""
    deletes = DiskBlobs.delete

    async def delete(blobs: DiskBlobs, key: str) -> None:
        if asked is not None:
            asked.append(key)
        if not keys or key in keys:
            raise error
        await deletes(blobs, key)

    monkeypatch.setattr(DiskBlobs, "delete", delete)


@pytest.mark.parametrize("error", [Unavailable("away"), OSError("broken")])
async def test_bytes_that_stay_keep_no_others(store, on_disk, monkeypatch, error) -> None:
    rows = [await store_file(store, MINE, _chunks(b"x")) for _ in range(4)]
    ids = [row.id for row in rows]
    with monkeypatch.context() as patched:
        _fails(patched, error, ids[0], ids[2])
        assert not await remove_bytes(store, ids)
        assert on_disk() == {ids[0], ids[2]}
    assert await remove_bytes(store, ids)
    assert on_disk() == set()


async def test_a_storage_that_is_away_is_not_asked_for_each_file(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    _fails(monkeypatch, Unavailable("away"), asked=asked)
    assert not await remove_bytes(store, [f"file_{number}" for number in range(100)])
    assert len(asked) == 3


async def test_a_file_whose_bytes_stay_is_removed_and_swept(store, on_disk, monkeypatch) -> None:
    row = await store_file(store, MINE, _chunks(b"x"))
    with monkeypatch.context() as patched:
        _fails(patched, Unavailable("away"))
        assert await remove_file(store, "app_1", row.id)
        assert on_disk() == {row.id}
    assert await sweep_orphans(store, older_than=-60) == 1
    assert on_disk() == set()


async def test_an_apps_rows_stay_until_its_bytes_are_gone(store, on_disk, monkeypatch) -> None:
    async def stop(_: str) -> None:
        pass

    rows = [await store_file(store, MINE, _chunks(b"x")) for _ in range(2)]
    with monkeypatch.context() as patched:
        _fails(patched, Unavailable("away"), rows[0].id)
        with pytest.raises(Unavailable):
            await remove_app_files(store, "app_1", stop)
    query = partial(repository.some_of_app, app_id="app_1", limit=10)
    assert len(await store.database.read(query)) == 2
    await remove_app_files(store, "app_1", stop)
    assert (on_disk(), await store.database.read(query)) == (set(), [])


def _run(run_id: str, erased_at: int | None) -> dict[str, object]:
    return {
        "id": run_id,
        "app_id": "app_1",
        "workflow_app_id": "app_1",
        "workflow_id": "work_1",
        "root_id": run_id,
        "status": "COMPLETED",
        "origin": "ENDPOINT",
        "erased_at": erased_at,
        "created_at": 1,
        "updated_at": 1,
    }


async def test_temporary_files_expire_unless_a_run_holds_them(store, on_disk, monkeypatch) -> None:
    monkeypatch.setattr(storing, "_SWEEPS", 2)
    await store.database.write(
        lambda c: c.execute(insert(runs), [_run("run_held", None), _run("run_erased", 1)])
    )
    made = {}
    for run_id in (None, "run_held", "run_erased", "run_never"):
        wanted = Wanted("app_1", storage="TEMPORARY", run_id=run_id)
        made[run_id] = await store_file(store, wanted, _chunks(b"x"))
    await store_file(store, Wanted("app_1", run_id="rec_never"), _chunks(b"x"))
    kept = await store_file(store, MINE, _chunks(b"x"))
    assert await remove_expired(store) == 0
    later = now_ms() + TEMPORARY_MS
    monkeypatch.setattr(storing, "now_ms", lambda: later)
    assert await remove_expired(store) == 4
    assert on_disk() == {kept.id, made["run_held"].id}
    assert await remove_expired(store) == 0


async def test_a_runs_files_are_erased_with_it(files: FileInputs, on_disk) -> None:
    store = files.store
    mine = await store_file(
        store, Wanted("app_1", storage="TEMPORARY", run_id="run_1"), _chunks(b"x")
    )
    kept = await store_file(store, Wanted("app_1", run_id="run_1"), _chunks(b"x"))
    gone = await store.database.write(lambda c: repository.delete_run_files(c, ["run_1", "run_2"]))
    assert gone == [mine.id]
    await files.remove(gone)
    assert on_disk() == {kept.id}


async def test_orphans_are_swept(store, on_disk) -> None:
    row = await store_file(store, MINE, _chunks(b"x"))
    await store.blobs.write("file_orphan", _chunks(b"x"), 10)
    assert await sweep_orphans(store) == 0
    assert await sweep_orphans(store, older_than=-60) == 1
    assert on_disk() == {row.id}


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("a.txt", "a.txt"),
        ("C:\\x\\a.txt", "a.txt"),
        ("../../etc/passwd", "passwd"),
        ("", "file"),
        ("..", "file"),
        ("a\r\nb.txt", "ab.txt"),
        ("x" * 400 + ".pdf", "x" * 251 + ".pdf"),
        (".hidden", "hidden"),
        ("e\u0301.txt", "é.txt"),
        ("x" * 1_000_000 + "." + "y" * 30 + ".pdf", "x" * 251 + ".pdf"),
        ("/".join(["a" * 1000] * 1000) + "/b.txt", "b.txt"),
        ("a" + "\u0301\u0316" * 1_000_000 + ".txt", "á" + "\u0316" * 124 + ".txt"),
    ],
)
def test_filenames(given_name: str, kept: str) -> None:
    assert clean_filename(given_name) == kept


@given(st.text())
def test_any_filename_becomes_one_that_can_be_stored_and_sent(name: str) -> None:
    kept = clean_filename(name)
    assert 0 < len(kept.encode()) <= 255
    assert kept.isprintable()
    assert "/" not in kept
    assert clean_filename(kept) == kept
