"""Excel: what is left out of a sheet is told."""

import io

import openpyxl
import pytest
from tests.adapters.extraction.readings import read_here

from insula.adapters.extraction import sheet
from insula.adapters.extraction.sheet import read_sheet


def test_what_is_far_away_is_left_out_and_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheet, "_COLUMNS", 3)
    monkeypatch.setattr(sheet, "_EMPTY", 10)
    book = openpyxl.Workbook()
    book.active.append([1, 2, 3, None, 5])
    book.active.cell(20, 1, "far")
    data = io.BytesIO()
    book.save(data)
    found = read_here(read_sheet, data.getvalue())
    assert found.told == [("TITLE", "Sheet"), ("TABLE", "1\t2\t3")]
    assert list(found.left_out) == ["columns after the first 3", "rows after 10 empty ones"]
