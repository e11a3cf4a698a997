"""Byte for byte what clients get of files in each state, and of upload links."""

import asyncio
from typing import Any

from tests.adapters.extraction import documents
from tests.compat.golden import compare
from tests.runs.platform import Platform

LETTER = [(50.0, 800.0, 20.0, "Report"), (50.0, 770.0, 11.0, "All is well.")]
HELLO = {"name": "a.txt", "data": "aGVsbG8=", "type": "text/plain"}


async def read(platform: Platform, path: str) -> bytes:
    """Ask until the file has been read; return the answer."""
    async with asyncio.timeout(30):
        while True:
            answer = await platform.acme.ask("GET", path)
            if b'"PROCESSING"' not in answer.content:
                return answer.content
            await asyncio.sleep(0.02)  # as a client does


async def post(platform: Platform, name: str, data: bytes, **wished: str) -> Any:
    headers = {"authorization": f"Bearer {platform.acme.key}"}
    answer = await platform.client.post(
        "/apps/c/files", files={"file": (name, data)}, data=wished, headers=headers
    )
    assert answer.status_code == 200, answer.text
    return answer


async def test_a_file_that_is_only_kept(platform: Platform) -> None:
    made = await platform.acme.ask("POST", "/files", {"file": HELLO})
    compare("file.json", made.content)
    public = {"file": HELLO, "visibility": "PUBLIC", "storage": "TEMPORARY"}
    compare("file_public.json", (await platform.acme.ask("POST", "/files", public)).content)
    compare("file_list.json", (await platform.acme.ask("GET", "/files")).content)


async def test_a_file_that_is_read(platform: Platform) -> None:
    wished = {
        "document_extract_contents": "true",
        "document_extract_images": "true",
        "document_extract_pages": "true",
        "document_pages": "[2]",
    }
    made = await post(platform, "a.pdf", documents.pdf(LETTER, LETTER), **wished)
    compare("file_processing.json", made.content)
    compare("file_processed.json", await read(platform, f"/files/{made.json()['id']}"))


async def test_files_that_cannot_be_read(platform: Platform) -> None:
    wished = {"document_extract_contents": "true"}
    broken = (await post(platform, "a.pdf", b"%PDF-1.4\nnothing", **wished)).json()["id"]
    compare("file_failed.json", await read(platform, f"/files/{broken}"))
    odd = (await post(platform, "a.bin", b"\x00\x01\x02", **wished)).json()["id"]
    compare("file_unknown_type.json", await read(platform, f"/files/{odd}"))


async def test_upload_links(platform: Platform) -> None:
    link = {
        "allowed_types": ["text/plain"],
        "expires_in_seconds": 60,
        "metadata": {"case": 1},
        "visibility": "PUBLIC",
        "document_extract_contents": True,
        "document_pages": [1],
    }
    made = await platform.acme.ask("POST", "/files/uploads", link)
    compare("upload.json", made.content)
    of = made.json()["id"]
    sent = await platform.client.post(f"/public/apps/files/uploads/{of}", json={"file": HELLO})
    compare("upload_file.json", sent.content)
    compare("upload_used.json", await read(platform, f"/files/uploads/{of}"))
    again = await platform.client.post(f"/public/apps/files/uploads/{of}", json={"file": HELLO})
    compare("upload_used_already.json", again.content)
