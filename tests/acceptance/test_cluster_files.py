"""Two servers on one database and one bucket: documents that one reads, and the other ends."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from moto.server import ThreadedMotoServer

from tests.acceptance.harness import Caller, Served, clients
from tests.adapters.extraction import documents
from tests.adapters.extraction.readings import children
from tests.postgres import PostgresServer, postgres_server

__all__ = ["postgres_server"]

ADMIN = "insadm_" + "f" * 40
PAGES = 80
PAGE = [(50.0, 800.0, 20.0, "Report")]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of a bucket, which answers requests without signatures, too."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}/shared"
    assert httpx.put(url).status_code == 200
    yield url
    server.stop()


@pytest.fixture
async def callers(
    tmp_path: Path, postgres_server: PostgresServer, bucket: str
) -> AsyncIterator[list[Caller]]:
    """One app, at each of two servers."""
    endpoint, _, name = bucket.rpartition("/")
    url = postgres_server.create()
    settings = {
        "INSULA_DATABASE_URL": url,
        "INSULA_ADMIN_KEY": ADMIN,
        "INSULA_BLOBS_URL": f"s3://{name}?endpoint={endpoint}",
        "INSULA_BLOBS_ACCESS_KEY": "key",
        "INSULA_BLOBS_SECRET_KEY": "secret",
        "INSULA_DRAIN_SECONDS": "1",
    }
    async with AsyncExitStack() as stack:
        stack.callback(postgres_server.drop, url)
        opened = []
        for number in range(2):
            server = Served(tmp_path / f"node{number}", settings)
            stack.callback(server.stop)
            opened.append(await stack.enter_async_context(clients(server.start())))
        admin = Caller(opened[0].session, opened[0].served, "", ADMIN)
        made = await admin.ok("POST", "/apps", {"name": "Acme"})
        yield [Caller(each.session, each.served, made["id"], made["key"]) for each in opened]


def readers(served: Served) -> list[int]:
    """The processes under a server that read documents: those below its zygote."""
    zygotes = [pid for pid in children(served.pid) if _is_zygote(pid)]
    return [reader for zygote in zygotes for reader in children(zygote)]


def _is_zygote(pid: int) -> bool:
    try:
        return b"extraction.zygote" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


async def begun(callers: list[Caller], pages: int = 900) -> tuple[str, Caller, Caller]:
    """Have a long document read; return its id, the node that reads it, and the other."""
    form = aiohttp.FormData()
    data = documents.pdf(*[PAGE] * pages)
    form.add_field("file", io.BytesIO(data), filename="a.pdf")
    form.add_field("document_extract_images", "true")
    first = callers[0]
    headers = {"authorization": f"Bearer {first.key}"}
    url = f"{first.served.url}/apps/c/files"
    async with first.session.post(url, data=form, headers=headers) as answer:
        made = await answer.json()
    async with asyncio.timeout(30):
        while not (reads := [each for each in callers if readers(each.served)]):  # noqa: ASYNC110  # others claim it
            await asyncio.sleep(0.01)
    (here,) = reads
    (there,) = [each for each in callers if each is not here]
    return made["id"], here, there


async def stored(caller: Caller, bucket: str) -> tuple[int, int]:
    """How many objects the bucket holds, and uploads that were only begun."""
    async with caller.session.get(bucket, params={"list-type": "2"}) as answer:
        objects = (await answer.text()).count("<Key>")
    async with caller.session.get(f"{bucket}?uploads") as answer:
        return objects, (await answer.text()).count("<UploadId>")


async def ended(caller: Caller, file_id: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            shown: dict[str, Any] = await caller.ok("GET", f"files/{file_id}")
            if shown["file_status"] != "PROCESSING":
                return shown
            await asyncio.sleep(0.05)  # what a client does


async def test_documents_at_several_nodes(callers: list[Caller], bucket: str) -> None:
    file_id, here, there = await begun(callers)
    shown = await there.ok("POST", f"files/{file_id}/cancel")
    assert (readers(here.served), shown["file_status"]) == ([], "FAILED")
    assert await stored(there, bucket) == (1, 0)
    assert await there.ok("DELETE", f"files/{file_id}") is None

    file_id, here, there = await begun(callers)
    assert await there.ok("DELETE", f"files/{file_id}") is None
    assert readers(here.served) == []
    assert await stored(there, bucket) == (0, 0)

    file_id, here, there = await begun(callers, PAGES)
    here.served.kill()
    shown = await ended(there, file_id)
    assert shown["file_status"] == "PROCESSED", shown
    assert [image["page"] for image in shown["document"]["images"]] == list(range(1, PAGES + 1))
    objects, _ = await stored(there, bucket)
    assert objects in (PAGES + 1, PAGES + 2)  # one was about to be told of; the sweep takes it
