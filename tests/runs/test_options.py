"""What a run carries with it: changed, kept, and refused where it is none."""

from typing import Any

import pytest

from insula.kit.json import InvalidJson, decode, encode
from insula.runs.options import RunOptions, Spent, change_options, options_of
from insula.runs.rows import COLUMNS, RunRow


def row(options: Any) -> RunRow:
    given = dict.fromkeys(COLUMNS) | {"id": "run_a", "options": encode(options)}
    return RunRow(**given)  # type: ignore[arg-type]  # nothing else is asked for


def test_what_is_not_given_stands_nowhere() -> None:
    assert RunOptions().encoded() == b"{}"
    assert decode(RunOptions(timeout=9, closed=False).encoded()) == {"timeout": 9, "closed": False}
    assert options_of(row({})) == RunOptions()


def test_what_another_version_keeps_there_stays() -> None:
    held = row({"timeout": 9, "spent": {"ms": 1, "since": 2}, "later": {"x": 1}})
    changed = change_options(held, spent=Spent(5, 6), handles="run_b")
    assert decode(changed) == {
        "timeout": 9,
        "spent": {"ms": 5, "since": 6},
        "handles": "run_b",
        "later": {"x": 1},
    }
    assert "spent" not in decode(change_options(held, spent=None))


@pytest.mark.parametrize("options", [[], {"timeout": "soon"}, {"spent": 3}])
def test_what_is_none_of_ours_says_whose_it_is(options: Any) -> None:
    with pytest.raises(InvalidJson, match="options of run_a"):
        options_of(row(options))
