"""PowerPoint: every slide a page, with its title, its texts, its tables and its notes."""

import zipfile
from typing import Any, BinaryIO

import pptx
from pptx.exc import PythonPptxError

from insula.adapters.extraction.archives import open_archive
from insula.adapters.extraction.collector import Collector, Refused
from insula.adapters.extraction.messages import BlockType
from insula.adapters.extraction.pages import chosen
from insula.adapters.extraction.pictures import add_embedded

_DEPTH = 20
_DAMAGED = (KeyError, ValueError, AttributeError, IndexError, PythonPptxError, zipfile.BadZipFile)


def read_slides(file: BinaryIO, found: Collector) -> None:
    """Read a presentation."""
    archive = open_archive(file, found.order.memory)
    if found.order.contents:
        file.seek(0)
        try:
            slides = list(pptx.Presentation(file).slides)
            wanted = chosen(found.order, len(slides))
            for number, page in enumerate(wanted):
                _read(slides[page - 1], page, found)
                found.progress(number + 1, len(wanted))
        except _DAMAGED as error:
            raise Refused("The file is damaged: it is no presentation that can be read") from error
    add_embedded(archive, "ppt/media/", found)


def _read(slide: Any, page: int, found: Collector) -> None:
    title = slide.shapes.title
    if title is not None and title.has_text_frame:
        found.title(title.text_frame.text, page)
    for shape in slide.shapes:
        if title is None or shape._element is not title._element:  # ids are there twice, too
            _add(shape, page, found, 0)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        found.add("TEXT", slide.notes_slide.notes_text_frame.text, page)


def _add(shape: Any, page: int, found: Collector, depth: int) -> None:
    if getattr(shape, "has_table", False):
        found.table([[cell.text for cell in row.cells] for row in shape.table.rows], page)
    elif shape.has_text_frame:
        paragraphs = [p for p in shape.text_frame.paragraphs if p.text.strip()]
        listed = len(paragraphs) > 1
        for paragraph in paragraphs:
            kind: BlockType = "LISTITEM" if listed or paragraph.level else "NARRATIVETEXT"
            found.add(kind, paragraph.text, page)
    elif hasattr(shape, "shapes") and depth == _DEPTH:
        found.leave_out(f"groups in more than {_DEPTH} groups")
    elif hasattr(shape, "shapes"):
        for inner in shape.shapes:
            _add(inner, page, found, depth + 1)
