"""Events that were recorded and are not yet on their way: each is encoded and checked when it comes
in, and neighbouring pieces of one answer become one event.
"""

import asyncio

import msgspec

from insula.engine.events import Chunk, Event
from insula.engine.failures import StepFailure

EVENT_MAX = 64 * 1024 * 1024

_encoder = msgspec.json.Encoder()


class Pending:
    """What the next batch of one run will hold, and who waits for it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.parts: list[bytes] = []
        """The events, encoded one by one."""
        self.size = 0
        self.waiting: list[asyncio.Future[None]] = []
        self._chunk: Chunk | None = None
        self._texts: list[str] = []
        self._chunk_size = 0

    def add(self, event: Event) -> None:
        """Append an event.

        Raises:
            StepFailure: it is over 64 MiB (``limit_output``), or a text in it is not Unicode.
        """
        part = encode(event)
        if type(event) is Chunk:
            if self._continues(event, len(part)):
                self._texts.append(event.text)
                self._chunk_size += len(part)
                return
            self.close()
            self._chunk, self._texts, self._chunk_size = event, [event.text], len(part)
        else:
            self.close()
        self._append(event, part)

    def close(self) -> None:
        """Let nothing more be merged into what is there."""
        if self._chunk is not None and len(self._texts) > 1:
            merged = msgspec.structs.replace(self._chunk, text="".join(self._texts))
            self._pop()
            self._append(merged, _encoder.encode(merged))
        self._chunk = None
        self._texts = []

    def withdraw_last(self) -> None:
        """Take back the event that was added last."""
        self.close()
        self._pop()

    def encoded(self) -> bytes:
        """Return all as one JSON array, after ``close``."""
        return b"[" + b",".join(self.parts) + b"]"

    def resolve(self, error: BaseException | None = None) -> None:
        """Wake everyone who waits."""
        for future in self.waiting:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
        self.waiting.clear()

    def _continues(self, event: Chunk, size: int) -> bool:
        last = self._chunk
        return (
            last is not None
            and last.key == event.key
            and last.index == event.index
            and last.model == event.model
            and last.provider == event.provider
            and self._chunk_size + size <= EVENT_MAX
        )

    def _append(self, event: Event, part: bytes) -> None:
        self.events.append(event)
        self.parts.append(part)
        self.size += len(part)

    def _pop(self) -> None:
        self.events.pop()
        self.size -= len(self.parts.pop())


def encode(event: Event) -> bytes:
    """Encode one event.

    Raises:
        StepFailure: it is over 64 MiB (``limit_output``), or a text in it is not Unicode.
    """
    try:
        part = _encoder.encode(event)
    except UnicodeEncodeError:
        raise StepFailure(
            "A text holds half of a surrogate pair, which is no character.", "script"
        ) from None
    if len(part) > EVENT_MAX:
        raise StepFailure(
            f"What one event carries is limited to {EVENT_MAX // 2**20} MiB.", "limit_output"
        )
    return part
