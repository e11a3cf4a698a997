"""Excel: every sheet a title and its cells as tables; formulas by their last values."""

import datetime
import zipfile
from typing import Any, BinaryIO

import openpyxl

from insula.adapters.extraction.archives import open_archive
from insula.adapters.extraction.collector import TABLE_ROWS, Collector, Refused
from insula.adapters.extraction.pages import chosen
from insula.adapters.extraction.pictures import add_embedded

_COLUMNS = 1_000
_DAMAGED = (KeyError, ValueError, TypeError, AttributeError, OSError, zipfile.BadZipFile)
_EMPTY = 10_000
"""Empty rows in a row after which a sheet is over: some claim a million."""


def read_sheet(file: BinaryIO, found: Collector) -> None:
    """Read a workbook; its sheets count as pages."""
    archive = open_archive(file, found.order.memory)
    if found.order.contents:
        file.seek(0)
        try:
            book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
            wanted = chosen(found.order, len(book.worksheets))
            for number, page in enumerate(wanted):
                _read(book.worksheets[page - 1], page, found)
                found.progress(number + 1, len(wanted))
        except _DAMAGED as error:
            raise Refused("The file is damaged: it is no workbook that can be read") from error
    add_embedded(archive, "xl/media/", found)


def _read(sheet: Any, page: int, found: Collector) -> None:
    found.title(sheet.title, page)
    rows: list[list[str]] = []
    empty = 0
    sheet.reset_dimensions()  # what it says of its size may be a lie; each row tells its own
    for row in sheet.iter_rows(values_only=True):
        if len(row) > _COLUMNS and any(value is not None for value in row[_COLUMNS:]):
            found.leave_out(f"columns after the first {_COLUMNS:,}")
        cells = [_text(value) for value in row[:_COLUMNS]]
        while cells and not cells[-1]:
            cells.pop()
        empty = 0 if cells else empty + 1
        if empty > _EMPTY:
            found.leave_out(f"rows after {_EMPTY:,} empty ones")
            break
        if cells:
            rows.append(cells)
        if len(rows) == TABLE_ROWS:
            found.table(_even(rows), page)
            rows = []
    found.table(_even(rows), page)


def _even(rows: list[list[str]]) -> list[list[str]]:
    width = max((len(row) for row in rows), default=0)
    return [row + [""] * (width - len(row)) for row in rows]


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return str(value)
