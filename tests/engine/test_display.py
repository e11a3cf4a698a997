"""Display blocks: kept as they are where they can be shown, left out where not."""

from typing import Any

import pytest

from insula.engine.display import BLOCKS_MAX, BYTES_MAX, display_of
from insula.engine.events import Event, RunEnded, RunStarted, StepEnded, StepStarted
from insula.engine.state import fold
from insula.kit import json


def shown(output: Any, kind: str = "code") -> dict[str, Any]:
    events: list[Event] = [
        RunStarted(1),
        StepStarted(1, "last", kind, 1),
        StepEnded(2, "last", "COMPLETED", output=json.raw(output)),
        RunEnded(3, "COMPLETED", result_key="last"),
    ]
    return {name: json.decode(value) for name, value in display_of(fold(events)).items()}


def test_blocks_beside_the_result_and_in_it_are_kept() -> None:
    table = {"type": "table", "columns": ["a"], "rows": [[1], [2]], "variant": "warning"}
    output = {
        "result": {"passed": True, "rule_display": "**fine**", "display": "inner"},
        "display": [table, "text"],
        "summary_blocks": [{"type": "markdown", "content": "# x"}],
        "other": 1,
    }
    assert shown(output) == {
        "rule_display": "**fine**",
        "display": [table, "text"],
        "summary_blocks": [{"type": "markdown", "content": "# x"}],
    }


@pytest.mark.parametrize("value", [None, 1, True, 0.5])
def test_what_is_no_block_is_left_out(value: Any) -> None:
    assert shown({"display": value, "record_display": "kept"}) == {"record_display": "kept"}
    assert shown({"display": [value, "kept"]}) == {"display": ["kept"]}


def test_members_of_a_wrong_type_are_left_out() -> None:
    block = {"rows": "many", "variant": 3, "title": None, "content": {"any": 1}}
    assert shown({"display": block}) == {"display": {"content": {"any": 1}}}


def test_what_is_too_much_is_cut_or_left_out() -> None:
    assert len(shown({"display": ["x"] * (BLOCKS_MAX + 5)})["display"]) == BLOCKS_MAX
    assert len(shown({"display": {"rows": [1] * 5_000}})["display"]["rows"]) == BLOCKS_MAX
    large = {"display": "x" * BYTES_MAX, "rule_display": "small"}
    assert shown(large) == {"rule_display": "small"}


def test_only_code_says_what_is_shown() -> None:
    assert shown({"display": "x"}, kind="http_request") == {}
    assert shown(["display"]) == {}
    assert shown("display") == {}
