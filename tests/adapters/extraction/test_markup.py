"""HTML and Markdown: nothing that is shown is lost, and nothing else is told."""

import pytest
from tests.adapters.extraction.readings import read_here

from insula.adapters.extraction.mail import read_mail
from insula.adapters.extraction.markup import read_html, read_markdown


def test_lines_of_code_stay_lines() -> None:
    assert read_here(read_markdown, b"```\none\ntwo\n```\n\na\nb").told == [
        ("NARRATIVETEXT", "one\ntwo"),
        ("NARRATIVETEXT", "a b"),
    ]


def test_all_of_a_table_is_read() -> None:
    page = (
        b"<table><caption>Sales</caption><tr><form><th>wo<b>rd</b><br>two<style>s{}</style>"
        b"<script>evil()</script></th></form></tr>" + b"<tr><td>r</td></tr>" * 2_500 + b"</table>"
        b"<table>stray</table><table><td>x</table>"
    )
    caption, first, *more = read_here(read_html, page).told
    assert caption == ("NARRATIVETEXT", "Sales")
    assert first[1].startswith("word two\nr\n")
    assert [kind for kind, _ in more] == ["TABLE"] * 5 + ["NARRATIVETEXT"] * 2
    assert sum(text.count("r\n") + 1 for kind, text in more if kind == "TABLE") == 2_001
    assert [text for _, text in more[-2:]] == ["stray", "x"]


@pytest.mark.parametrize("charset", ["windows-1251", "shift_jis", "iso-8859-5"])
def test_a_page_is_in_the_letters_that_it_declares(charset: str) -> None:
    page = f"<html><head><meta charset={charset}></head><p>Привет</p></html>"
    for encoding in (charset, "utf-8"):
        assert read_here(read_html, page.encode(encoding)).told == [("NARRATIVETEXT", "Привет")]


def test_letters_that_nobody_knows_are_western() -> None:
    for charset in ("hex", "nonsense"):
        page = f"<meta charset={charset}><p>é</p>".encode("cp1252")
        assert read_here(read_html, page).told == [("NARRATIVETEXT", "é")]


def test_what_nests_too_deeply_is_told_of() -> None:
    found = read_here(read_html, b"<p>a</p>" + b"<b>" * 500 + b"b<script>c</script>")
    assert (found.told, list(found.left_out)) == (
        [("NARRATIVETEXT", "a"), ("NARRATIVETEXT", "b")],
        [],
    )
    found = read_here(read_html, b"<p>a</p>" + b"<b>" * 3_000 + b"b")
    assert found.told == [("NARRATIVETEXT", "a")]
    assert list(found.left_out) == ["what follows elements that nest too deeply"]


def test_a_page_without_anything_spoils_no_mail() -> None:
    assert read_here(read_html, b"<!-- nothing -->").told == []
    mail = b"Subject: s\nContent-Type: text/html\n\n<!-- nothing -->"
    assert read_here(read_mail, mail).told == [("TITLE", "s")]
