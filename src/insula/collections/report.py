"""A record's report as a PDF document; drawn away from the event loop, one at a time."""

import asyncio
import re

import structlog

from insula.collections.reading import record_bytes
from insula.collections.services import RecordServices
from insula.kit import json

_log = structlog.get_logger(__name__)


async def report(
    services: RecordServices, app_id: str, collection_id: str, record_id: str
) -> tuple[str, bytes]:
    """Return a file name and the document.

    Raises:
        NotFound: there is no such record.
    """
    text = await record_bytes(services, app_id, collection_id, record_id)
    async with services.drawing:
        return await asyncio.to_thread(drawn, text)


def drawn(text: bytes) -> tuple[str, bytes]:
    """Draw the report of a record in the shape of ``RecordSchema``; return its file's name, too."""
    from insula.collections.report_pages import draw  # it is large, and few ask for reports

    record = json.decode(text)
    name = record["name"] or record["id"]
    filename = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:80] or record["id"]
    try:
        return f"{filename}.pdf", draw(record)
    except Exception:  # a block that no page takes must not keep the verdicts from being told
        _log.exception("report.blocks_left_out", record_id=record["id"])
        return f"{filename}.pdf", draw(record, blocks=False)
