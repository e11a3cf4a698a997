"""Files on the wire: ``AppFileSchema`` and what may be posted."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from insula.files.repository import FileRow
from insula.files.urls import FileUrls
from insula.kit.clock import iso
from insula.web.forms import UploadedPart

Storage = Literal["PERSISTENT", "TEMPORARY"]
Visibility = Literal["PUBLIC", "PRIVATE"]


class FileDataSchema(BaseModel):
    """A file's bytes as text."""

    model_config = ConfigDict(extra="allow")

    data: str
    type: str | None = None
    name: str | None = None
    encoding: Literal["base64", "raw"] = "base64"


class CreateAppFileSchema(BaseModel):
    """A file to store: ``file`` as a form part, text or object, or ``file_url``."""

    file: UploadedPart | FileDataSchema | str | None = None
    file_url: str | None = Field(None, max_length=65_536)
    allowed_types: list[str] | None = Field(None, max_length=100)
    document_extract_contents: bool = False
    document_extract_images: bool = False
    document_extract_pages: bool = False
    document_pages: list[float] | None = Field(None, max_length=10_000)
    document_max_pages: float | None = None
    storage: Storage = "PERSISTENT"
    visibility: Visibility = "PRIVATE"


class AppFileSchema(BaseModel):
    """A stored file."""

    id: str
    file_id: str
    file_filename: str
    file_size: int
    file_mimetype: str = Field(description="Sniffed from the bytes.")
    file_url: str = Field(description="Signed and good for an hour; plain for a PUBLIC file.")
    storage: Storage
    created_at: str | None


def file_wire(row: FileRow, urls: FileUrls) -> dict[str, Any]:
    """Show a row as ``AppFileSchema``."""
    public = row.visibility == "PUBLIC"
    return {
        "id": row.id,
        "file_id": row.id,
        "file_filename": row.filename,
        "file_size": row.size,
        "file_mimetype": row.mimetype,
        "file_url": urls.public(row.id) if public else urls.signed(row.id),
        "storage": row.storage,
        "created_at": iso(row.created_at),
    }
