"""What the server and a worker say to each other: length-prefixed frames over one socket.

A frame is a length (4 bytes, little-endian, of what follows), a kind (1 byte) and a MessagePack
body. The server believes nothing that a worker sends: types and sizes are checked on arrival.
"""

import os
import struct
from enum import IntEnum
from typing import Annotated, Literal

import msgspec

HEADER = struct.Struct("<IB")
OVERHEAD = 64 * 1024
"""Bytes that a frame may have beyond the outputs, logs and bodies whose limits are its own."""

Name = Annotated[str, msgspec.Meta(max_length=4_000)]


class Kind(IntEnum):
    """What a frame is."""

    RUN = 1
    ANSWERS = 2
    READY = 3
    RESULT = 4
    FAILED = 5
    REQUESTS = 6
    PROBED = 7


class Run(msgspec.Struct, array_like=True):
    """An evaluation. ``texts`` are the JSON texts of ``names``; sizes are in bytes."""

    scripts: tuple[str, ...]
    names: tuple[str, ...]
    texts: list[bytes]
    absent: tuple[str, ...]
    waits: bool
    memory: int
    output: int
    logs: int
    asked: str = "value"


class Answer(msgspec.Struct, array_like=True):
    """The answer to one request; ``error`` rejects its promise."""

    id: int
    error: str = ""
    status: int = 0
    url: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    value: bool = False
    """The body is JSON text of what the promise yields."""


class Ready(msgspec.Struct, array_like=True):
    """A worker behind its walls. ``missing`` says which could not be raised, and why."""

    missing: list[tuple[Name, Name]]
    resident: int


class Result(msgspec.Struct, array_like=True):
    """The scripts' values as JSON texts. ``retire``: this worker has grown and should go."""

    outputs: list[bytes | None]
    logs: bytes | None
    retire: bool


class Failed(msgspec.Struct, array_like=True):
    """A script that failed, or a limit that the engine or the worker itself has noticed."""

    code: Literal["script", "limit_memory", "limit_output", "limit_logs"]
    script: int
    name: Name
    message: Name
    line: int
    logs: bytes | None
    retire: bool


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """Something that a script awaits; ``headers`` is a JSON list of pairs."""

    id: int
    kind: Literal["fetch", "sleep", "file"]
    url: str = ""
    method: str = ""
    headers: str = "[]"
    body: str | None = None
    milliseconds: Annotated[float, msgspec.Meta(ge=0, le=86_400_000)] = 0.0
    aspect: Literal["", "contents", "text", "images", "url"] = ""
    file: str = ""
    """JSON text of the file, or the files, that ``aspect`` is asked of."""


class Attempt(msgspec.Struct, array_like=True):
    """One thing that native code behind the walls has tried."""

    name: str
    stopped: bool
    detail: str


_encoder = msgspec.msgpack.Encoder()
decode_run = msgspec.msgpack.Decoder(Run).decode
decode_answers = msgspec.msgpack.Decoder(list[Answer]).decode
decode_ready = msgspec.msgpack.Decoder(Ready).decode
decode_result = msgspec.msgpack.Decoder(Result).decode
decode_failed = msgspec.msgpack.Decoder(Failed).decode
decode_requests = msgspec.json.Decoder(
    Annotated[list[Request], msgspec.Meta(max_length=1_000)]
).decode
decode_headers = msgspec.json.Decoder(list[tuple[str, str]]).decode
decode_attempts = msgspec.msgpack.Decoder(list[Attempt]).decode


def frame(kind: Kind, body: object) -> bytes:
    """Make a frame; a body of ``bytes`` is sent as it is."""
    data = body if isinstance(body, bytes) else _encoder.encode(body)
    return HEADER.pack(len(data), kind) + data


class Channel:
    """A worker's end of the socket: blocking, on a bare file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = b""

    def read(self) -> tuple[int, bytes]:
        """Read one frame.

        Raises:
            EOFError: the server is gone.
        """
        data = self._buffer
        while len(data) < HEADER.size:
            data += self._receive()
        length, kind = HEADER.unpack_from(data)
        end = HEADER.size + length
        if len(data) < end:
            parts, have = [data], len(data)
            while have < end:
                parts.append(self._receive())
                have += len(parts[-1])
            data = b"".join(parts)
        self._buffer = data[end:]
        return kind, data[HEADER.size : end]

    def write(self, data: bytes) -> None:
        """Write it all."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def _receive(self) -> bytes:
        data = os.read(self._descriptor, 1 << 18)
        if not data:
            raise EOFError
        return data
