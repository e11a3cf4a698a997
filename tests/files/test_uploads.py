"""Upload links: one file each, without a key, until they expire."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any, cast

import httpx
import pytest
from sqlalchemy import insert, update
from starlette.requests import ClientDisconnect
from tests.contract import needs_contract, validate

from insula.adapters.blobs.port import Blobs
from insula.errors import NotFound
from insula.files import resolve, uploads
from insula.files.resolve import FileInputs
from insula.files.upload_endpoints import _claimed, _take_in
from insula.files.uploads import find_upload
from insula.kit.clock import now_ms
from insula.storage import tables

BASE = "/apps/c/files/uploads"
NOBODY = {"authorization": ""}


async def link(client: httpx.AsyncClient, **wanted: Any) -> dict[str, Any]:
    answer = await client.post(BASE, json=wanted)
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def send(client: httpx.AsyncClient, made: dict[str, Any], **body: Any) -> httpx.Response:
    body = body or {"json": {"file": {"data": "hello", "encoding": "raw", "name": "a.txt"}}}
    return await client.post(made["upload_url"], headers=NOBODY, **body)


async def test_a_file_comes_through_under_the_promised_id(client) -> None:
    made = await link(client, metadata={"case": 7}, storage="TEMPORARY", visibility="PUBLIC")
    assert made["upload_url"] == f"http://insula/public/apps/files/uploads/{made['id']}"
    assert (made["file"], made["metadata"], made["storage"]) == (None, {"case": 7}, "TEMPORARY")
    assert (await client.get(f"/apps/c/files/{made['future_file_id']}")).status_code == 404
    answer = await send(client, made, files={"file": ("b.txt", b"hi", "text/plain")})
    file = answer.json()
    assert (file["id"], file["file_filename"]) == (made["future_file_id"], "b.txt")
    assert file["storage"] == "TEMPORARY"
    assert "signature" not in file["file_url"]
    shown = (await client.get(f"{BASE}/{made['id']}")).json()
    assert shown["file"]["id"] == file["id"]
    assert (await client.get(f"/apps/c/files/{file['id']}")).json()["file_size"] == 2


@needs_contract
async def test_answers_have_the_contracts_shape(client) -> None:
    made = await link(client, allowed_types=["text/plain"], document_extract_contents=True)
    validate(made, "AppFileUploadSchema")
    validate((await send(client, made)).json(), "AppFileSchema")
    validate((await client.get(f"{BASE}/{made['id']}")).json(), "AppFileUploadSchema")
    for each in (await client.get(BASE)).json():
        validate(each, "AppFileUploadSchema")


async def test_a_link_is_good_for_one_file(client) -> None:
    made = await link(client)
    assert (await send(client, made)).status_code == 200
    again = await send(client, made)
    assert (again.status_code, "has been used" in again.json()["message"]) == (409, True)


async def test_of_two_at_once_one_gets_through(client) -> None:
    made = await link(client)
    answers = await asyncio.gather(*(send(client, made) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]


FORM = {"content-type": "multipart/form-data; boundary=b", **NOBODY}
HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


class Sender:
    """A client that sends the beginning of a form, and goes on when it is told to."""

    def __init__(self, ending: bytes | Exception = b"\r\n--b--\r\n") -> None:
        self.ending = ending
        self.begun, self.goes_on = asyncio.Event(), asyncio.Event()

    async def body(self) -> AsyncIterator[bytes]:
        self.begun.set()
        yield HEAD + b"x" * 100
        await self.goes_on.wait()
        if isinstance(self.ending, Exception):
            raise self.ending
        yield self.ending

    def send(self, client: httpx.AsyncClient, made: dict[str, Any]) -> asyncio.Task[httpx.Response]:
        sending = client.post(made["upload_url"], content=self.body(), headers=FORM)
        return asyncio.create_task(sending)


async def test_no_second_body_is_read_while_one_arrives(client) -> None:
    made = await link(client)
    first = Sender()
    sending = first.send(client, made)
    await first.begun.wait()
    refused = await send(client, made, content=b"read, this were a 400")
    assert (refused.status_code, refused.headers["retry-after"]) == (409, "1")
    first.goes_on.set()
    assert (await sending).json()["file_size"] == 100


async def test_nor_while_one_arrives_at_another_node(client, files: FileInputs) -> None:
    made = await link(client)
    lives = {"token": "node_2", "name": "n", "expires_at": now_ms() + 60_000, "started_at": 1}
    await files.store.database.write(
        lambda connection: connection.execute(insert(tables.nodes).values(lives)) and None
    )
    elsewhere = FileInputs(files.store, files.documents, lambda: "node_2")
    async with _claimed(elsewhere, made["id"]):
        assert (await send(client, made, content=b"read, this were a 400")).status_code == 409
    assert (await send(client, made)).status_code == 200


async def test_of_a_sender_who_is_gone_nothing_is_left(client, on_disk) -> None:
    made = await link(client)
    sender = Sender(ending=ClientDisconnect())
    sender.goes_on.set()
    assert (await sender.send(client, made)).status_code == 400
    assert not on_disk()
    assert (await send(client, made)).status_code == 200


async def test_what_fails_leaves_the_link_open(client, on_disk) -> None:
    made = await link(client, allowed_types=["image/*"])
    refused = await send(client, made)
    assert (refused.status_code, refused.json()["errors"][0]["code"]) == (400, "file_type")
    large = await send(client, made, files={"file": ("b", b"x" * 400_000)})
    assert large.status_code == 413
    assert not on_disk()
    picture = b"\x89PNG\r\n\x1a\n" + bytes(30)
    assert (await send(client, made, files={"file": ("b", picture)})).status_code == 200


async def test_a_form_that_breaks_off_leaves_nothing(client, on_disk) -> None:
    made = await link(client)
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * 1000
    form = {"content-type": "multipart/form-data; boundary=b"}
    answer = await client.post(made["upload_url"], content=body, headers=form)
    assert answer.status_code == 400
    assert not on_disk()
    assert (await send(client, made)).status_code == 200


async def test_it_expires(client, files: FileInputs) -> None:
    made = await link(client, expires_in_seconds=60)
    expired = update(tables.uploads).values(expires_at=1)
    await files.store.database.write(lambda connection: connection.execute(expired) and None)
    answer = await send(client, made)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "expired")
    await files.sweep()
    assert (await client.get(f"{BASE}/{made['id']}")).status_code == 404


async def test_a_claim_of_a_process_that_died_does_not_count(client, files: FileInputs) -> None:
    made = await link(client)
    claimed = update(tables.uploads).values(claim="node_dead")
    await files.store.database.write(lambda connection: connection.execute(claimed) and None)
    assert (await send(client, made)).status_code == 200


class Slow:
    """A storage that does not answer for a while once it has written."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self.written, self.answers = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    async def write(self, *given: Any) -> int:
        size = await self._blobs.write(*given)
        self.written.set()
        await self.answers.wait()
        return size


async def test_who_was_taken_over_leaves_the_others_bytes_alone(
    client, files: FileInputs, on_disk
) -> None:
    made = await link(client)
    row = await files.store.database.read(partial(find_upload, upload_id=made["id"]))
    assert row is not None
    slow = Slow(files.store.blobs)
    store = replace(files.store, blobs=cast(Blobs, slow))
    lapsed = FileInputs(store, files.documents, lambda: "node_lapsed")
    sent = {"data": "from the lapsed one", "encoding": "raw"}

    async def take_in() -> None:
        async with _claimed(lapsed, row.id) as token:
            await _take_in(lapsed, row, sent, "file", token)

    late = asyncio.create_task(take_in())
    await slow.written.wait()
    assert (await send(client, made)).status_code == 200
    slow.answers.set()
    with pytest.raises(NotFound):
        await late
    shown = (await client.get(f"/apps/c/files/{made['future_file_id']}")).json()
    assert (await client.get(shown["file_url"])).content == b"hello"
    assert on_disk() == {made["future_file_id"]}


async def test_whoever_sends_names_no_file_that_is_there(client) -> None:
    file = (await client.post("/apps/c/files", json={"file": "YWJj"})).json()
    made = await link(client)
    plain = file["file_url"].partition("?")[0]
    for given in (
        {"file": {"data": file["id"], "file_id": file["id"], "encoding": "x"}},
        {"file": file["id"]},
        {"file_url": plain},
    ):
        answer = await send(client, made, json=given)
        assert answer.status_code == 400, answer.text
    sent = await send(client, made, json={"file_url": file["file_url"]})
    assert (await client.get(sent.json()["file_url"])).content == b"abc"


async def test_metadata_changes_and_links_go(client) -> None:
    made = await link(client, metadata={"a": 1})
    url = f"{BASE}/{made['id']}"
    assert (await client.patch(url, json={})).json()["metadata"] == {"a": 1}
    assert (await client.patch(url, json={"metadata": {"b": 2}})).json()["metadata"] == {"b": 2}
    assert (await client.patch(url, json={"metadata": None})).json()["metadata"] is None
    assert (await client.delete(url)).json() is None
    assert (await client.delete(url)).status_code == 404
    assert (await send(client, made)).status_code == 404


async def test_another_app_sees_none_of_it(client) -> None:
    made = await link(client)
    theirs = {"authorization": "Bearer theirs"}
    url = f"{BASE}/{made['id']}"
    for method, body in (("GET", None), ("PATCH", {"metadata": {}}), ("DELETE", None)):
        answer = await client.request(method, url, json=body, headers=theirs)
        assert answer.status_code == 404
    assert (await client.get(BASE, headers=theirs)).json() == []


async def test_the_list_goes_on(client) -> None:
    made = [(await link(client))["id"] for _ in range(5)]
    first = await client.get(BASE, params={"take": 2})
    assert [each["id"] for each in first.json()] == made[:2:-1]
    assert first.headers["pagination-count"] == "5"
    more = await client.get(BASE, params={"take": 2, "next": first.headers["pagination-next"]})
    assert [each["id"] for each in more.json()] == made[2:0:-1]


@pytest.mark.parametrize(
    "wanted",
    [
        {"expires_in_seconds": 0},
        {"expires_in_seconds": 1e9},
        {"document_pages": [0]},
        {"visibility": "SECRET"},
        {"allowed_types": ["x"] * 101},
    ],
)
async def test_bad_links_name_their_field(client, wanted: dict[str, Any]) -> None:
    answer = await client.post(BASE, json=wanted)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] == [*wanted]


async def test_what_a_link_carries_is_bounded(client) -> None:
    made = await link(client, metadata={"a": 1})
    large = {"metadata": {"a": "x" * 70_000}}
    assert (await client.post(BASE, json=large)).status_code == 413
    assert (await client.patch(f"{BASE}/{made['id']}", json=large)).status_code == 413
    assert (await client.get(f"{BASE}/{made['id']}")).json()["metadata"] == {"a": 1}
    for path, body in ((BASE, {}), ("/apps/c/files", {"file": "YQ=="})):
        answer = await client.post(path, json={"allowed_types": ["pdf", "x" * 201], **body})
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["path"] == ["allowed_types", "1"]


async def test_the_same_key_makes_one_link(client) -> None:
    headers = {"idempotency-key": "k"}
    first = await client.post(BASE, json={}, headers=headers)
    assert (await client.post(BASE, json={}, headers=headers)).json()["id"] == first.json()["id"]


async def test_all_links_that_expired_long_ago_are_removed(
    client, files: FileInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "_LINKS_AT_ONCE", 2)
    for _ in range(5):
        await link(client)
    kept = await link(client, expires_in_seconds=30 * 24 * 3600)
    later = now_ms() + uploads.KEPT_MS + 2 * 24 * 3600 * 1000
    monkeypatch.setattr(resolve, "now_ms", lambda: later)
    await files.sweep()
    assert [each["id"] for each in (await client.get(BASE)).json()] == [kept["id"]]
