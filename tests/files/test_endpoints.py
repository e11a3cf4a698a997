"""The files' routes: what clients see, and what strangers do not."""

import base64
import json

import httpx
import pytest
from tests.contract import needs_contract, validate

from insula.files import repository

PDF = b"%PDF-1.7\n tail"


async def _make(client: httpx.AsyncClient, **changes: object) -> dict[str, object]:
    body = {"file": base64.b64encode(PDF).decode(), **changes}
    answer = await client.post("/apps/c/files", json=body)
    assert answer.status_code == 200, answer.text
    made: dict[str, object] = answer.json()
    return made


@needs_contract
async def test_answers_have_the_contracts_shape(client) -> None:
    made = await _make(client)
    validate(made, "AppFileSchema")
    shown = (await client.get(f"/apps/c/files/{made['id']}")).json()
    validate(shown, "AppFileSchema")
    for each in (await client.get("/apps/app_1/files")).json():
        validate(each, "AppFileSchema")


async def test_a_form_part_is_stored_under_its_name(client) -> None:
    files = {"file": ("a b.pdf", PDF, "text/plain")}
    answer = await client.post("/apps/c/files", files=files, data={"allowed_types": '["pdf"]'})
    made = answer.json()
    assert (made["file_filename"], made["file_mimetype"]) == ("a b.pdf", "application/pdf")


@pytest.mark.parametrize("form", [False, True])
async def test_an_object_and_an_address(client, origin, form: bool) -> None:
    origin.gives(PDF)
    data = {"data": "hi", "encoding": "raw", "name": "h.txt"}
    for body in ({"file": data}, {"file_url": origin.url("/d.pdf")}):
        if form:
            texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in body.items()}
            answer = await client.post(
                "/apps/c/files", files={k: (None, v) for k, v in texts.items()}
            )
        else:
            answer = await client.post("/apps/c/files", json=body)
        assert answer.json()["file_filename"] in ("h.txt", "d.pdf"), answer.text


async def test_the_bytes_are_fetched_by_the_signed_address(client) -> None:
    made = await _make(client, file={"data": "a b", "encoding": "raw", "name": 'ä";\r\n.html'})
    answer = await client.get(str(made["file_url"]), headers={"authorization": ""})
    assert (answer.status_code, answer.text) == (200, "a b")
    headers = answer.headers
    assert headers["content-length"] == "3"
    assert headers["content-type"].startswith("text/plain")
    assert (
        headers["content-disposition"]
        == "inline; filename=\"___.html\"; filename*=UTF-8''%C3%A4%22%3B.html"
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("body", "charset"),
    [
        ("Grüße".encode("cp1252"), None),
        ("Grüße".encode("utf-16"), None),
        ("Hello".encode("utf-16-le"), None),
        ("Grüße".encode(), "utf-8"),
        (b"Hello", "utf-8"),
        (b"x" * 250_000 + "ü".encode("cp1252"), None),
        ("ü".encode() * 120_000, "utf-8"),
    ],
)
async def test_an_encoding_is_named_where_it_is_known(
    client, body: bytes, charset: str | None
) -> None:
    files = {"file": ("a.csv", body, "text/csv")}
    made = (await client.post("/apps/c/files", files=files)).json()
    answer = await client.get(made["file_url"])
    assert answer.content == body
    named = made["file_mimetype"] + ("" if charset is None else f"; charset={charset}")
    assert answer.headers["content-type"] == named
    if charset is not None:
        assert made["file_mimetype"] == "text/csv"


@pytest.mark.parametrize("text", ["<html><script>", "<svg onload=x>"])
async def test_what_a_browser_could_run_is_only_saved(client, text: str) -> None:
    made = await _make(client, file={"data": text, "encoding": "raw", "name": "x.png"})
    answer = await client.get(str(made["file_url"]))
    assert answer.headers["content-disposition"].startswith("attachment;")


async def test_a_large_file_streams_whole(client) -> None:
    data = bytes(range(256)) * 1100
    made = (await client.post("/apps/c/files", files={"file": ("x", data)})).json()
    assert (await client.get(made["file_url"])).content == data


async def test_an_altered_or_missing_signature(client) -> None:
    made = await _make(client)
    plain, _, query = str(made["file_url"]).partition("?")
    assert (await client.get(plain)).status_code == 404
    assert (await client.get(plain + "?expires=1&signature=x")).status_code == 403
    assert (await client.get(plain + "?" + query[:-1])).status_code == 403
    assert (await client.get(plain.replace("file_", "file_x") + "?" + query)).status_code == 403


async def test_a_public_file_needs_no_signature(client) -> None:
    made = await _make(client, visibility="PUBLIC")
    assert "?" not in str(made["file_url"])
    answer = await client.get(str(made["file_url"]), headers={"authorization": ""})
    assert (answer.content, answer.headers["cache-control"]) == (PDF, "public, max-age=300")


async def test_deleting(client, on_disk) -> None:
    made = await _make(client)
    answer = await client.delete(f"/apps/c/files/{made['id']}")
    assert (answer.status_code, answer.text) == (200, "null")
    assert on_disk() == set()
    for path in (f"/apps/c/files/{made['id']}", str(made["file_url"])):
        assert (await client.get(path)).status_code == 404
    assert (await client.delete(f"/apps/c/files/{made['id']}")).status_code == 404


async def test_bytes_that_are_gone_are_a_404(client, store) -> None:
    made = await _make(client)
    await store.blobs.delete(str(made["id"]))
    assert (await client.get(str(made["file_url"]))).status_code == 404


async def test_strangers_see_nothing(client) -> None:
    made = await _make(client)
    theirs = {"authorization": "Bearer theirs"}
    absent = await client.get("/apps/c/files/file_none", headers=theirs)
    answers = [
        await client.get(f"/apps/c/files/{made['id']}", headers=theirs),
        await client.get(f"/apps/app_1/files/{made['id']}", headers=theirs),
        await client.delete(f"/apps/c/files/{made['id']}", headers=theirs),
    ]
    assert {(a.status_code, a.text) for a in [absent, *answers]} == {(404, absent.text)}
    assert (await client.get("/apps/c/files", headers=theirs)).json() == []
    none = {"authorization": ""}
    assert (await client.get("/apps/c/files", headers=none)).status_code == 401
    reads = {"authorization": "Bearer reads"}
    assert (await client.get("/apps/c/files", headers=reads)).status_code == 200
    refused = await client.post("/apps/c/files", json={"file": "YQ=="}, headers=reads)
    assert refused.status_code == 403


async def test_lists_by_page_and_by_cursor(client, monkeypatch) -> None:
    made = [(await _make(client))["id"] for _ in range(5)][::-1]
    pages = [
        [f["id"] for f in (await client.get(f"/apps/c/files?take=2&page={n}")).json()]
        for n in (1, 2, 3, 4)
    ]
    assert pages == [made[:2], made[2:4], made[4:], []]
    seen: list[str] = []
    path = "/apps/c/files?take=2"
    while path:
        answer = await client.get(path)
        assert answer.headers["pagination-count"] == "5"
        seen += [file["id"] for file in answer.json()]
        following = answer.headers.get("pagination-next")
        path = f"/apps/c/files?take=2&next={following}" if following else ""
    assert seen == made
    monkeypatch.setattr(repository, "COUNTED", 3)
    capped = await client.get("/apps/c/files")
    assert (capped.headers["pagination-count"], capped.headers["pagination-capped"]) == (
        "3",
        "true",
    )


async def test_the_same_key_makes_one_file(client, on_disk) -> None:
    headers = {"idempotency-key": "k"}
    body = {"file": "YQ=="}
    first = await client.post("/apps/c/files", json=body, headers=headers)
    second = await client.post("/apps/c/files", json=body, headers=headers)
    assert first.json()["id"] == second.json()["id"]
    assert len(on_disk()) == 1
    other = await client.post("/apps/c/files", json={"file": "Yg=="}, headers=headers)
    assert other.status_code == 422


async def test_the_same_key_downloads_once(client, origin, on_disk) -> None:
    headers, body = {"idempotency-key": "k"}, {"file_url": origin.url("/d.pdf")}
    origin.gives(PDF)
    first = (await client.post("/apps/c/files", json=body, headers=headers)).json()
    origin.gives(b"gone", status="404 Not Found")
    second = await client.post("/apps/c/files", json=body, headers=headers)
    assert second.status_code == 200
    signed = ("file_url", "file_url_expires_at")  # anew each time
    shown = [{k: v for k, v in each.items() if k not in signed} for each in (first, second.json())]
    assert shown[0] == shown[1]
    assert (len(origin.requests), len(on_disk())) == (1, 1)
    other = {"file_url": origin.url("/e.pdf")}
    assert (await client.post("/apps/c/files", json=other, headers=headers)).status_code == 422


async def test_the_same_key_makes_no_other_file_once_that_is_deleted(client, on_disk) -> None:
    headers = {"idempotency-key": "k"}
    made = (await client.post("/apps/c/files", json={"file": "YQ=="}, headers=headers)).json()
    assert (await client.delete(f"/apps/c/files/{made['id']}")).status_code == 200
    again = await client.post("/apps/c/files", json={"file": "YQ=="}, headers=headers)
    assert again.status_code == 404
    assert made["id"] in again.json()["message"]
    assert (await client.get("/apps/c/files")).json() == []
    assert not on_disk()


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "file"),
        ({"file": "YQ==", "file_url": "http://x/"}, "file"),
        ({"file": "!"}, "file"),
        ({"file": 3}, "file"),
        ({"file_url": "ftp://x/"}, "file_url"),
        ({"file_url": "YQ=="}, "file_url"),
        ({"file_url": "http://10.0.0.1/"}, "file_url"),
        ({"file": "YQ==", "allowed_types": ["image/*"]}, "file"),
        ({"file": "YQ==", "storage": "FOREVER"}, "storage"),
        ({"file": "YQ==", "document_pages": [0]}, "document_pages"),
        ({"file": "YQ==", "document_pages": [1.5]}, "document_pages"),
        ({"file": "YQ==", "document_max_pages": 0}, "document_max_pages"),
    ],
)
async def test_bad_input_names_its_field(client, on_disk, body: object, named: str) -> None:
    answer = await client.post("/apps/c/files", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"][0]["path"][0] == named
    assert on_disk() == set()


async def test_over_the_limit(client) -> None:
    answer = await client.post("/apps/c/files", files={"file": ("x", b"x" * 300_001)})
    assert answer.status_code == 413
    body = {"file": base64.b64encode(b"x" * 300_001).decode()}
    assert (await client.post("/apps/c/files", json=body)).status_code == 413
