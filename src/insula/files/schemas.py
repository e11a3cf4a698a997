"""Files on the wire: ``AppFileSchema`` and what may be posted."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from insula.adapters.extraction.messages import BlockType
from insula.files.extractions import ExtractionRow
from insula.files.repository import FileRow
from insula.files.urls import FileUrls
from insula.files.wish import Wish, checked_count, checked_pages
from insula.kit.clock import iso
from insula.web.fields import ANY_TEXT
from insula.web.forms import UploadedPart

Storage = Literal["PERSISTENT", "TEMPORARY"]
Visibility = Literal["PUBLIC", "PRIVATE"]
AllowedTypes = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=100)]


class FileDataSchema(BaseModel):
    """A file's bytes as text."""

    model_config = ConfigDict(extra="allow")

    data: Annotated[str, ANY_TEXT]
    type: str | None = None
    name: str | None = None
    encoding: Literal["base64", "raw"] = "base64"


class CreateAppFileSchema(BaseModel):
    """A file to store: ``file`` as a form part, text or object, or ``file_url``."""

    file: Annotated[UploadedPart | FileDataSchema | str | None, ANY_TEXT] = None
    file_url: str | None = Field(None, max_length=65_536)
    allowed_types: AllowedTypes | None = None
    document_extract_contents: bool = False
    document_extract_images: bool = False
    document_extract_pages: bool = False
    document_pages: list[float] | None = Field(None, max_length=10_000)
    document_max_pages: float | None = None
    storage: Storage = "PERSISTENT"
    visibility: Visibility = "PRIVATE"

    def wish(self) -> Wish:
        """Return what is to be extracted.

        Raises:
            BadInput: a page is no page's number.
        """
        return Wish(
            contents=self.document_extract_contents,
            images=self.document_extract_images,
            extract_pages=self.document_extract_pages,
            pages=checked_pages(self.document_pages),
            max_pages=checked_count(self.document_max_pages),
        )


class DocumentContentSchema(BaseModel):
    """A piece of a document."""

    id: int
    type: BlockType
    content: str
    content_as_html: str | None = Field(None, description="Of a table.")
    page: int
    parent: int | None = Field(None, description="The title that it stands under.")


class DocumentImageSchema(BaseModel):
    """A page as an image, or a picture of the document."""

    id: str
    file_id: str
    image_url: str
    type: str
    page: int
    height: int
    width: int


class DocumentSchema(BaseModel):
    """What was found in a document."""

    filename: str
    filetype: str
    contents: list[DocumentContentSchema]
    images: list[DocumentImageSchema]
    extracted_pages: str | None = Field(None, description="Where the PDF of the chosen pages is.")
    time: float | None = Field(None, description="Seconds that it took.")


class AppFileSchema(BaseModel):
    """A stored file."""

    id: str
    file_id: str
    file_filename: str
    file_size: int
    file_mimetype: str = Field(description="Sniffed from the bytes.")
    file_url: str = Field(description="Signed and good for an hour; plain for a PUBLIC file.")
    file_format: Literal["DOCUMENT"] | None = None
    file_status: Literal["PROCESSING", "PROCESSED", "FAILED"] | None = Field(
        None, description="Of its extraction; absent where none was asked for."
    )
    file_status_message: str | None = None
    document: DocumentSchema | None = Field(None, description="Once it was read; not in lists.")
    document_extract_contents: bool | None = None
    document_extract_images: bool | None = None
    document_extract_pages: bool | None = None
    document_pages: list[int] | None = None
    document_progress: float | None = Field(None, description="From 0 to 1.")
    storage: Storage
    created_at: str | None


def file_wire(
    row: FileRow,
    urls: FileUrls,
    extraction: ExtractionRow | None = None,
    document: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Show a row as ``AppFileSchema``."""
    wire = {
        "id": row.id,
        "file_id": row.id,
        "file_filename": row.filename,
        "file_size": row.size,
        "file_mimetype": row.mimetype,
        "file_url": _url(row.id, row, urls),
        "storage": row.storage,
        "created_at": iso(row.created_at),
    }
    if extraction is not None:
        wire |= _extraction_wire(extraction)
    if document is not None:
        wire["document"] = document_wire(row, document, urls)
    return wire


def _extraction_wire(extraction: ExtractionRow) -> dict[str, Any]:
    wish = extraction.wish
    wire: dict[str, Any] = {
        "file_format": "DOCUMENT",
        "file_status": extraction.status,
        "document_extract_contents": wish.contents,
        "document_extract_images": wish.images,
        "document_extract_pages": wish.extract_pages,
        "document_progress": round(extraction.progress, 3),
    }
    if extraction.message is not None:
        wire["file_status_message"] = extraction.message
    if wish.pages is not None:
        wire["document_pages"] = list(wish.pages)
    return wire


def document_wire(row: FileRow, document: Mapping[str, Any], urls: FileUrls) -> dict[str, Any]:
    """Show what was found as ``DocumentSchema``, with fresh addresses."""
    wire: dict[str, Any] = {
        "filename": row.filename,
        "filetype": row.mimetype,
        "contents": document["contents"],
        "images": [
            {"id": image["file_id"], **image, "image_url": _url(image["file_id"], row, urls)}
            for image in document["images"]
        ],
        "time": document["time"],
    }
    if document["pages"] is not None:
        wire["extracted_pages"] = _url(document["pages"], row, urls)
    return wire


def _url(file_id: str, row: FileRow, urls: FileUrls) -> str:
    """Return where a file is, or what came of it: both are seen by the same."""
    return urls.public(file_id) if row.visibility == "PUBLIC" else urls.signed(file_id)
