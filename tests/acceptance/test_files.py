"""Files through a real server: from a link into a run, and through readers back out."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.acceptance.conftest import SOAK, Serve
from tests.acceptance.harness import Caller, Clients, Served, clients, shaped
from tests.adapters.extraction import documents, hostile

PAGES = [[(50.0, 800.0, 20.0, f"Part {n}"), (50.0, 770.0, 11.0, f"words {n}")] for n in (1, 2, 3)]
FIELD = {"type": "file", "extract_contents": True, "allowed_types": ["application/pdf"]}
STEPS: list[dict[str, Any]] = [
    {"type": "input", "key": "IN", "input": {"doc": FIELD}, "destinations": ["PART", "ASK"]},
    {
        "type": "service",
        "key": "PART",
        "service": {
            "type": "FILES",
            "action": "EXTRACT_PAGES",
            "input": {"file": "{{input.doc}}", "pages": "2-3", "storage": "TEMPORARY"},
        },
        "destinations": ["READ"],
    },
    {
        "type": "model",
        "key": "ASK",
        "provider": {
            "provider": "mock",
            "model": "m",
            "messages": [
                {"role": "user", "content": "{{input.doc:contents}} {{input.doc:images}}"}
            ],
            "mock": {"replies": [{"text": "seen"}]},
        },
        "destinations": [],
    },
    {
        "type": "code",
        "key": "READ",
        "code": """
            const [whole, part] = await Promise.all([
                util.getFileContents(input.doc), util.getFileText(PART.output)]);
            return {titles: whole.filter((b) => b.type === "TITLE").map((b) => b.content), part};
        """,
        "destinations": [],
    },
]


@pytest.fixture
async def callers(served: Served) -> AsyncIterator[Clients]:
    async with clients(served) as opened:
        yield opened


async def _send(caller: Caller, link: dict[str, Any], data: bytes) -> dict[str, Any]:
    form = aiohttp.FormData()
    form.add_field("file", data, filename="report.pdf", content_type="text/plain")
    async with caller.session.post(link["upload_url"], data=form) as answer:
        made: dict[str, Any] = await answer.json()
        assert answer.status == 200, made
        return made


async def test_a_promised_file_is_an_input(callers: Clients) -> None:
    caller = await callers.app("Acme")
    workflow_id = await caller.push(STEPS)
    link = await caller.ok("POST", "files/uploads", {"allowed_types": [".pdf"]})
    shaped(link, "AppFileUploadSchema")
    path, given = f"workflows/{workflow_id}/runs", {"input": {"doc": link["future_file_id"]}}
    early = await caller.ask("POST", path, given)
    assert early.status == 400
    assert early.json()["errors"][0]["code"] == "not_uploaded"
    shaped(await _send(caller, link, documents.pdf(*PAGES)), "AppFileSchema")
    for named in (link["future_file_id"], link["id"], {"future_file_id": link["future_file_id"]}):
        run = await caller.ok("POST", path, {"input": {"doc": named}})
        assert run["status"] == "COMPLETED", run["error"]
        assert run["result"]["titles"] == ["Part 1", "Part 2", "Part 3"]
        assert run["result"]["part"] == "Part 2\n\nwords 2\n\nPart 3\n\nwords 3"
        assert run["output"]["ASK"]["output"]["message"] == "seen"


async def test_a_cancel_ends_a_step_that_waits_for_a_document(callers: Clients) -> None:
    caller = await callers.app("Acme")
    waits = {"type": "code", "key": "C", "code": "await util.getFileImages(input.doc)"}
    workflow_id = await caller.push([waits])
    form = aiohttp.FormData()
    form.add_field("file", documents.pdf(*PAGES * 200), filename="a.pdf")
    headers = {"authorization": f"Bearer {caller.key}"}
    url = f"{callers.served.url}/apps/c/files"
    async with caller.session.post(url, data=form, headers=headers) as answer:
        file = await answer.json()
    path = f"workflows/{workflow_id}/runs"
    run = await caller.ok("POST", path, {"input": {"doc": file["id"]}, "background": True})
    async with asyncio.timeout(30):
        while "file_status" not in await caller.ok("GET", f"files/{file['id']}"):  # noqa: ASYNC110  # it is begun in the background
            await asyncio.sleep(0.02)
    ended = await caller.ok("POST", f"{path}/{run['id']}/cancel")
    assert ended["status"] == "CANCELLED"
    stopped = await caller.ok("POST", f"files/{file['id']}/cancel")
    assert stopped["file_status"] == "FAILED"


async def test_reading_goes_on_after_a_kill(serve: Serve) -> None:
    server = serve()
    async with clients(server) as callers:
        caller = await callers.app("Acme")
        form = aiohttp.FormData()
        form.add_field("file", documents.pdf(*PAGES * 20), filename="a.pdf")
        form.add_field("document_extract_images", "true")
        headers = {"authorization": f"Bearer {caller.key}"}
        async with caller.session.post(
            f"{server.url}/apps/c/files", data=form, headers=headers
        ) as answer:
            file = await answer.json()
    server.kill()
    server.start()
    async with clients(server) as callers:
        again = Caller(callers.session, server, caller.app_id, caller.key)
        async with asyncio.timeout(60):
            while True:
                shown = await again.ok("GET", f"files/{file['id']}")
                if shown["file_status"] != "PROCESSING":
                    break
                await asyncio.sleep(0.05)  # what a client does
    assert shown["file_status"] == "PROCESSED"
    assert [image["page"] for image in shown["document"]["images"]] == list(range(1, 61))


HOSTILE: dict[str, Callable[[], bytes]] = {
    "bomb.docx": lambda: documents.zip_bomb(80 * 2**20),
    "lies.docx": lambda: hostile.lying(documents.word(), "word/document.xml", 160 * 2**20),
    "laughs.xlsx": lambda: hostile.sheet_with(hostile.laughs()),
    "laughs.pptx": lambda: hostile.slides_with(hostile.laughs()),
    "grows.pdf": lambda: documents.pdf_bomb(200 * 2**20),
    "pages.pdf": lambda: documents.pdf(*PAGES[:1] * 1_500),
    "wide.png": lambda: hostile.png(100_000, 100_000),
    "broken.pdf": lambda: b"%PDF-1.7 and nothing",
    "commas.csv": lambda: b"a,b\n" + b"," * (40 * 2**20),
    "../../x\u202efdp.exe": lambda: b"MZ" + bytes(100),
}


async def test_live_runs_do_not_feel_hostile_documents(serve: Serve) -> None:
    server = serve(INSULA_EXTRACT_MEMORY=str(128 * 2**20))
    async with clients(server) as callers:
        caller = await callers.app("Acme")
        await _read_beside_runs(caller, {name: make() for name, make in HOSTILE.items()})
    assert "Traceback" not in server.log


async def _read_beside_runs(caller: Caller, made: dict[str, bytes]) -> None:
    workflow_id = await caller.push([{"type": "code", "key": "C", "code": "return 1"}])
    headers = {"authorization": f"Bearer {caller.key}"}
    url = f"{caller.served.url}/apps/c/files"

    async def read(name: str, data: bytes) -> tuple[str, dict[str, Any]]:
        form = aiohttp.FormData()
        form.add_field("file", io.BytesIO(data), filename=name)
        form.add_field("document_extract_contents", "true")
        form.add_field("document_extract_images", "true")
        async with caller.session.post(url, data=form, headers=headers) as answer:
            file = await answer.json()
        while (shown := await caller.ok("GET", f"files/{file['id']}"))["file_status"] == (  # noqa: ASYNC110  # what a client does
            "PROCESSING"
        ):
            await asyncio.sleep(0.05)
        return name, shown

    async with asyncio.timeout(90), asyncio.TaskGroup() as group:
        reading = [group.create_task(read(name, data)) for name, data in made.items()]
        while not all(task.done() for task in reading):
            run = await caller.ok("POST", f"workflows/{workflow_id}/runs", {})
            assert (run["status"], run["result"]) == ("COMPLETED", 1)
    for name, shown in map(asyncio.Task.result, reading):
        assert shown["file_status"] == "FAILED", name
        assert shown["file_status_message"], name
        assert "/" not in shown["file_filename"], name


async def test_a_large_form_takes_no_memory(serve: Serve) -> None:
    """The long form of this sends 2 GiB: ``INSULA_SOAK=1``."""
    size = 2 * 2**30 if SOAK else 96 * 2**20
    server = serve(INSULA_FILE_MAX=str(size))
    piece = bytes(2**20)

    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(size // len(piece)):
            yield piece
        yield b"\r\n--b--\r\n"

    async with clients(server) as callers:
        caller = await callers.app("Acme")
        await caller.ok("POST", "files", {"file": "YQ=="})
        before = _resident(server.pid)
        headers = {
            "authorization": f"Bearer {caller.key}",
            "content-type": "multipart/form-data; boundary=b",
        }
        url = f"{server.url}/apps/c/files"
        async with caller.session.post(url, data=body(), headers=headers) as answer:
            made = await answer.json()
        assert answer.status == 200, made
        assert made["file_size"] == size
        assert _resident(server.pid) - before < 40 * 2**20


def _resident(pid: int) -> int:
    """The most memory that a process has ever held, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
