"""Which storage of files the settings name."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from insula.adapters.blobs.disk import DiskBlobs
from insula.adapters.blobs.port import Blobs
from insula.adapters.blobs.s3 import Bucket, S3Blobs
from insula.adapters.http.client import HttpClient
from insula.adapters.http.egress import EgressPolicy
from insula.settings import Settings, SettingsError


@asynccontextmanager
async def open_blobs(settings: Settings, owner: str) -> AsyncIterator[Blobs]:
    """Open the bucket of INSULA_BLOBS_URL, or the folder ``files`` beside the database.

    ``owner`` is the installation whose files these are: a bucket may hold those of others.

    Raises:
        SettingsError: the address or its keys cannot be used.
    """
    if settings.blobs_url is None:
        yield DiskBlobs(Path(settings.data_dir) / "files")
        return
    access, secret = settings.blobs_access_key, settings.blobs_secret_key
    if access is None or secret is None:
        raise SettingsError(
            "INSULA_BLOBS_ACCESS_KEY, INSULA_BLOBS_SECRET_KEY: INSULA_BLOBS_URL needs both"
        )
    try:
        bucket = Bucket.parse(settings.blobs_url, access, secret.get_secret_value())
    except ValueError as error:
        raise SettingsError(f"INSULA_BLOBS_URL: {error}") from None
    # The operator named it: it may be anywhere, whatever steps may call.
    http = HttpClient(EgressPolicy([urlsplit(bucket.endpoint).hostname or ""]))
    try:
        yield S3Blobs(bucket, http, owner)
    finally:
        await http.close()
