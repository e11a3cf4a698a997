"""Reads reports back: the text of each page."""

import re

import pypdfium2


def texts(document: bytes) -> list[str]:
    """Return the text of each page, its white space as single blanks."""
    with pypdfium2.PdfDocument(document) as opened:
        found = []
        for number in range(len(opened)):
            page = opened[number]
            read = page.get_textpage()
            found.append(re.sub(r"\s+", " ", read.get_text_range()))
            read.close()
            page.close()
    return found
