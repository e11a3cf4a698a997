"""Documents read in the background: progress, cancel, deletion, other processes, restarts."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from typing import Any, cast

import httpx
import pypdfium2
import pytest
from sqlalchemy import Connection, insert, select, update
from tests.adapters.extraction import documents
from tests.contract import needs_contract, validate

from insula.adapters.blobs.port import Blobs
from insula.adapters.extraction.extractor import ExtractionFailed
from insula.errors import Unavailable
from insula.files import documents as reads
from insula.files import extractions
from insula.files.documents import Documents
from insula.files.reading import Gone
from insula.files.repository import delete_file, find_file
from insula.files.resolve import FileInputs
from insula.files.wish import Wish
from insula.kit import json
from insula.kit.clock import now_ms
from insula.storage import tables

LETTER = [(50.0, 800.0, 20.0, "Report"), (50.0, 770.0, 11.0, "All is well.")]


async def post(client: httpx.AsyncClient, name: str, data: bytes, **asked: Any) -> dict[str, Any]:
    texts = {key: str(value).lower() for key, value in asked.items()}
    answer = await client.post("/apps/c/files", files={"file": (name, data)}, data=texts)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def ended(client: httpx.AsyncClient, file_id: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            shown: dict[str, Any] = (await client.get(f"/apps/c/files/{file_id}")).json()
            if shown["file_status"] != "PROCESSING":
                return shown
            await asyncio.sleep(0.02)  # what a client does


@pytest.mark.usefixtures("reading")
async def test_a_document_is_read(client, files: FileInputs) -> None:
    made = await post(
        client,
        "a.pdf",
        documents.pdf(LETTER, LETTER, LETTER),
        document_extract_contents=True,
        document_extract_images=True,
        document_extract_pages=True,
        document_pages=[3, 1],
    )
    assert (made["file_status"], made["file_format"]) == ("PROCESSING", "DOCUMENT")
    assert "document" not in made
    shown = await ended(client, made["id"])
    assert (shown["file_status"], shown["document_progress"]) == ("PROCESSED", 1)
    assert shown["document_pages"] == [3, 1]
    found = shown["document"]
    assert [(block["type"], block["page"]) for block in found["contents"]] == [
        *(("TITLE", 3), ("NARRATIVETEXT", 3), ("TITLE", 1), ("NARRATIVETEXT", 1))
    ]
    assert [image["page"] for image in found["images"]] == [3, 1]
    picture = await client.get(found["images"][0]["image_url"])
    assert picture.headers["content-type"] == "image/jpeg"
    pages = await client.get(found["extracted_pages"])
    assert pages.content.startswith(b"%PDF")
    (listed,) = (await client.get("/apps/c/files")).json()
    assert (listed["id"], "document" in listed) == (made["id"], False)


async def test_a_file_is_encoded_beside_the_loop(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = json.encode
    threads: list[threading.Thread] = []

    def noted(value: object) -> bytes:
        threads.append(threading.current_thread())
        return encode(value)

    made = await post(client, "a.txt", b"x")
    monkeypatch.setattr(json, "encode", noted)
    shown = await client.get(f"/apps/c/files/{made['id']}")
    assert shown.json()["id"] == made["id"]
    assert len(threads) == 1
    assert threading.current_thread() not in threads


@needs_contract
@pytest.mark.usefixtures("reading")
async def test_answers_have_the_contracts_shape(client) -> None:
    asked = {"document_extract_contents": True, "document_extract_images": True}
    made = await post(client, "a.docx", documents.word(), **asked)
    validate(made, "AppFileSchema")
    validate(await ended(client, made["id"]), "AppFileSchema")


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.zip", b"PK\x03\x04 what", "Nothing can be extracted"),
        ("a.pdf", b"%PDF-1.7 what", "damaged"),
        ("a.pdf", documents.pdf(*[LETTER] * 60), "INSULA_EXTRACT_PAGES"),
    ],
)
async def test_what_cannot_be_read_fails_alone(client, name: str, data: bytes, words: str) -> None:
    made = await post(client, name, data, document_extract_contents=True)
    good = await post(client, "a.txt", b"hello", document_extract_contents=True)
    shown = await ended(client, made["id"])
    assert shown["file_status"] == "FAILED"
    assert words in shown["file_status_message"]
    assert (await ended(client, good["id"]))["file_status"] == "PROCESSED"


@pytest.mark.usefixtures("reading")
async def test_a_cancel_ends_it(client, files: FileInputs, on_disk) -> None:
    made = await post(client, "a.pdf", documents.pdf(*[LETTER] * 50), document_extract_images=True)
    async with asyncio.timeout(30):
        while len(on_disk()) < 2:  # noqa: ASYNC110  # the first image is there
            await asyncio.sleep(0.01)
    answer = await client.post(f"/apps/c/files/{made['id']}/cancel")
    assert answer.json()["file_status"] == "FAILED"
    assert answer.json()["file_status_message"] == "The extraction was cancelled"
    assert files.documents.working == 0
    assert on_disk() == {made["id"]}
    again = await client.post(f"/apps/c/files/{made['id']}/cancel")
    assert again.json()["file_status_message"] == answer.json()["file_status_message"]


async def test_a_file_without_extraction_is_not_changed_by_a_cancel(client) -> None:
    made = await post(client, "a.txt", b"hello")
    answer = await client.post(f"/apps/c/files/{made['id']}/cancel")
    assert (answer.status_code, "file_status" in answer.json()) == (200, False)
    assert (await client.post("/apps/c/files/file_1/cancel")).status_code == 404
    theirs = {"authorization": "Bearer theirs"}
    answer = await client.post(f"/apps/c/files/{made['id']}/cancel", headers=theirs)
    assert answer.status_code == 404


@pytest.mark.usefixtures("reading")
async def test_deleting_ends_it_and_takes_all_along(client, files: FileInputs, on_disk) -> None:
    made = await post(client, "a.pdf", documents.pdf(*[LETTER] * 50), document_extract_images=True)
    async with asyncio.timeout(30):
        while len(on_disk()) < 2:  # noqa: ASYNC110  # the first image is there
            await asyncio.sleep(0.01)
    assert (await client.delete(f"/apps/c/files/{made['id']}")).status_code == 200
    assert files.documents.working == 0
    assert not on_disk()


@pytest.mark.usefixtures("reading")
async def test_another_process_cancels(client, files: FileInputs) -> None:
    made = await post(client, "a.pdf", documents.pdf(*[LETTER] * 50), document_extract_images=True)
    async with asyncio.timeout(30):
        while not files.documents.working:  # noqa: ASYNC110  # it is claimed in the background
            await asyncio.sleep(0.01)
        other = Documents(files.store, files.documents.extractor, lambda: "node_2")
        await other.cancel("app_1", made["id"])
        while files.documents.working:  # noqa: ASYNC110  # it finds out by itself
            await asyncio.sleep(0.01)
    assert (await ended(client, made["id"]))["file_status"] == "FAILED"


def own(file_id: str, **values: Any):
    return lambda connection: (
        connection.execute(
            update(tables.extractions)
            .where(tables.extractions.c.file_id == file_id)
            .values(**values)
        )
        and None
    )


async def test_what_a_dead_process_had_begun_is_read(client, files: FileInputs) -> None:
    made = await post(client, "a.txt", b"hello", document_extract_contents=True)
    await files.store.database.write(own(made["id"], owner="node_dead", attempts=1))
    task = asyncio.create_task(files.documents.run())
    assert (await ended(client, made["id"]))["file_status"] == "PROCESSED"
    task.cancel()
    await asyncio.wait([task])


async def test_who_is_only_asked_reads_what_somebody_waits_for(client, files: FileInputs) -> None:
    left = await post(client, "a.txt", b"left", document_extract_contents=True)
    wanted = await post(client, "b.txt", b"wanted", document_extract_contents=True)
    task = asyncio.create_task(files.documents.run(only_asked=True))
    await asyncio.sleep(0)
    find = partial(find_file, file_id=wanted["id"])
    file = await files.store.database.read(find)
    assert file is not None
    assert await files.documents.document(file, Wish(contents=True))
    assert (await ended(client, wanted["id"]))["file_status"] == "PROCESSED"
    answer = await client.get(f"/apps/c/files/{left['id']}")
    assert answer.json()["file_status"] == "PROCESSING"
    task.cancel()
    await asyncio.wait([task])


async def test_what_a_living_process_has_begun_is_left_to_it(client, files: FileInputs) -> None:
    made = await post(client, "a.txt", b"hello", document_extract_contents=True)
    alive = insert(tables.nodes).values(
        token="node_2", name="n", expires_at=now_ms() + 60_000, started_at=1
    )
    await files.store.database.write(lambda connection: connection.execute(alive) and None)
    await files.store.database.write(own(made["id"], owner="node_2", attempts=1))
    claim = partial(extractions.claim, token="node_1", working=[], after="")
    assert await files.store.database.write(claim) is None


async def test_what_ends_its_readers_too_often_fails(client, files: FileInputs) -> None:
    made = await post(client, "a.txt", b"hello", document_extract_contents=True)
    await files.store.database.write(own(made["id"], owner="node_dead", attempts=3))
    task = asyncio.create_task(files.documents.run())
    shown = await ended(client, made["id"])
    assert (shown["file_status"], "3 times" in shown["file_status_message"]) == ("FAILED", True)
    task.cancel()
    await asyncio.wait([task])


async def test_going_down_gives_back_what_was_begun(client, files: FileInputs) -> None:
    made = await post(client, "a.pdf", documents.pdf(*[LETTER] * 50), document_extract_images=True)
    task = asyncio.create_task(files.documents.run())
    async with asyncio.timeout(30):
        while not files.documents.working:  # noqa: ASYNC110  # it is claimed in the background
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    query = select(tables.extractions.c.owner, tables.extractions.c.attempts)
    row = await files.store.database.read(lambda connection: connection.execute(query).one())
    assert tuple(row) == (None, 0)
    assert (await client.get(f"/apps/c/files/{made['id']}")).json()["file_status"] == "PROCESSING"


async def test_apps_take_turns(client, files: FileInputs) -> None:
    mine = [await post(client, "a.txt", b"x", document_extract_contents=True) for _ in range(2)]
    client.headers["authorization"] = "Bearer theirs"
    theirs = await post(client, "a.txt", b"x", document_extract_contents=True)
    taken, after = [], ""
    for _ in range(3):
        claim = partial(extractions.claim, token="node_1", working=taken, after=after)
        row = await files.store.database.write(claim)
        assert row is not None
        taken.append(row.file_id)
        after = row.app_id
    assert taken == [mine[0]["id"], theirs["id"], mine[1]["id"]]


@pytest.mark.usefixtures("reading")
async def test_more_may_be_wished_later(client, files: FileInputs) -> None:
    made = await post(client, "a.pdf", documents.pdf(LETTER))
    row = await files.store.database.read(
        lambda connection: connection.execute(select(tables.files)).one()
    )
    file = await files.store.database.read(partial(find_file, file_id=row.id))
    assert file is not None
    async with asyncio.timeout(30):
        found = await files.documents.document(file, Wish(contents=True))
        assert (len(found["contents"]), found["images"]) == (2, [])
        found = await files.documents.document(file, Wish(images=True))
        assert (len(found["contents"]), len(found["images"])) == (2, 1)
    assert (await ended(client, made["id"]))["document_extract_images"] is True


async def test_many_at_once(client, files: FileInputs) -> None:
    task = asyncio.create_task(files.documents.run())
    made = await asyncio.gather(
        *(post(client, f"{n}.md", b"# hi", document_extract_contents=True) for n in range(12))
    )
    shown = await asyncio.gather(*(ended(client, each["id"]) for each in made))
    assert {each["file_status"] for each in shown} == {"PROCESSED"}
    task.cancel()
    await asyncio.wait([task])


class Away:
    """A storage that is away for some reads."""

    def __init__(self, blobs: Blobs, times: int, error: Exception) -> None:
        self._blobs, self.times, self._error = blobs, times, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    async def open_stream(self, key: str, *span: Any) -> AsyncGenerator[bytes, None]:
        if self.times:
            self.times -= 1
            raise self._error
        async for piece in self._blobs.open_stream(key, *span):
            yield piece


@pytest.mark.parametrize("error", [Unavailable("away"), OSError("away")])
async def test_a_storage_that_is_away_fails_no_document(
    client, files: FileInputs, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(reads, "LOOKED_EVERY", 0.01)
    made = await post(client, "a.txt", b"hello", document_extract_contents=True)
    away = Away(files.store.blobs, 2 * extractions.ATTEMPTS, error)
    store = replace(files.store, blobs=cast(Blobs, away))
    documents_of = Documents(store, files.documents.extractor, lambda: "node_1")
    task = asyncio.create_task(documents_of.run())
    shown = await ended(client, made["id"])
    assert (shown["file_status"], away.times) == ("PROCESSED", 0)
    query = select(tables.extractions.c.attempts)
    assert await files.store.database.read(lambda connection: connection.scalar(query)) == 1
    task.cancel()
    await asyncio.wait([task])


async def test_what_is_put_off_is_left_for_longer_each_time(files: FileInputs) -> None:
    row = extractions.ExtractionRow("file_1", "app_1", "PROCESSING", None, 0, b"{}", "t", 1)
    for times in range(1, 10):
        await files.documents._put_off(row)
        assert files.documents._resting["file_1"][0] == times
        assert files.documents._left() == ["file_1"]
    assert files.documents._resting["file_1"][1] <= time.monotonic() + 60


async def test_what_was_cancelled_is_read_when_it_is_wished_again(
    client, files: FileInputs
) -> None:
    asked = {"document_extract_contents": True}
    made = await post(client, "a.txt", b"hello", **asked)
    answer = await client.post(f"/apps/c/files/{made['id']}/cancel")
    assert answer.json()["file_status"] == "FAILED"
    again = await client.post("/apps/c/files", json={"file": made["id"], **asked})
    assert again.json()["file_status"] == "PROCESSING"
    await client.post(f"/apps/c/files/{made['id']}/cancel")
    task = asyncio.create_task(files.documents.run())
    file = await files.store.database.read(partial(find_file, file_id=made["id"]))
    assert file is not None
    async with asyncio.timeout(30):
        found = await files.documents.document(file, Wish(contents=True, whole=True))
    assert found["contents"][0]["content"] == "hello"
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.usefixtures("reading")
async def test_what_cannot_be_read_is_not_tried_again(client, files: FileInputs) -> None:
    asked = {"document_extract_contents": True}
    for name, data in (("a.pdf", b"%PDF-1.4 no"), ("a.bin", b"\0\1")):
        made = await post(client, name, data, **asked)
        assert (await ended(client, made["id"]))["file_status"] == "FAILED"
        again = await client.post("/apps/c/files", json={"file": made["id"], **asked})
        assert again.json()["file_status"] == "FAILED"


@pytest.mark.parametrize(
    ("method", "path", "ended"),
    [("POST", "/cancel", ExtractionFailed), ("DELETE", "", Gone)],
)
async def test_an_end_is_final_for_who_waits(
    client,
    files: FileInputs,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    ended: type[Exception],
) -> None:
    waits, change = asyncio.Event(), files.documents._change

    async def seen() -> None:
        waits.set()
        await change()

    monkeypatch.setattr(files.documents, "_change", seen)
    made = await post(client, "a.txt", b"hello", document_extract_contents=True)
    file = await files.store.database.read(partial(find_file, file_id=made["id"]))
    assert file is not None
    waiting = asyncio.create_task(files.documents.document(file, Wish(contents=True)))
    await waits.wait()
    await client.request(method, f"/apps/c/files/{made['id']}{path}")
    async with asyncio.timeout(30):
        with pytest.raises(ended):
            await waiting


async def test_a_file_that_is_deleted_before_its_extraction_is_noted(
    client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, ensure = await post(client, "a.txt", b"hello"), extractions.ensure

    def late(connection: Connection, **asked: Any) -> Any:
        delete_file(connection, "app_1", made["id"])
        return ensure(connection, **asked)

    monkeypatch.setattr(extractions, "ensure", late)
    body = {"file": made["id"], "document_extract_contents": True}
    answer = await client.post("/apps/c/files", json=body)
    assert answer.status_code == 400, answer.text
    assert [error["path"] for error in answer.json()["errors"]] == [["file"]]
    assert made["id"] in answer.json()["message"]


@pytest.mark.usefixtures("reading")
async def test_who_needs_the_whole_gets_it_and_chosen_pages_are_shown(
    client, files: FileInputs
) -> None:
    asked = {"document_extract_contents": True, "document_extract_images": True}
    pdf = documents.pdf(LETTER, LETTER, LETTER)
    made = await post(
        client, "a.pdf", pdf, document_pages=[3, 1], document_extract_pages=True, **asked
    )
    await ended(client, made["id"])
    file = await files.store.database.read(partial(find_file, file_id=made["id"]))
    assert file is not None

    async def pages(**more: Any) -> tuple[list[int], list[int]]:
        if more:
            body = {"file": made["id"], **asked, **more}
            assert (await client.post("/apps/c/files", json=body)).status_code == 200
        found = (await ended(client, made["id"]))["document"]
        texts = dict.fromkeys(block["page"] for block in found["contents"])
        return list(texts), [image["page"] for image in found["images"]]

    async with asyncio.timeout(60):
        found = await files.documents.document(file, Wish(contents=True, whole=True))
        assert {block["page"] for block in found["contents"]} == {1, 2, 3}
        assert await pages() == ([3, 1], [3, 1])
        shown = await ended(client, made["id"])
        assert shown["document_pages"] == [3, 1]
        written = await client.get(shown["document"]["extracted_pages"])
        assert len(pypdfium2.PdfDocument(written.content)) == 2
        assert await pages(document_pages=[2]) == ([2], [2])
        assert await pages(document_max_pages=2) == ([1, 2], [1, 2])
        again = await client.post("/apps/c/files", json={"file": made["id"], **asked})
        assert "document_pages" not in again.json()
        assert await pages() == ([1, 2, 3], [1, 2, 3])


async def test_other_pages_may_be_wished_before_it_is_read(client, files: FileInputs) -> None:
    asked = {"document_extract_contents": True}
    made = await post(client, "a.pdf", documents.pdf(LETTER, LETTER), document_pages=[1], **asked)
    claim = partial(extractions.claim, token="node_1", working=[], after="")
    assert await files.store.database.write(claim) is not None
    await client.post("/apps/c/files", json={"file": made["id"], "document_pages": [2], **asked})
    row = await files.store.database.read(partial(extractions.find, file_id=made["id"]))
    assert row is not None
    assert (row.status, row.owner, row.attempts, row.wish.pages) == ("PROCESSING", None, 0, (2,))


@pytest.mark.usefixtures("reading")
@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-8-sig"])
async def test_text_of_any_writing_is_read(client, encoding: str) -> None:
    asked = {"document_extract_contents": True, "allowed_types": "text/csv"}
    made = await post(client, "a.csv", "Größe;Preis\n1;2\n".encode(encoding), **asked)
    assert made["file_mimetype"] == "text/csv"
    (block,) = (await ended(client, made["id"]))["document"]["contents"]
    assert (block["type"], block["content"]) == ("TABLE", "Größe\tPreis\n1\t2")
