"""Tables of values, and what is text underneath."""

import pytest
from tests.adapters.extraction.readings import MIB, read_here

from insula.adapters.extraction.text import read_table


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'a;b\n"x ""y"" z";1\n"p;q";2\n', 'a\tb\nx "y" z\t1\np;q\t2'),
        (b"1,5;2,5\n3,5;4,5\n", "1,5\t2,5\n3,5\t4,5"),
        (b"n,s\nO'Brien,'tis\n\"A, B\",it's\n", "n\ts\nO'Brien\t'tis\nA, B\tit's"),
        (b'a, "b, c"\n1, 2\n', "a\tb, c\n1\t2"),
        (b"n\n0\n", "n\n0"),
    ],
)
def test_what_parts_values_is_told_by_all_lines(data: bytes, text: str) -> None:
    assert read_here(read_table, data).told == [("TABLE", text)]


def test_what_is_no_table_any_more_is_text_once() -> None:
    found = read_here(read_table, b'a,b\n1,2\n3,"' + b"x" * 1_100_000 + b"\n4,5\n", output=4 * MIB)
    table, *texts = found.told
    assert table == ("TABLE", "a\tb\n1\t2")
    assert "".join(text for _, text in texts) == '3,"' + "x" * 1_100_000 + "\n4,5"


def test_columns_that_are_left_out_are_told_of() -> None:
    found = read_here(read_table, b",".join([b"x"] * 1_001) + b"\n")
    assert list(found.left_out) == ["columns after the first 1,000"]
