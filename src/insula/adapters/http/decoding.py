"""The body of an answer, unpacked piece by piece, never beyond its bound."""

import zlib
from collections.abc import Iterator

from insula.engine.failures import StepFailure

_PIECE = 64 * 1024
_MAX_CODINGS = 2


class _Inflate:
    """One gzip or deflate coding; gives its output in pieces of at most 64 KiB."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._begun = False
        self._machine = zlib.decompressobj(zlib.MAX_WBITS | 16 if coding == "gzip" else 15)

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._machine.eof:
                if self._coding != "gzip" or not data.startswith(b"\x1f"):
                    return  # padding after the end, as gzip programs ignore it too
                self._machine = zlib.decompressobj(zlib.MAX_WBITS | 16)
            yield self._step(data)
            data = self._machine.unconsumed_tail or self._machine.unused_data

    def _step(self, data: bytes) -> bytes:
        try:
            piece = self._machine.decompress(data, _PIECE)
        except zlib.error:
            if self._begun or self._coding == "gzip":
                raise StepFailure(f"the answer is not valid {self._coding}", "network") from None
            # "deflate" means zlib, but servers exist that send the bare stream.
            self._machine = zlib.decompressobj(-zlib.MAX_WBITS)
            self._begun = True
            return self._step(data)
        self._begun = True
        return piece

    def finish(self) -> None:
        if self._begun and not self._machine.eof:
            raise StepFailure(f"the answer's {self._coding} data is broken off", "network")


class BodyDecoder:
    """Undoes ``Content-Encoding`` (gzip, deflate) and counts, both before and after.

    Codings that are not known are left as they came. Raises ``StepFailure``: ``limit_output`` over
    the bound, ``network`` for broken data.
    """

    def __init__(self, content_encoding: str, max_bytes: int) -> None:
        codings = [part.strip().lower() for part in content_encoding.split(",")]
        known = [coding.removeprefix("x-") for coding in codings if coding not in ("", "identity")]
        if any(coding not in ("gzip", "deflate") for coding in known):
            known = []
        if len(known) > _MAX_CODINGS:
            raise StepFailure(f"the answer is packed more than {_MAX_CODINGS} times", "network")
        self._layers = [_Inflate(coding) for coding in reversed(known)]
        self._max_bytes = max_bytes
        self._packed = 0
        self._unpacked = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Unpack the next bytes from the wire; a piece of work that gave nothing is empty."""
        self._packed = self._count(self._packed, len(data))
        for piece in self._through(data, 0):
            self._unpacked = self._count(self._unpacked, len(piece))
            yield piece

    def _through(self, data: bytes, layer: int) -> Iterator[bytes]:
        if layer == len(self._layers):
            yield data
            return
        for piece in self._layers[layer].feed(data):
            if piece:
                yield from self._through(piece, layer + 1)
            else:
                yield b""

    def _count(self, before: int, more: int) -> int:
        if before + more > self._max_bytes:
            raise StepFailure(f"the answer is larger than {self._max_bytes} bytes", "limit_output")
        return before + more

    def finish(self) -> None:
        """Check that the packed data came to its end."""
        for layer in self._layers:
            layer.finish()
