"""What arrives from a client: messages under a deadline, and its going away."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from insula.errors import BadInput
from insula.kit.tasks import cancels

T = TypeVar("T")

STALLED = 60.0
"""Seconds that a client may let pass between two pieces of a body."""
_PATIENCE = 1.0
"""Seconds after which it is watched whether a client who waits is still there."""


async def receive_message(receive: Receive) -> Message:
    """Return the next piece of the body.

    Raises:
        ClientDisconnect: the client went away. Granian says so by cancelling what is awaited, not
            the task that awaits it.
        BadInput: nothing came for a minute.
    """
    try:
        async with asyncio.timeout(STALLED):
            message = await receive()
    except asyncio.CancelledError:
        if cancels():
            raise
        raise ClientDisconnect from None
    except TimeoutError:
        message_text = f"The body stopped arriving: nothing came for {STALLED:g} seconds."
        raise BadInput(message_text) from None
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message


async def until_disconnected(receive: Receive) -> None:
    """Return when the client has gone away; the body must have been read."""
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except asyncio.CancelledError:
        if cancels():
            raise


async def while_present(
    receive: Receive, work: Coroutine[Any, Any, T], patience: float = _PATIENCE
) -> T:
    """Do it, and stop it if the client goes away meanwhile; the body must have been read.

    For some seconds of patience nobody looks: what is done by then needs no watch.

    Raises:
        ClientDisconnect: the client went away, and the work has ended.
    """
    tasks: list[asyncio.Future[Any]] = [doing := asyncio.ensure_future(work)]
    try:
        if patience:
            await asyncio.wait(tasks, timeout=patience)
        if not doing.done():
            tasks.append(asyncio.ensure_future(until_disconnected(receive)))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientDisconnect
        return doing.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
