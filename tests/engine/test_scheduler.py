"""Which steps run next, decided from plan and outcomes alone."""

from tests.engine.stage import branch, code, document

from insula.engine.graph import ORDINARY, plan
from insula.engine.scheduler import Decision, begin, live_groups, resume, settle
from insula.engine.state import RunState, StepState
from insula.kit import json


def ended(key: str, status: str = "COMPLETED", **more: object) -> StepState:
    made = StepState(key, "code", status, 1, 2)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_a_join_waits_for_all_and_runs_if_one_is_live() -> None:
    made = plan(document(code("A", "J"), code("B", "J"), code("J")))
    frontier, first = begin(made)
    assert first == [Decision("A", run=True), Decision("B", run=True)]
    assert settle(made, frontier, ended("A", "SKIPPED")) == []
    assert settle(made, frontier, ended("B")) == [Decision("J", run=True)]


def test_skips_run_down_until_something_live_joins() -> None:
    made = plan(
        document(
            code("A", "B", "C"),
            code("B", "D"),
            code("C", "D"),
            code("D", "E"),
            code("E"),
            code("X", "E"),
        )
    )
    frontier, _ = begin(made)
    told = settle(made, frontier, ended("A", "SKIPPED"))
    assert told == [Decision("B", run=False), Decision("C", run=False), Decision("D", run=False)]
    assert settle(made, frontier, ended("X")) == [Decision("E", run=True)]


def test_what_makes_edges_live() -> None:
    assert live_groups(ended("A"))
    assert live_groups(ended("A", "SKIPPED", conditional=True))
    assert live_groups(ended("A", "FAILED"))
    assert not live_groups(ended("A", "SKIPPED"))
    assert not live_groups(ended("A", "CANCELLED"))


def test_a_branch_output_that_was_given_and_is_no_object_makes_ordinary_edges_live() -> None:
    for output in (7, "yes", [True], None):
        given = ended("X", type="branch", output=json.raw(output))
        assert live_groups(given) == {ORDINARY}


def _branch(status: str = "COMPLETED", output: object = None, *, conditional: bool = False):  # type: ignore[no-untyped-def]  # a decision's keys
    made = plan(
        document(
            branch("X", {"a": ["A"], "b": ["B"], "": ["C"]}, "O", otherwise=("E",)),
            *(code(k) for k in "ABCOE"),
        )
    )
    frontier, _ = begin(made)
    raw = None if output is None else json.raw(output)
    state = StepState("X", "branch", status, 1, 2, output=raw, conditional=conditional)
    return "".join(d.key for d in settle(made, frontier, state) if d.run)


def test_a_branch_opens_every_condition_that_holds() -> None:
    assert _branch(output={"a": True, "b": True, "": False}) == "OAB"
    assert _branch(output={"a": False, "b": True, "": True}) == "OBC"


def test_else_is_live_when_nothing_holds() -> None:
    assert _branch(output={"a": False, "b": False, "": False}) == "OE"


def test_a_branch_that_did_not_ask_opens_its_ordinary_destinations_only() -> None:
    assert _branch("FAILED") == "O"
    assert _branch("SKIPPED", conditional=True) == "O"
    assert _branch("SKIPPED") == ""


def test_forced_steps_run_whatever_leads_to_them() -> None:
    made = plan(document(code("A", "B"), code("B", "C"), code("C")))
    frontier, _ = begin(made, frozenset("B"))
    assert settle(made, frontier, ended("A", "SKIPPED")) == [Decision("B", run=True)]


def test_resuming_returns_what_is_decided_and_has_not_ended() -> None:
    made = plan(document(code("A", "B", "C"), code("B"), code("C", "D"), code("D")))
    running = ended("C", "RUNNING", end=None)
    state = RunState(steps={"A": ended("A"), "C": running})
    _, told = resume(made, state)
    assert told == [Decision("B", run=True), Decision("C", run=True)]


def test_resuming_goes_on_after_skipped_steps() -> None:
    made = plan(document(code("A", "B"), code("B", "C"), code("C", "D"), code("D")))
    state = RunState(steps={"A": ended("A", "SKIPPED"), "B": ended("B", "SKIPPED")})
    _, told = resume(made, state)
    assert [(d.key, d.run) for d in told] == [("C", False), ("D", False)]


def test_a_kept_step_counts_as_live_in_a_replay_of_a_replay() -> None:
    # S was forced in the first replay, behind a dead edge; the second one starts at Z.
    made = plan(document(branch("X", {"no": ["S"]}, "Z"), code("S", "T"), code("T"), code("Z")))
    output = json.raw({"no": False})
    x = StepState("X", "branch", "COMPLETED", 1, 2, output=output)
    state = RunState(steps={"X": x, "S": ended("S")})
    _, told = resume(made, state, frozenset("Z"))
    assert {(d.key, d.run) for d in told} == {("Z", True), ("T", True)}
