"""Bytes in a bucket of S3, or of anything that speaks its protocol: several nodes see the same.

Large ones go up in parts, so that memory stays flat; what is not completed is not there.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from lxml import etree

from insula.adapters.blobs.port import Known, MissingBlob
from insula.adapters.blobs.signing import Signer, encoded
from insula.adapters.http.client import HttpClient
from insula.engine.failures import StepFailure
from insula.engine.ports import Activity, HttpRequest, HttpResponse
from insula.errors import TooLarge, Unavailable
from insula.kit.ids import is_id
from insula.kit.tasks import uninterrupted

PART_BYTES = 8 * 1024 * 1024
"""Of a part of an upload; 10,000 of them are allowed."""
_KEY = re.compile(r"[A-Za-z0-9_]{1,100}\Z")
_OWNER = "x-amz-meta-insula-owner"
_TRIES = 3
_PAUSE = 0.2
_SECONDS = 120.0
_STREAM_SECONDS = 3600.0
_ENDLESS = 1 << 50
_RETRY_AFTER = 10
_AGAIN = frozenset((429, 500, 502, 503, 504))

Query = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where a bucket is, as ``s3://bucket/prefix?endpoint=…&region=…`` says, and its keys."""

    endpoint: str
    name: str
    prefix: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)

    @classmethod
    def parse(cls, url: str, access_key: str, secret_key: str) -> "Bucket":
        """Read an address.

        Raises:
            ValueError: it is none; says why.
        """
        parts = urlsplit(url)
        asked = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc:
            raise ValueError("must be s3://bucket?endpoint=https://…")
        if unknown := sorted(asked.keys() - {"endpoint", "region"}):
            raise ValueError(f"knows endpoint and region, not {unknown[0]}")
        region = asked.get("region", "us-east-1")
        endpoint = asked.get("endpoint", f"https://s3.{region}.amazonaws.com").rstrip("/")
        if not endpoint.startswith(("http://", "https://")):
            raise ValueError("endpoint must be an http or https address")
        prefix = parts.path.strip("/")
        prefix = f"{prefix}/" if prefix else ""
        return cls(endpoint, parts.netloc, prefix, region, access_key, secret_key)


class S3Blobs:
    """Implements ``Blobs`` in a bucket. ``http`` must be allowed to reach the endpoint.

    Others may keep things in the same bucket: what is written says that it is ``owner``'s, and
    nothing else is swept.
    """

    def __init__(self, bucket: Bucket, http: HttpClient, owner: str) -> None:
        self._bucket = bucket
        self.owned = ((_OWNER, owner),)
        self._http = http
        self._host = urlsplit(bucket.endpoint).netloc
        self._signer = Signer(bucket.access_key, bucket.secret_key, bucket.region)

    async def write(self, key: str, chunks: AsyncIterable[bytes], limit: int) -> int:
        """Store a stream under a new key; return its size. Nothing is stored if this raises.

        Raises:
            TooLarge: there are more than ``limit`` bytes.
            Unavailable: the storage cannot be reached, or refuses.
        """
        upload = _Upload(self, self._path(key))
        size, held = 0, bytearray()
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > limit:
                    raise TooLarge(f"The file has more than {limit} bytes (INSULA_FILE_MAX).")
                held += chunk
                while len(held) >= PART_BYTES:
                    await upload.add(bytes(held[:PART_BYTES]))
                    del held[:PART_BYTES]
            await uninterrupted(upload.finish(bytes(held)))
        except BaseException:
            await uninterrupted(upload.abandon())
            raise
        return size

    async def read(self, key: str) -> bytes:
        """Return all the bytes. Raises ``MissingBlob``."""
        return b"".join([piece async for piece in self.open_stream(key)])

    async def open_stream(
        self, key: str, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Give the bytes from ``start`` up to ``end`` in pieces. Raises ``MissingBlob``."""
        if end is not None and end <= start:
            return
        failed = 0
        while True:
            try:
                async with aclosing(self._stream(key, start, end)) as pieces:
                    async for piece in pieces:
                        failed, start = 0, start + len(piece)
                        yield piece
                return
            except _Passing as passing:  # what stands under a key never changes: go on there
                failed += 1
                if failed == _TRIES:
                    raise passing.told from passing
            await asyncio.sleep(_PAUSE * 2 ** (failed - 1))

    async def _stream(self, key: str, start: int, end: int | None) -> AsyncGenerator[bytes, None]:
        headers: tuple[tuple[str, str], ...] = ()
        if start or end is not None:
            headers = (("range", f"bytes={start}-{'' if end is None else end - 1}"),)
        request = self._request("GET", self._path(key), (), b"", headers, _STREAM_SECONDS)
        try:
            async with self._http.open(request, Activity("reading a file", 0)) as answer:
                if answer.status == 404:
                    raise MissingBlob(key)
                if answer.status == 416:
                    return
                if answer.status in _AGAIN:
                    raise _Passing(_refused(answer.status))
                if answer.status not in (200, 206):
                    raise _refused(answer.status)
                async for chunk in answer.chunks:
                    yield chunk
        except StepFailure as failure:
            raise _Passing(_unreachable(failure)) from failure

    async def copy(self, source: str, key: str) -> None:
        """Store under another key what is stored under ``source``; each is deleted for itself."""
        named = (("x-amz-copy-source", self._path(source)), ("x-amz-metadata-directive", "REPLACE"))
        amz = (*named, *self.owned)
        answer = await uninterrupted(self.send("PUT", self._path(key), amz=amz))
        if _parsed(answer).tag.rpartition("}")[2] == "Error":  # told with status 200
            raise _refused(500)

    async def delete(self, key: str) -> None:
        """Remove it; nothing happens if it is gone already."""
        with suppress(MissingBlob):
            await self.send("DELETE", self._path(key))

    async def sweep(self, known: Known, older_than: float = 3600.0) -> int:
        """Remove what nothing refers to and is older, in seconds; return how many."""
        before = time.time() - older_than
        removed, more = 0, ""
        while True:
            query = [("list-type", "2"), ("max-keys", "1000"), ("prefix", self._bucket.prefix)]
            query += [("continuation-token", more)] if more else []
            page = _parsed(await self.send("GET", self._root, query))
            keys = [
                each.findtext("{*}Key", "").removeprefix(self._bucket.prefix)
                for each in page.iterfind("{*}Contents")
                if _moment(each.findtext("{*}LastModified", "")) < before
            ]
            files = [key for key in keys if is_id("file", key)]
            for key in set(files) - set(await known(files) if files else ()):
                if await self._is_ours(key):
                    await self.delete(key)
                    removed += 1
            more = page.findtext("{*}NextContinuationToken", "")
            if not more:
                return removed + await self._sweep_uploads(before)

    async def _is_ours(self, key: str) -> bool:
        try:
            answer = await self.send("HEAD", self._path(key))
        except MissingBlob:
            return False
        return self.owned[0] in ((name.lower(), value) for name, value in answer.headers)

    async def _sweep_uploads(self, before: float) -> int:
        """Abandon uploads of files whose process has died; of a thousand uploads at most."""
        query = [("uploads", ""), ("prefix", self._bucket.prefix)]
        page = _parsed(await self.send("GET", self._root, query))
        removed = 0
        for each in page.iterfind("{*}Upload"):
            key = each.findtext("{*}Key", "").removeprefix(self._bucket.prefix)
            if is_id("file", key) and _moment(each.findtext("{*}Initiated", "")) < before:
                named = [("uploadId", each.findtext("{*}UploadId", ""))]
                with suppress(MissingBlob):
                    await self.send("DELETE", self._path(key), named)
                removed += 1
        return removed

    async def send(
        self, method: str, path: str, query: Query = (), body: bytes = b"", amz: Query = ()
    ) -> HttpResponse:
        """Send a request, again where the storage is busy; ``amz`` are headers of its own.

        Raises:
            MissingBlob: there is no such thing to delete, to look at, or to copy.
            Unavailable: the storage cannot be reached, or refuses.
        """
        for number in range(_TRIES):
            last = number + 1 == _TRIES
            try:
                request = self._request(method, path, query, body, amz=amz)
                answer = await self._http.send(request, Activity("storing a file", 0))
            except StepFailure as failure:
                if last:
                    raise _unreachable(failure) from failure
            else:
                absent = method in ("DELETE", "HEAD")
                if answer.status == 404 and (absent or (amz and _no_key(answer))):
                    raise MissingBlob(path)
                if answer.status < 300:
                    return answer
                if last or answer.status not in _AGAIN:
                    raise _refused(answer.status)
            await asyncio.sleep(_PAUSE * 2**number)
        raise AssertionError("the last try returns or raises")

    def _request(
        self,
        method: str,
        path: str,
        query: Query,
        body: bytes,
        headers: tuple[tuple[str, str], ...] = (),
        seconds: float = _SECONDS,
        amz: Query = (),
    ) -> HttpRequest:
        signed = self._signer.sign(method, self._host, path, query, body, amz=amz)
        return HttpRequest(
            method=method,
            url=f"{self._bucket.endpoint}{path}{'?' if query else ''}{encoded(sorted(query))}",
            headers=(*headers, *signed, ("accept-encoding", "identity")),
            body=body if method in ("PUT", "POST") else None,
            timeout=seconds,
            max_bytes=_ENDLESS,
        )

    @property
    def _root(self) -> str:
        return f"/{quote(self._bucket.name, safe='-_.~')}"

    def _path(self, key: str) -> str:
        if not _KEY.match(key):
            raise MissingBlob(key)
        return f"{self._root}/{quote(self._bucket.prefix, safe='/-_.~')}{key}"


class _Passing(Exception):
    """The storage was busy, or away; ``told`` is what callers are told if it stays so."""

    def __init__(self, told: Unavailable) -> None:
        super().__init__(told.message)
        self.told = told


class _Upload:
    """One file on its way up: a single request if it is small, else parts."""

    def __init__(self, blobs: S3Blobs, path: str) -> None:
        self._blobs = blobs
        self._path = path
        self._id: str | None = None
        self._tags: list[str] = []
        self._whole = False

    async def add(self, part: bytes) -> None:
        """Send a part that others follow, or may."""
        if self._id is None:  # a cancel in between would leave an upload that nobody can name
            await uninterrupted(self._begin())
        number = len(self._tags) + 1
        query = [("partNumber", str(number)), ("uploadId", self._id or "")]
        answer = await self._blobs.send("PUT", self._path, query, part)
        self._tags.append(next((v for k, v in answer.headers if k.lower() == "etag"), ""))

    async def _begin(self) -> None:
        answer = await self._blobs.send(
            "POST", self._path, [("uploads", "")], amz=self._blobs.owned
        )
        self._id = _parsed(answer).findtext("{*}UploadId", "")

    async def finish(self, rest: bytes) -> None:
        """Send what is left, and make it all visible."""
        if self._id is None:
            self._whole = True
            await self._blobs.send("PUT", self._path, (), rest, self._blobs.owned)
            return
        if rest:
            await self.add(rest)
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"
            for number, tag in enumerate(self._tags, 1)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        self._whole = True
        answer = await self._blobs.send("POST", self._path, [("uploadId", self._id)], body)
        if _parsed(answer).tag.rpartition("}")[2] == "Error":  # told with status 200
            raise _refused(500)

    async def abandon(self) -> None:
        """Take back what was sent; where that fails, the sweep does it."""
        with suppress(MissingBlob, Unavailable):
            if self._whole:
                await self._blobs.send("DELETE", self._path)
            elif self._id is not None:
                await self._blobs.send("DELETE", self._path, [("uploadId", self._id)])


def _parsed(answer: HttpResponse) -> Any:
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        return etree.fromstring(answer.body, parser)
    except etree.XMLSyntaxError as error:
        raise _refused(answer.status) from error


def _no_key(answer: HttpResponse) -> bool:
    return str(_parsed(answer).findtext("{*}Code", "")) == "NoSuchKey"


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return time.time()


def _refused(status: int) -> Unavailable:
    hint = " (INSULA_BLOBS_ACCESS_KEY, INSULA_BLOBS_SECRET_KEY)" if status in (401, 403) else ""
    hint = ": there is no such bucket" if status == 404 else hint
    return Unavailable(
        f"The storage of files (INSULA_BLOBS_URL) answers {status}{hint}.", retry_after=_RETRY_AFTER
    )


def _unreachable(failure: StepFailure) -> Unavailable:
    return Unavailable(
        f"The storage of files (INSULA_BLOBS_URL) cannot be used: {failure.message}",
        retry_after=_RETRY_AFTER,
    )
