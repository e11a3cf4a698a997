"""What ``insula doctor`` finds of what carries messages between nodes."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import structlog

from insula.jobs.transport import open_transport
from insula.settings import Settings

_ANSWERS_WITHIN = 4.0
_LOOKED_EVERY = 0.02
_NAME = "doctor"


async def look_at_cluster(settings: Settings) -> tuple[Literal["ok", "warning", "failed"], str]:
    """Return a verdict and its words; nothing is stored, and no node is told anything.

    What is away is worth a thought and in nobody's way: a node starts without it.
    """
    url = settings.carrier_url
    if url is None:
        return "ok", (
            "nothing carries messages between nodes: where there are several, "
            "INSULA_CLUSTER_URL=database makes cancels at others quicker"
        )
    try:
        with _quiet():
            return await _connect(url.get_secret_value())
    except ValueError as error:
        return "failed", f"INSULA_CLUSTER_URL: {error}"


async def _connect(url: str) -> tuple[Literal["ok", "warning"], str]:
    async with open_transport(url, _NAME) as transport:
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN):
                while not transport.signals.connected:  # noqa: ASYNC110  # nothing tells
                    await asyncio.sleep(_LOOKED_EVERY)
        except TimeoutError:
            return "warning", f"{transport.carrier}: {transport.signals.trouble}"
        return "ok", f"{transport.carrier} carries messages between nodes"


@contextmanager
def _quiet() -> Iterator[None]:
    """Log nothing: what would be said is in the finding, and the log goes where it is shown."""
    configured, before = structlog.is_configured(), structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        if configured:
            structlog.configure(**before)
        else:
            structlog.reset_defaults()
