"""The plan of a run: entries, edges, order, tools, ancestors."""

import pytest
from tests.effort import costing_at_most
from tests.engine.stage import branch, code, document, model, step

from insula.engine.graph import ELSE, ORDINARY, check_start, condition_group, outgoing, plan
from insula.errors import BadInput

FIELDS = {"input": {}}


def test_the_first_input_and_every_connected_step_are_entries() -> None:
    body = document(
        code("A", "B"),
        step("input", "IN", "B", **FIELDS),
        step("input", "SECOND", "C", **FIELDS),
        code("B"),
        code("C"),
        code("D", input_connected=True),
    )
    made = plan(body)
    assert made.entries == ("IN", "D")
    assert set(made.nodes) == {"IN", "B", "D"}
    assert made.keys == {"A", "IN", "SECOND", "B", "C", "D"}


def test_without_input_every_step_that_nothing_leads_to_is_an_entry() -> None:
    body = document(code("A", "B"), code("B"), code("C"), step("note", "N", "A", note="hm"))
    assert plan(body).entries == ("A", "C")


def test_a_step_that_must_not_be_begun_twice_says_so_for_the_plan() -> None:
    note = step("note", "N", note="hm")
    assert plan(document(code("A", "B"), code("B"), note)).may_repeat
    assert not plan(document(code("A", "B"), code("B", on_interrupt="fail"), note)).may_repeat


def test_a_step_that_only_serves_as_tool_is_no_entry() -> None:
    body = document(
        model("M", tools=["T", "external:X", "N", "MISSING"]),
        code("T", "A"),
        code("A"),
        step("note", "N", note=""),
    )
    made = plan(body)
    assert made.entries == ("M",)
    assert set(made.nodes) == {"M"}
    assert set(made.tools) == {"T"}


def test_a_tool_that_something_leads_to_also_runs_by_itself() -> None:
    made = plan(document(model("M", "T", tools=["T"]), code("T")))
    assert set(made.nodes) == {"M", "T"}


def test_notes_and_unknown_destinations_are_no_edges() -> None:
    made = plan(document(code("A", "N", "GONE", "B"), step("note", "N", "B", note=""), code("B")))
    assert [edge.target for edge in made.nodes["A"].edges] == ["B"]
    assert made.nodes["B"].incoming == 1


def test_a_start_is_the_only_entry() -> None:
    body = document(step("input", "IN", "A", **FIELDS), code("A", "B"), code("B"), code("C"))
    made = plan(body, "A")
    assert made.entries == ("A",)
    assert set(made.nodes) == {"A", "B"}
    assert made.nodes["A"].incoming == 1


@pytest.mark.parametrize(
    ("key", "reason"), [("GONE", "names no step"), ("N", "a note"), ("T", "only serves as a tool")]
)
def test_no_run_starts_from_a_note_a_tool_or_nothing(key: str, reason: str) -> None:
    body = document(model("M", tools=["T"]), code("T"), step("note", "N", "T", note=""))
    with pytest.raises(BadInput, match=reason) as refused:
        plan(body, key)
    assert refused.value.errors[0].path == ("from_step_key",)
    with pytest.raises(BadInput, match="stepKey"):
        check_start(body, key, "stepKey")


def test_a_run_may_start_from_a_tool_that_is_more_than_that() -> None:
    connected = document(model("M", tools=["T"]), code("T", input_connected=True))
    led_to = document(model("M", "T", tools=["T"]), code("T"))
    first = document(model("M", tools=["T"]), step("input", "T", **FIELDS))
    for body in (connected, led_to, first):
        check_start(body, "T", "stepKey")


def test_an_entry_waits_for_its_other_edges_too() -> None:
    made = plan(document(code("A", "B", input_connected=True), code("B", input_connected=True)))
    assert {key: node.incoming for key, node in made.nodes.items()} == {"A": 1, "B": 2}


def test_order_is_by_the_longest_distance_then_by_place() -> None:
    body = document(code("D"), code("C", "D"), code("A", "B", "C", "D"), code("B", "C"), code("Z"))
    made = plan(body)
    assert made.order == ("A", "Z", "B", "C", "D")
    assert made.nodes["D"].distance == 3


def test_ancestors_are_all_steps_that_a_path_leads_from() -> None:
    made = plan(document(code("A", "B"), code("B", "C"), code("C"), code("X", "C")))
    seen = {key for key in made.order if made.is_ancestor(key, "C")}
    assert seen == {"A", "B", "X"}
    assert not made.is_ancestor("C", "C")
    assert not made.is_ancestor("X", "B")
    assert made.downstream("B") == {"B", "C"}


def test_the_groups_of_a_branch() -> None:
    made = document(branch("X", {"yes": ["A", "A"], "": ["B"]}, "C", otherwise=("D",))).steps[0]
    told = [(edge.target, edge.group) for edge in outgoing(made)]
    assert told == [
        ("C", ORDINARY),
        ("A", condition_group("yes")),
        ("B", condition_group("")),
        ("D", ELSE),
    ]


@pytest.mark.parametrize("key", ["", "else", "\0else", "?"])
def test_no_condition_passes_for_ordinary_or_else(key: str) -> None:
    assert condition_group(key) not in (ORDINARY, ELSE)


def test_five_thousand_steps_are_laid_out_in_no_time() -> None:
    keys = [f"S{i}" for i in range(5_000)]
    chain = document(*(code(k, *keys[i + 1 : i + 2]) for i, k in enumerate(keys)))
    hub = step(
        "branch",
        "HUB",
        conditions={
            f"c{i}": {"destinations": keys[i * 1000 : i * 1000 + 1000], "order": i}
            for i in range(5)
        },
    )
    fan = document(hub, *(code(k, "END") for k in keys), code("END"))
    with costing_at_most(750):
        assert plan(chain).nodes["S4999"].distance == 4_999
        assert plan(fan).nodes["END"].incoming == 5_000
