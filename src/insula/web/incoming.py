"""What arrives from a client: messages under a deadline, and its going away."""

import asyncio

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from insula.errors import BadInput

STALLED = 60.0
"""Seconds that a client may let pass between two pieces of a body."""


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
        if _cancelled():
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
        if _cancelled():
            raise


def _cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
