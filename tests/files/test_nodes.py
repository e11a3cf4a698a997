"""Several nodes on one database and one storage: what one reads another ends, or takes over."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import insert, select, update
from tests.adapters.extraction import documents
from tests.adapters.extraction.readings import readers
from tests.files.test_documents import LETTER, ended, post

from insula.adapters.blobs.disk import DiskBlobs
from insula.files import documents as module
from insula.files.resolve import FileInputs
from insula.kit.clock import now_ms
from insula.settings import load_settings
from insula.storage import tables

LONG = documents.pdf(*[LETTER] * 50)


@pytest.fixture
async def other(tmp_path: Path, files: FileInputs) -> AsyncIterator[FileInputs]:
    """Another node, which reads; both are alive. Requests come to the first, which does not."""

    def live(token: str) -> dict[str, object]:
        return {"token": token, "name": "n", "expires_at": now_ms() + 60_000, "started_at": 1}

    store = files.store
    both = insert(tables.nodes).values([live("node_1"), live("node_2")])
    await store.database.write(lambda connection: connection.execute(both) and None)
    opened = await FileInputs.open(
        store.database, DiskBlobs(tmp_path / "files"), store.http, load_settings(), lambda: "node_2"
    )
    task = asyncio.create_task(opened.documents.run())
    yield opened
    task.cancel()
    await asyncio.wait([task])


async def begun(client, on_disk: Callable[[], set[str]]) -> str:
    """Have a long document read elsewhere; return its id when the first image is there."""
    made = await post(client, "a.pdf", LONG, document_extract_images=True)
    async with asyncio.timeout(30):
        while len(on_disk()) < 2:  # noqa: ASYNC110  # it is claimed in the background
            await asyncio.sleep(0.01)
    file_id: str = made["id"]
    return file_id


async def test_a_cancel_answers_when_the_reader_elsewhere_is_dead(client, on_disk, other) -> None:
    file_id = await begun(client, on_disk)
    answers = await asyncio.gather(
        *(client.post(f"/apps/c/files/{file_id}/cancel") for _ in range(2))
    )
    assert readers() == []
    assert on_disk() == {file_id}
    assert {answer.json()["file_status"] for answer in answers} == {"FAILED"}
    query = select(tables.extractions.c.owner)
    assert await other.store.database.read(lambda connection: connection.scalar(query)) is None


async def test_a_deletion_answers_when_the_reader_elsewhere_is_dead(client, on_disk, other) -> None:
    file_id = await begun(client, on_disk)
    assert (await client.delete(f"/apps/c/files/{file_id}")).status_code == 200
    assert (readers(), on_disk()) == ([], set())


async def test_a_cancel_does_not_wait_for_the_dead(client, files, on_disk, other) -> None:
    made = await post(client, "a.txt", b"hello")
    row = {"file_id": made["id"], "app_id": "app_1", "status": "PROCESSING", "progress": 0.5}
    row |= {"wanted": b'{"contents":true}', "owner": "node_2", "attempts": 1}
    row |= {"created_at": 1, "updated_at": 1}
    gone = update(tables.nodes).where(tables.nodes.c.token == "node_2").values(expires_at=1)

    def unit(connection) -> None:
        connection.execute(gone)
        connection.execute(insert(tables.extractions).values(row))

    await files.store.database.write(unit)
    async with asyncio.timeout(module._LET_GO_WITHIN / 2):
        answer = await client.post(f"/apps/c/files/{made['id']}/cancel")
    assert answer.json()["file_status"] == "FAILED"


async def test_what_more_is_wished_after_a_cancel_keeps_what_comes_of_it(
    client, on_disk, other
) -> None:
    file_id = await begun(client, on_disk)
    await client.post(f"/apps/c/files/{file_id}/cancel")
    asked = {"file": file_id, "document_extract_images": True, "document_extract_contents": True}
    again = await client.post("/apps/c/files", json=asked)
    assert again.json()["id"] == file_id, again.text
    shown = await ended(client, file_id)
    assert shown["file_status"] == "PROCESSED"
    images = {image["file_id"] for image in shown["document"]["images"]}
    assert (len(images), on_disk()) == (50, {file_id, *images})
