"""Upload links on the wire."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from insula.errors import TooLarge
from insula.files.schemas import (
    AllowedTypes,
    AppFileSchema,
    FileDataSchema,
    Storage,
    Visibility,
)
from insula.files.uploads import UploadOptions, UploadRow
from insula.files.urls import FileUrls
from insula.files.wish import checked_pages
from insula.kit import json
from insula.kit.clock import iso
from insula.web.fields import ANY_TEXT
from insula.web.forms import UploadedPart

LIFE_SECONDS = 24 * 60 * 60
LONGEST_SECONDS = 30 * 24 * 60 * 60
METADATA_BYTES = 64 * 1024


class CreateAppFileUploadSchema(BaseModel):
    """A link to make."""

    allowed_types: AllowedTypes | None = None
    document_extract_contents: bool | None = None
    document_extract_images: bool | None = None
    document_pages: list[float] | None = Field(None, max_length=10_000)
    expires_in_seconds: float = Field(LIFE_SECONDS, gt=0, le=LONGEST_SECONDS)
    visibility: Visibility = "PRIVATE"
    storage: Storage = "PERSISTENT"
    metadata: dict[str, Any] | None = None

    def life_ms(self) -> int:
        """How long it is good for, in milliseconds."""
        return int(self.expires_in_seconds * 1000)

    def options(self) -> UploadOptions:
        """Return what is stored of it.

        Raises:
            BadInput: a page is no page's number.
            TooLarge: there is too much metadata.
        """
        check_metadata(self.metadata)
        return UploadOptions(
            allowed_types=None if self.allowed_types is None else tuple(self.allowed_types),
            contents=self.document_extract_contents,
            images=self.document_extract_images,
            pages=checked_pages(self.document_pages),
            metadata=self.metadata,
        )


def check_metadata(metadata: dict[str, Any] | None) -> None:
    """Bound a link's metadata.

    Raises:
        TooLarge: it is too much.
    """
    if metadata is not None and len(json.encode(metadata)) > METADATA_BYTES:
        raise TooLarge(f"metadata has more than {METADATA_BYTES:,} bytes.")


class UpdateAppFileUploadSchema(BaseModel):
    """What may change of a link."""

    metadata: dict[str, Any] | None = None


class UploadAppFileSchema(BaseModel):
    """What is sent through a link: ``file`` as a form part, text or object, or ``file_url``."""

    file: Annotated[UploadedPart | FileDataSchema | str | None, ANY_TEXT] = None
    file_url: str | None = Field(None, max_length=65_536)


class AppFileUploadSchema(BaseModel):
    """An upload link."""

    id: str
    future_file_id: str = Field(description="The file's id, once it has come.")
    file: AppFileSchema | None
    upload_url: str = Field(description="Where to POST the file, without a key.")
    expires_at: str | None
    metadata: dict[str, Any] | None
    allowed_types: list[str] | None
    document_extract_contents: bool | None = None
    document_extract_images: bool | None = None
    document_pages: list[int] | None
    storage: Storage
    visibility: Visibility
    created_at: str | None
    updated_at: str | None


def upload_wire(row: UploadRow, file: dict[str, Any] | None, urls: FileUrls) -> dict[str, Any]:
    """Show a link as ``AppFileUploadSchema``."""
    options = row.wanted
    wire: dict[str, Any] = {
        "id": row.id,
        "future_file_id": row.file_id,
        "file": file,
        "upload_url": f"{urls.base}/public/apps/files/uploads/{row.id}",
        "expires_at": iso(row.expires_at),
        "metadata": options.metadata,
        "allowed_types": None if options.allowed_types is None else list(options.allowed_types),
        "document_pages": None if options.pages is None else list(options.pages),
        "storage": row.storage,
        "visibility": row.visibility,
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
    }
    if options.contents is not None:
        wire["document_extract_contents"] = options.contents
    if options.images is not None:
        wire["document_extract_images"] = options.images
    return wire
