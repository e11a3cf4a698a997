"""``FILES.*``, as steps call them, on a real database and real readers."""

import asyncio
import base64
import tempfile
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from tests.adapters.extraction import documents

from insula.engine.failures import StepFailure
from insula.engine.ports import Activity, ServiceCall
from insula.files import reading
from insula.files.actions import FileActions
from insula.files.actions_input import page_numbers
from insula.files.reader import FileReader
from insula.files.resolve import FileInputs
from insula.kit import json

PAGES = [[(50.0, 800.0, 12.0, f"page {n}")] for n in range(1, 6)]


@pytest.fixture
def reader(files: FileInputs) -> FileReader:
    return FileReader(files.store, files.documents)


@pytest.fixture
def actions(files: FileInputs, reader: FileReader) -> FileActions:
    return FileActions(files, reader)


def call(action: str, key: str = "k", app_id: str = "app_1", **given: Any) -> ServiceCall:
    return ServiceCall(app_id, app_id, "run_1", "FILES", action, given, idempotency_key=key)


async def do(actions: FileActions, action: str, key: str = "k", **given: Any) -> dict[str, Any]:
    found = json.decode(await actions.call(call(action, key, **given), Activity("x", 0)))
    assert isinstance(found, dict)
    return found


async def stored(client: httpx.AsyncClient, name: str, data: bytes) -> dict[str, Any]:
    answer = await client.post("/apps/c/files", files={"file": (name, data)})
    made: dict[str, Any] = answer.json()
    return made


async def content(client: httpx.AsyncClient, file: dict[str, Any]) -> bytes:
    return (await client.get(file["file_url"])).content


async def test_text_is_uploaded_once_however_often_it_is_tried(actions, client, on_disk) -> None:
    given = {"file": "a,b\n1,2\n", "name": "t.csv", "mime_type": "text/csv"}
    made = await do(actions, "UPLOAD_FILE", visibility="PUBLIC", **given)
    assert (made["file_filename"], made["file_mimetype"]) == ("t.csv", "text/csv")
    assert await content(client, made) == b"a,b\n1,2\n"
    again = await do(actions, "UPLOAD_FILE", **given)
    assert (again["id"], on_disk()) == (made["id"], {made["id"]})
    assert (await do(actions, "UPLOAD_FILE", "other", **given))["id"] != made["id"]


async def test_what_was_deleted_is_not_made_again(actions, client, on_disk) -> None:
    made = await do(actions, "UPLOAD_FILE", file="text")
    await client.delete(f"/apps/c/files/{made['id']}")
    with pytest.raises(StepFailure, match="deleted since"):
        await do(actions, "UPLOAD_FILE", file="text")
    assert not on_disk()


async def test_what_is_uploaded_may_be_anything(actions, client) -> None:
    made = await do(actions, "UPLOAD_FILE", "1", file={"a": 1}, mime_type="application/json")
    assert (made["file_filename"], await content(client, made)) == ("file.json", b'{"a":1}')
    data = "data:text/plain;base64," + base64.b64encode(b"hi").decode()
    made = await do(actions, "UPLOAD_FILE", "2", file=data, name="x.txt")
    assert await content(client, made) == b"hi"
    copy = await do(actions, "UPLOAD_FILE", "3", file=made, storage="TEMPORARY")
    assert copy["id"] != made["id"]
    assert (copy["file_filename"], copy["storage"]) == ("x.txt", "TEMPORARY")


async def test_an_address_is_downloaded(actions, client, origin) -> None:
    origin.gives(b"%PDF-1.7 x")
    made = await do(actions, "DOWNLOAD_FILE", file=origin.url("/a.pdf"))
    assert (made["file_filename"], made["file_mimetype"]) == ("a.pdf", "application/pdf")
    assert (await client.get(f"/apps/c/files/{made['id']}")).status_code == 200


async def test_a_file_is_deleted_once(actions, client) -> None:
    made = await stored(client, "a.txt", b"x")
    done = {"file_id": made["id"], "deleted": True}
    assert await do(actions, "DELETE_FILE", file_id=made["id"]) == done
    assert await do(actions, "DELETE_FILE", file_id=made["id"]) == done  # the same call, again
    with pytest.raises(StepFailure, match="no file of this app"):
        await do(actions, "DELETE_FILE", "other", file_id=made["id"])


@pytest.mark.usefixtures("reading")
async def test_contents_and_images_are_waited_for(actions, client) -> None:
    made = await stored(client, "a.pdf", documents.pdf(*PAGES[:2]))
    found = await do(actions, "EXTRACT_CONTENTS", file=made["id"])
    assert [block["content"] for block in found["document"]["contents"]] == ["page 1", "page 2"]
    found = await do(actions, "EXTRACT_IMAGES", file=made)
    assert [image["page"] for image in found["document"]["images"]] == [1, 2]
    picture = await client.get(found["document"]["images"][0]["image_url"])
    assert picture.headers["content-type"] == "image/jpeg"


@pytest.mark.usefixtures("reading")
async def test_chosen_pages_become_a_file(actions, client) -> None:
    made = await stored(client, "a.pdf", documents.pdf(*PAGES))
    pages = await do(actions, "EXTRACT_PAGES", file=made["id"], pages="4-5, 1", name="part")
    assert pages["file_filename"] == "part.pdf"
    found = await do(actions, "EXTRACT_CONTENTS", file=pages["id"])
    contents = [block["content"] for block in found["document"]["contents"]]
    assert contents == ["page 4", "page 5", "page 1"]


async def test_pages_are_extracted_of_few_copies_at_once(actions, client, monkeypatch) -> None:
    copies: list[Any] = []
    most = 0

    def copy() -> Any:
        nonlocal most
        copies.append(tempfile.TemporaryFile())  # noqa: SIM115  # closed by what is tested
        most = max(most, sum(not copy.closed for copy in copies))
        return copies[-1]

    monkeypatch.setattr(reading, "tempfile", SimpleNamespace(TemporaryFile=copy))
    made = await stored(client, "a.pdf", documents.pdf(*PAGES))
    given = {"file": made["id"], "pages": "1"}
    await asyncio.gather(*[do(actions, "EXTRACT_PAGES", str(n), **given) for n in range(8)])
    assert (len(copies), most) == (8, 2)
    assert all(copy.closed for copy in copies)


@pytest.mark.usefixtures("reading")
async def test_the_reader_reads_what_steps_ask_for(reader, client) -> None:
    made = await stored(client, "a.md", b"# T\n\nsome text")
    other = await stored(client, "b.md", b"more")

    async def read(aspect: Any, file: Any, app_id: str = "app_1") -> Any:
        found = await reader.read(app_id, aspect, file, 2**20, Activity("x", 0))
        return json.decode(json.encode(found))

    assert await read("text", made) == "T\n\nsome text"
    assert await read("text", [made["id"], other["file_url"]]) == ["T\n\nsome text", "more"]
    assert [block["type"] for block in await read("contents", made)] == ["TITLE", "NARRATIVETEXT"]
    assert await read("file", other) == "data:text/markdown;base64,bW9yZQ=="
    assert (await client.get(await read("url", other))).content == b"more"
    with pytest.raises(StepFailure, match="no file of this app"):
        await read("text", made, "app_2")
    damaged = await stored(client, "c.pdf", b"%PDF-1.7 x")
    with pytest.raises(StepFailure, match=r"c\.pdf: The file is damaged"):
        await read("text", damaged)


@pytest.mark.parametrize(
    ("action", "given", "words"),
    [
        ("ZIP", {}, "no action FILES.ZIP"),
        ("UPLOAD_FILE", {}, "file is missing"),
        ("UPLOAD_FILE", {"file": "x", "storage": "CLOUD"}, "storage must be one of"),
        ("DOWNLOAD_FILE", {"file": "ftp://x"}, "http or https"),
        ("DOWNLOAD_FILE", {"file": "http://10.0.0.1/"}, "cannot be downloaded"),
        ("DELETE_FILE", {"file_id": "what"}, "must be the id"),
        ("EXTRACT_PAGES", {"file": "file_1111111111111111111111", "pages": "1"}, "no file"),
        ("EXTRACT_PAGES", {"file": "YQ==", "pages": "1"}, "is no PDF"),
    ],
)
async def test_what_cannot_be_done_says_why(actions, action, given, words: str) -> None:
    with pytest.raises(StepFailure, match=words):
        await do(actions, action, **given)


def test_pages_are_numbers_and_ranges() -> None:
    assert page_numbers("1-3, 5") == (1, 2, 3, 5)
    assert page_numbers("[2]") == (2,)
    for bad in ("", "0", "a", "3-1", "1-", "1-99999", "-1", "1,,2", "１"):
        with pytest.raises(StepFailure, match="pages must be"):
            page_numbers(bad)
