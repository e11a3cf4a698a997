"""Reports: what stands on their pages, and how much at most."""

from typing import Any

import pytest
from reportlab.platypus import Paragraph
from tests.runs.platform import Platform

from insula.collections import landing, report, report_blocks, report_pages, report_text
from insula.collections.report_pages import draw
from insula.collections.report_room import COLUMNS_MAX, ROOM, ROWS_MAX, Room
from insula.collections.report_text import PIECE_MAX
from insula.kit import json

from .pages import texts
from .stage import collection, rested, rule, verdicts

_AT = "2026-01-02T03:04:05.000Z"


def record(rules: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Make as much of a record as a report is drawn of."""
    held = {
        key: {"status": "PASSED", "key": key, "input": None, "run": None, **one}
        for key, one in rules.items()
    }
    shown = [{"key": key, "name": f"Rule {key}", "disabled": False} for key in rules]
    return {
        "id": "rec_1",
        "name": "Case",
        "status": "COMPLETED",
        "collection_name": "Loans",
        "rules_count": len(rules),
        "rules_pass_count": len(rules),
        "rules_fail_count": 0,
        "rules_warn_count": 0,
        "rules": held,
        "config": {"rules": shown},
        "updated_at": _AT,
        **more,
    }


async def test_blocks_beside_the_result_reach_the_record_and_its_report(
    platform: Platform,
) -> None:
    acme = platform.acme
    blocks = (
        '{"result": {"passed": false, "message": "Too little", "display": "inside the result"},'
        ' "rule_display": [{"variant": "error", "title": "Income", "markdown": "It is **low**"},'
        ' {"columns": ["Month", "Income"], "rows": [["May", 1200], ["June", 900]]}],'
        ' "record_display": "# The whole case", "extra_blocks": [{"text": "an extra"}],'
        ' "record_facts_blocks": ["a fact"], "other": "is not shown"}'
    )
    path = await collection(acme, await rule(acme, "a", blocks), await rule(acme, "b", "true"))
    body = {"name": "Case", "rules": {"a": {"text": "x"}, "b": {"text": "y"}}, "run": "all"}
    made = await acme.ok("POST", f"{path}/records", body)
    one = f"{path}/records/{made['id']}"
    found = await rested(acme, one, verbose="all")
    assert verdicts(found) == {"a": "FAILED", "b": "PASSED"}
    shown = found["rules"]["a"]["display"]
    assert shown == found["rules"]["a"]["run"]["display"]
    assert set(shown) == {
        "display",
        "rule_display",
        "record_display",
        "extra_blocks",
        "record_facts_blocks",
    }
    assert shown["rule_display"][1]["rows"] == [["May", 1200], ["June", 900]]
    assert "display" not in found["rules"]["b"]
    answer = await acme.ask("GET", f"{one}/download")
    assert answer.headers["content-type"] == "application/pdf"
    (text,) = texts(answer.content)
    whole, _, apart = text.partition("Rule a Failed · key a")
    for words in ("1 Rule a Failed Too little", "2 Rule b Passed", "The whole case", "a fact"):
        assert words in whole, text
    for words in ("Income It is low", "May 1200 June 900", "inside the result", "an extra"):
        assert words in apart, text
    assert "is not shown" not in text
    await acme.ok("POST", f"{one}/reset")
    assert "display" not in (await acme.ok("GET", one))["rules"]["a"]


async def test_a_result_that_is_too_large_leaves_its_blocks(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing, "RESULT_MAX", 20)
    acme = platform.acme
    script = '{"result": {"why": "more than twenty"}, "rule_display": "shown"}'
    path = await collection(acme, await rule(acme, "a", script))
    body = {"rules": {"a": {"text": "x"}}, "run": "all"}
    made = await acme.ok("POST", f"{path}/records", body)
    found = (await rested(acme, f"{path}/records/{made['id']}"))["rules"]["a"]
    assert found["result_omitted"] is True
    assert "result" not in found
    assert found["display"] == {"rule_display": "shown"}


def test_what_is_not_said_in_blocks_is_shown_as_names_and_values() -> None:
    rules: dict[str, dict[str, Any]] = {
        "object": {"result": {"passed": True, "ratio": 0.25, "note": None}},
        "text": {"result": "It **holds**"},
        "no": {"result": False, "status": "FAILED"},
        "error": {"error": "It broke", "status": "FAILED"},
        "files": {
            "input": {
                "doc": {"id": "file_1", "file_filename": "contract.pdf"},
                "more": [{"file_filename": "a.txt"}, {"file_filename": "b.txt"}],
            }
        },
    }
    text = " ".join(texts(draw(record(rules))))
    assert "passed yes ratio 0.25 note —" in text
    assert "It holds" in text
    assert "Rule no Failed · key no no" in text
    assert "Rule error Failed It broke" in text
    assert "doc contract.pdf more a.txt, b.txt" in text
    assert "file_1" not in text


def test_every_rule_has_its_row_however_many_there_are() -> None:
    rules: dict[str, dict[str, Any]] = {
        f"r{number}": {"result": {"message": f"because of {number}"}} for number in range(700)
    }
    text = " ".join(texts(draw(record(rules))))
    for number in (0, 299, 300, 699):
        assert f"{number + 1} Rule r{number} Passed because of {number}" in text
    assert "Not all that the rules say" in text


def test_a_report_has_so_much_room() -> None:
    rows = [["x" * 30] * 8] * 1_000
    rules: dict[str, dict[str, Any]] = {
        f"r{number}": {"display": {"rule_display": [{"rows": rows}] * 20}} for number in range(5)
    }
    pages = texts(draw(record(rules)))
    assert len(pages) < 400
    assert "700 more rows are left out here" in " ".join(pages)
    assert "Not all that the rules say" in pages[-1]


def test_room_is_for_so_many_texts() -> None:
    room = Room()
    assert room.fitting({"a": [1, None, "x"]}) == {"a": [1, None, "x"]}
    assert not room.full
    assert len(room.fitting([0] * (2 * ROOM))) == ROOM - 6
    assert room.full
    assert room.fitting("x") is None
    deep: Any = "x"
    for _ in range(50):
        deep = [deep]
    room = Room()
    room.fitting(deep)
    assert room.full


def test_what_holds_nothing_takes_room_too() -> None:
    for each in ({}, [], [[]] * 2, [[[[[[[[[[[[[1]]]]]]]]]]]]]):
        room = Room()
        assert len(room.fitting([each] * ROOM)) < ROOM
        assert room.full


def test_cells_that_a_table_lacks_take_room() -> None:
    room = Room()
    room.fitting({"columns": ["a"] * 5_000, "rows": [{}] * 100})
    assert room.left == ROOM - 1 - 5_001 - 101 - 100 * COLUMNS_MAX
    room = Room()
    room.fitting({"rows": [{"cells": [1, 2]}, [1], 5, {}], "headers": ["a", "b"]})
    assert room.left == ROOM - 1 - 3 - (1 + 4 + 2 + 1 + 1) - (0 + 1 + 1 + 2)


def test_a_table_is_cut_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def words(value: Any) -> str:
        made.append(value)
        return "x"

    monkeypatch.setattr(report_blocks, "words", words)
    wide: Any = {"content": {"columns": ["a"] * 5_000, "rows": [{}] * 300_000}}
    parts = report_blocks.of_rule({"result": True, "display": {"display": wide}}, 500)
    assert len(made) == (1 + ROWS_MAX) * COLUMNS_MAX
    note: Any = parts[-1]
    assert note.getPlainText() == "299,700 more rows are left out here."
    made.clear()
    room = Room()
    report_blocks.of_rule(room.fitting({"display": {"display": [wide] * 20}}), 500)
    assert room.full
    assert len(made) < 2 * ROOM


def test_hostile_blocks_are_drawn() -> None:
    nested: Any = {"text": "innermost", "variant": "warning"}
    for _ in range(30):
        nested = {"blocks": [nested], "variant": "error", "title": "t"}
    shown = [
        nested,
        {"rows": []},
        {"rows": [[]], "columns": []},
        {"rows": [{}]},
        {"rows": [5]},
        {"rows": [{"a": 1}], "columns": [{"key": []}, ["a"], {}]},
        {"rows": [1, None, {"cells": ["c"]}], "columns": [{"label": "L"}, 5, None]},
        "<b>not HTML</b> <script>x</script> & \x00\x07",
        "| a | b |\n|---|---|\n| 1 | 2 |\n" + "- x\n" * 90,
        "```\n" + "long " * 500 + "\n```",
        "漢字 한국어 العربية 🎉 é",
        {"markdown": {"markdown": {"markdown": "inside"}}},
        {"rows": [["a" * 5_000] * 50], "columns": ["w" * 1_000] * 50},
        {"title": "x" * 10_000, "text": "w" * 30_000},
        "- one of very many\n" * 1_000,
    ]
    text = " ".join(texts(draw(record({"a": {"display": {"rule_display": shown}}}))))
    assert "<b>not HTML</b>" in text
    assert "inside" in text
    assert "漢字" in text
    assert "More is left out here" in text


def test_a_long_text_is_set_in_paragraphs_that_are_laid_out_soon() -> None:
    """In one of this length each character that is escaped was a piece of its own, for minutes."""
    hostile = "<" * 4 * PIECE_MAX
    for made in (report_text.plain(hostile), report_text.markdown(hostile, 500)):
        pieces = [part for part in made if isinstance(part, Paragraph)]
        assert {len(part.frags) for part in pieces} == {1}
        assert max(len(part.frags[0].text) for part in pieces) == PIECE_MAX
        assert "".join(part.frags[0].text for part in pieces) == hostile
    lines = [part for part in report_text.plain("a\n" * 1_000) if isinstance(part, Paragraph)]
    assert len(lines) > 20


def test_what_is_cut_stays_as_it_is_written() -> None:
    text = "*" + " ".join(["some **bold** words"] * 200) + "*"
    made = [part for part in report_text.markdown(text, 500) if isinstance(part, Paragraph)]
    assert len(made) > 2
    pieces = [piece for part in made for piece in part.frags]
    assert {piece.fontName for piece in pieces} == {"Report-Italic", "Report-BoldItalic"}
    told = " ".join(piece.text for piece in pieces).split()
    assert told == ["some", "bold", "words"] * 200


def test_what_takes_too_long_leaves_the_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_pages, "SECONDS", -1.0)
    held = record({"a": {"display": {"rule_display": "hidden"}, "error": "why"}})
    name, document = report.drawn(json.encode(held))
    text = " ".join(texts(document))
    assert name == "Case.pdf"
    assert "What the rules say has no room here" in text
    assert "why" in text
    assert "hidden" not in text
