"""Every form of a file in an input becomes the same stored object."""

import base64
import io
import threading
from typing import Any

import pytest

from insula.engine.document_fields import FileField
from insula.engine.inputs import FileSlot
from insula.errors import BadInput, TooLarge
from insula.files.resolve import FileInputs, base_url, resolve_file
from insula.files.store import FileStore, Wanted
from insula.kit import percent
from insula.kit.ids import new_id
from insula.kit.percent import unquote
from insula.web.forms import UploadedPart

PDF = b"%PDF-1.7\n\xff\xfe tail"
B64 = base64.b64encode(PDF).decode()
MINE = Wanted("app_1", path=("input", "doc"))


async def _stored(store: FileStore, value: object, wanted: Wanted = MINE) -> dict[str, Any]:
    return await resolve_file(store, value, wanted)


async def _refused(store: FileStore, value: object, wanted: Wanted = MINE) -> str:
    with pytest.raises(BadInput) as caught:
        await resolve_file(store, value, wanted)
    assert caught.value.errors[0].path == wanted.path
    assert caught.value.message.startswith("input.doc ")
    return caught.value.message


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (B64, "file"),
        (B64.rstrip("="), "file"),
        (base64.urlsafe_b64encode(PDF).decode(), "file"),
        ("\n".join(B64[at : at + 8] for at in range(0, len(B64), 8)), "file"),
        ("data:text/plain;base64," + B64, "file"),
        ({"data": B64}, "file"),
        ({"data": B64, "name": "/tmp/a.pdf", "type": "x/y", "encoding": "base64"}, "a.pdf"),
        ({"data": "data:x/y;base64," + B64, "name": "b"}, "b"),
        (UploadedPart("c.bin", "x/y", io.BytesIO(PDF), len(PDF)), "c.bin"),
    ],
)
async def test_bytes_in_the_value(store: FileStore, value: object, name: str) -> None:
    stored = await _stored(store, value)
    assert stored["file_filename"] == name
    assert (stored["file_size"], stored["file_mimetype"]) == (len(PDF), "application/pdf")
    assert stored["id"] == stored["file_id"]
    assert await store.blobs.read(stored["id"]) == PDF


async def test_raw_text_and_plain_data_urls(store: FileStore) -> None:
    raw = await _stored(store, {"data": "ä", "encoding": "raw", "name": "a.txt"})
    assert await store.blobs.read(raw["id"]) == "ä".encode()
    url = await _stored(store, "data:,a%20b")
    assert await store.blobs.read(url["id"]) == b"a b"


async def test_what_may_be_large_is_decoded_beside_the_event_loop(store: FileStore, monkeypatch):
    threads = []

    def decode(text: str) -> bytes:
        threads.append(threading.current_thread())
        return unquote(text)

    monkeypatch.setattr(percent, "unquote", decode)
    stored = await _stored(store, {"data": "data:text/plain," + "%41b" * 50_000, "name": "a.txt"})
    assert await store.blobs.read(stored["id"]) == b"Ab" * 50_000
    assert threads
    assert threading.main_thread() not in threads


async def test_a_stored_file_stays_the_same_one(store: FileStore, on_disk) -> None:
    first = await _stored(store, B64)
    for value in (first["id"], first, {"file_id": first["id"]}, first["file_url"]):
        assert (await _stored(store, value))["id"] == first["id"]
    unsigned = first["file_url"].partition("?")[0]
    assert (await _stored(store, unsigned))["id"] == first["id"]
    assert on_disk() == {first["id"]}


async def test_another_apps_file_is_none(store: FileStore) -> None:
    theirs = await _stored(store, B64, Wanted("app_2"))
    absent = new_id("file")
    said = await _refused(store, absent)
    assert "no file of this app" in said
    assert await _refused(store, theirs["id"]) == said.replace(absent, theirs["id"])
    assert "no file of this app" in await _refused(store, theirs["file_url"].partition("?")[0])


async def test_another_apps_file_by_its_signed_address_is_copied(store: FileStore) -> None:
    theirs = await _stored(store, {"data": B64, "name": "t.pdf"}, Wanted("app_2"))
    copy = await _stored(store, theirs["file_url"])
    assert copy["id"] != theirs["id"]
    assert copy["file_filename"] == "t.pdf"
    assert await store.blobs.read(copy["id"]) == PDF


@pytest.mark.parametrize(
    ("header", "path", "name"),
    [
        ("X: y", "/a/b%20c.pdf?sig=1", "b c.pdf"),
        ("X: y", "/", "file"),
        ('Content-Disposition: attachment; filename="q.pdf"', "/x", "q.pdf"),
        ("Content-Disposition: attachment; filename*=UTF-8''%C3%A4.pdf", "/x", "ä.pdf"),
        ('Content-Disposition: attachment; filename="../../p.pdf"', "/x", "p.pdf"),
    ],
)
async def test_downloads(store, origin, header: str, path: str, name: str) -> None:
    origin.gives(PDF, header)
    stored = await _stored(store, origin.url(path))
    assert (stored["file_filename"], stored["file_size"]) == (name, len(PDF))


async def test_a_download_that_fails(store, origin, on_disk) -> None:
    origin.gives(b"no", status="404 Not Found")
    assert "status 404" in await _refused(store, origin.url())
    origin.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
    assert "cannot be downloaded" in await _refused(store, origin.url())
    assert "INSULA_EGRESS_ALLOW" in await _refused(store, "http://10.0.0.1/x")
    assert on_disk() == set()


async def test_a_download_over_the_limit(store, origin, on_disk) -> None:
    origin.answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"x" * 400_000
    with pytest.raises(TooLarge, match="INSULA_FILE_MAX"):
        await _stored(store, origin.url())
    assert on_disk() == set()


@pytest.mark.parametrize("wrong", ["file_zzz", "upl_zzz", "file_" + "z" * 500, "file_\0"])
async def test_a_wrong_id_is_no_base64(store: FileStore, on_disk, wrong: str) -> None:
    refused = await _refused(store, wrong)
    assert f"names {wrong[:8]}".rstrip("\0") in refused
    assert "which is no file of this app" in refused
    assert len(refused) < 200
    assert on_disk() == set()


async def test_too_much_base64(store: FileStore) -> None:
    with pytest.raises(TooLarge):
        await _stored(store, base64.b64encode(b"x" * 300_001).decode())


@pytest.mark.parametrize(
    "value",
    [
        None,
        3,
        True,
        [],
        {},
        {"data": 3},
        {"data": B64, "name": 3},
        {"data": "abcd", "encoding": "utf-8"},
        {"data": "abcd", "encoding": ["raw"]},
        {"data": "!"},
        "!!!",
        "data:x",
        "data:x;base64,!",
        "\ud800",
        "http://",
        "http://x\n/",
        "upl_1ChLYyPiLL9rMQ8En34vwD",
    ],
)
async def test_what_is_no_file(store: FileStore, value: object) -> None:
    await _refused(store, value)


async def test_types_are_told_by_the_content(store: FileStore) -> None:
    wanted = Wanted("app_1", allowed_types=["image/*"], path=("input", "doc"))
    value = {"data": B64, "type": "image/png", "name": "a.png"}
    assert "application/pdf" in await _refused(store, value, wanted)
    stored = await _stored(store, B64)
    assert "application/pdf" in await _refused(store, stored["id"], wanted)


async def test_a_slot_of_a_runs_input(files: FileInputs) -> None:
    field = FileField(visibility="PUBLIC", allowed_types=["pdf"])
    value = await files.resolve("app_1", "run_1", FileSlot(("a", 0), B64, field))
    assert value["storage"] == "TEMPORARY"
    assert value["file_url"] == f"http://insula/files/{value['id']}/content"
    with pytest.raises(BadInput, match=r"input\.a\.0") as caught:
        await files.resolve("app_1", "run_1", FileSlot(("a", 0), "!", field))
    assert caught.value.errors[0].path == ("input", "a", "0")


def test_where_a_server_is_reached() -> None:
    assert base_url("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert base_url("::1", 81) == "http://[::1]:81"
