"""Which documents can be taken apart, by their media types."""

from insula.adapters.extraction.messages import DocumentKind

_OFFICE = "application/vnd.openxmlformats-officedocument"
_KINDS: dict[str, DocumentKind] = {
    "application/pdf": "pdf",
    f"{_OFFICE}.wordprocessingml.document": "word",
    f"{_OFFICE}.spreadsheetml.sheet": "sheet",
    f"{_OFFICE}.presentationml.presentation": "slides",
    "text/html": "html",
    "text/markdown": "markdown",
    "text/csv": "table",
    "text/tab-separated-values": "table",
    "message/rfc822": "mail",
    "application/json": "text",
    "application/xml": "text",
    "application/yaml": "text",
    "image/png": "picture",
    "image/jpeg": "picture",
    "image/gif": "picture",
    "image/webp": "picture",
    "image/bmp": "picture",
    "image/tiff": "picture",
}
PAGED = frozenset[DocumentKind | None](("pdf", "word", "sheet", "slides"))
"""Kinds that have pages to choose from."""
_COMPOUND = ("application/x-ole-storage", "application/msword", "application/vnd.ms-")
_READ = "PDF, Word, Excel, PowerPoint, HTML, Markdown, CSV, text, e-mail or an image"


def kind_of(mimetype: str) -> DocumentKind | None:
    """Return how documents of this type are read, ``None`` if they are not."""
    return _KINDS.get(mimetype) or ("text" if mimetype.startswith("text/") else None)


def refusal(mimetype: str) -> str:
    """Say why a file of this type is not read, and what to do."""
    if mimetype.startswith(_COMPOUND):
        return (
            f"The file is {mimetype}: an old office file, or one protected with a password; "
            "save it as .docx, .xlsx or .pptx without one"
        )
    return f"Nothing can be extracted from {mimetype}; send {_READ}"
