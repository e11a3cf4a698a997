"""What every storage of bytes does: the disk's, and a bucket's behind a server of S3."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.server import ThreadedMotoServer

from insula.adapters.blobs import s3
from insula.adapters.blobs.disk import DiskBlobs
from insula.adapters.blobs.opening import open_blobs
from insula.adapters.blobs.port import Blobs, MissingBlob
from insula.adapters.blobs.signing import Signer
from insula.adapters.http.client import HttpClient
from insula.engine.failures import StepFailure
from insula.engine.ports import HttpRequest
from insula.errors import TooLarge, Unavailable
from insula.settings import SettingsError, load_settings

KEY = "file_2222222222222222222abC"
OTHER = "file_3333333333333333333abC"
INSTALLATION = "inst_2222222222222222222abC"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["disk", "s3"])
async def blobs(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Blobs]:
    if request.param == "disk":
        yield DiskBlobs(tmp_path / "files")
        return
    endpoint = request.getfixturevalue("endpoint")
    bucket = f"bucket-{os.urandom(4).hex()}"
    async with httpx.AsyncClient() as client:
        made = await client.put(f"{endpoint}/{bucket}")
        assert made.status_code == 200, made.text
    monkeypatch.setattr(s3, "PART_BYTES", 5 * 2**20)
    settings = load_settings(
        data_dir=tmp_path,
        blobs_url=f"s3://{bucket}/some/where?endpoint={endpoint}",
        blobs_access_key="key",
        blobs_secret_key="secret",
    )
    async with open_blobs(settings, INSTALLATION) as opened:
        yield opened


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def keys(blobs: Blobs) -> set[str]:
    """Everything that is there, as a sweep that forgives all sees it."""
    seen: set[str] = set()

    async def known(some: object) -> set[str]:
        seen.update(some)  # type: ignore[call-overload]  # keys
        return set(seen)

    await blobs.sweep(known, older_than=-60)
    return seen


async def test_a_copy_stands_for_itself(blobs: Blobs) -> None:
    await blobs.write(KEY, chunks(b"abc"), 100)
    await blobs.write(OTHER, chunks(b"old"), 100)
    for _ in range(2):  # also over itself
        await blobs.copy(KEY, OTHER)
        assert await blobs.read(OTHER) == b"abc"
    await blobs.delete(KEY)
    assert await blobs.read(OTHER) == b"abc"
    with pytest.raises(MissingBlob):
        await blobs.copy(KEY, OTHER)
    assert await keys(blobs) == {OTHER}


async def test_what_is_written_is_read(blobs: Blobs) -> None:
    assert await blobs.write(KEY, chunks(b"ab", b"", b"cde"), 100) == 5
    assert await blobs.read(KEY) == b"abcde"
    for start, end, wanted in ((1, None, b"bcde"), (1, 3, b"bc"), (2, 2, b""), (9, None, b"")):
        found = b"".join([piece async for piece in blobs.open_stream(KEY, start, end)])
        assert found == wanted


async def test_large_ones_go_in_parts(blobs: Blobs) -> None:
    whole = os.urandom(2**20) * 12 + b"end"
    parts = [whole[at : at + 700_000] for at in range(0, len(whole), 700_000)]
    assert await blobs.write(KEY, chunks(*parts), 1 << 30) == len(whole)
    assert await blobs.read(KEY) == whole
    assert await keys(blobs) == {KEY}


async def test_an_empty_one(blobs: Blobs) -> None:
    assert await blobs.write(KEY, chunks(), 10) == 0
    assert await blobs.read(KEY) == b""


async def test_what_is_missing_is_said_to_be(blobs: Blobs) -> None:
    for key in (KEY, "../../etc/passwd"):
        with pytest.raises(MissingBlob):
            await blobs.read(key)
    await blobs.delete(KEY)


@pytest.mark.parametrize("size", [1, 11 * 2**20])
async def test_what_is_too_large_leaves_nothing(blobs: Blobs, size: int) -> None:
    with pytest.raises(TooLarge):
        await blobs.write(KEY, chunks(b"x" * size, b"yz"), size + 1)
    assert await keys(blobs) == set()


async def test_a_stream_that_breaks_off_leaves_nothing(blobs: Blobs) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (6 * 2**20)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await blobs.write(KEY, broken(), 1 << 30)
    assert await keys(blobs) == set()


async def test_a_cancel_leaves_nothing(blobs: Blobs) -> None:
    reached = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * (6 * 2**20)
        reached.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(blobs.write(KEY, endless(), 1 << 30))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await keys(blobs) == set()


async def remains(blobs: Blobs) -> list[str]:
    """Everything that is there, what has only been begun as well."""
    if isinstance(blobs, DiskBlobs):
        return [path.name for path in blobs._folder.rglob("*") if path.is_file()]
    assert isinstance(blobs, s3.S3Blobs)
    begun = await blobs.send("GET", blobs._root, [("uploads", "")])
    uploads = s3._parsed(begun).iterfind("{*}Upload")
    return [*(each.findtext("{*}UploadId") for each in uploads), *await keys(blobs)]


async def test_a_cancel_at_any_point_leaves_nothing_that_was_begun(blobs: Blobs) -> None:
    for steps in (*range(1, 24), *range(24, 240, 12)):
        parts = chunks(b"x" * (6 * 2**20), b"y" * (6 * 2**20))
        task = asyncio.create_task(blobs.write(KEY, parts, 1 << 30))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            assert await remains(blobs) == []
        else:
            await blobs.delete(KEY)


async def test_the_sweep_removes_what_nobody_knows(blobs: Blobs) -> None:
    for key in (KEY, OTHER):
        await blobs.write(key, chunks(b"x"), 10)

    async def known(some: object) -> set[str]:
        return {KEY}

    assert await blobs.sweep(known) == 0  # too young
    assert await blobs.sweep(known, older_than=-60) == 1
    assert await keys(blobs) == {KEY}


async def test_the_sweep_of_a_bucket_leaves_what_is_not_ours(endpoint: str, tmp_path: Path) -> None:
    """Another installation may have the same bucket, and anybody else."""
    bucket = f"bucket-{os.urandom(4).hex()}"
    settings = load_settings(
        data_dir=tmp_path,
        blobs_url=f"s3://{bucket}?endpoint={endpoint}",
        blobs_access_key="key",
        blobs_secret_key="secret",
    )
    copied = KEY.replace("2", "4")

    async def known(some: object) -> set[str]:
        return set()

    async with (
        httpx.AsyncClient(base_url=f"{endpoint}/{bucket}") as client,
        open_blobs(settings, INSTALLATION) as ours,
        open_blobs(settings, INSTALLATION.replace("2", "3")) as theirs,
    ):
        assert (await client.put("")).status_code == 200
        foreign = ("backup_2026", KEY.replace("2", "5"), "others/file")
        for name in foreign:
            assert (await client.put(f"/{name}", content=b"x")).status_code == 200
        begun = await client.post("/others/big.iso?uploads")
        assert begun.status_code == 200
        await theirs.write(OTHER, chunks(b"x"), 10)
        await ours.write(KEY, chunks(b"x"), 10)
        await theirs.copy(KEY, copied)
        assert await ours.sweep(known, older_than=-60) == 1
        listed = (await client.get("?list-type=2")).text
        assert f"<Key>{KEY}</Key>" not in listed
        for name in (*foreign, OTHER, copied):
            assert f"<Key>{name}</Key>" in listed
        assert "others/big.iso" in (await client.get("?uploads")).text
        assert await theirs.sweep(known, older_than=-60) == 2


def test_signatures_are_those_of_the_maker() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    query = [("partNumber", "2"), ("uploadId", "a/b+c=~")]
    ours = dict(
        Signer("AKID", "secret", "eu-1").sign("PUT", "s3.x:9000", "/b/k", query, b"hi", now)
    )
    request = AWSRequest(
        "PUT",
        "http://s3.x:9000/b/k",
        params=dict(query),
        data=b"hi",
        headers={"x-amz-content-sha256": ours["x-amz-content-sha256"]},
    )
    request.context["timestamp"] = "20260102T030405Z"
    request.headers["X-Amz-Date"] = "20260102T030405Z"
    signer = SigV4Auth(Credentials("AKID", "secret"), "s3", "eu-1")
    # S3 leaves paths as they are: nothing here is encoded twice.
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    assert ours["authorization"].endswith(f"Signature={signature}")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"blobs_url": "s3://b"}, "needs both"),
        ({"blobs_url": "http://b", "blobs_access_key": "a", "blobs_secret_key": "b"}, "must be s3"),
        (
            {"blobs_url": "s3://b?x=1", "blobs_access_key": "a", "blobs_secret_key": "b"},
            "not x",
        ),
    ],
)
async def test_bad_settings_name_themselves(given: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        async with open_blobs(load_settings(**given), INSTALLATION):
            pass


async def test_a_bucket_that_is_not_there_is_503(endpoint: str) -> None:
    url = f"s3://nowhere?endpoint={endpoint}"
    settings = load_settings(blobs_url=url, blobs_access_key="a", blobs_secret_key="b")
    async with open_blobs(settings, INSTALLATION) as blobs:
        for size in (1, 9 * 2**20):
            with pytest.raises(Unavailable, match="no such bucket"):
                await blobs.write(KEY, chunks(b"x" * size), 1 << 30)
        with pytest.raises(Unavailable, match="no such bucket"):
            await keys(blobs)
        await blobs.delete(KEY)


async def test_a_storage_that_is_away_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_PAUSE", 0)
    url = "s3://b?endpoint=http://127.0.0.1:9"
    settings = load_settings(blobs_url=url, blobs_access_key="a", blobs_secret_key="b")
    async with open_blobs(settings, INSTALLATION) as blobs:
        with pytest.raises(Unavailable, match="INSULA_BLOBS_URL"):
            await blobs.write(KEY, chunks(b"x"), 10)


async def test_a_bucket_that_is_away_for_a_moment_is_read_on(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_PAUSE", 0.0)
    data = os.urandom(300_000)
    failures = [_Cut(0), _Cut(100_000), _Cut(0)]

    class Flaky:
        def __init__(self) -> None:
            self.ranges: list[str] = []

        @asynccontextmanager
        async def open(self, request: HttpRequest, activity: object) -> AsyncIterator[Any]:
            named = dict(request.headers).get("range", "bytes=0-")
            self.ranges.append(named)
            start = int(named.removeprefix("bytes=").partition("-")[0])
            cut = failures.pop(0) if failures else None
            if cut is not None and cut.after == 0:
                raise StepFailure("away", "network")

            async def pieces() -> AsyncIterator[bytes]:
                yield data[start:] if cut is None else data[start : start + cut.after]
                if cut is not None:
                    raise StepFailure("cut", "network")

            yield SimpleNamespace(status=206, chunks=pieces())

    bucket = s3.Bucket.parse(f"s3://b?endpoint={endpoint}", "key", "secret")
    flaky = Flaky()
    blobs = s3.S3Blobs(bucket, cast(HttpClient, flaky), INSTALLATION)
    assert await blobs.read(KEY) == data
    assert flaky.ranges[0] == "bytes=0-"
    assert flaky.ranges[-1] == "bytes=100000-"
    failures += [_Cut(0)] * 3
    with pytest.raises(Unavailable):
        await blobs.read(KEY)


@dataclass
class _Cut:
    after: int
