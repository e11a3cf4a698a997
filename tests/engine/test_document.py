"""Documents: every error at once with its path, in our words, and quickly."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import costing_at_most

from insula.engine.document import (
    BranchStep,
    CodeStep,
    HttpRequestStep,
    InputStep,
    ModelStep,
    ObjectField,
    check,
    fill,
)


def code(key: Any, *destinations: str, **more: Any) -> dict[str, Any]:
    return {"type": "code", "key": key, "code": "", "destinations": list(destinations), **more}


def found(*steps: Any, **body: Any) -> list[tuple[str, str]]:
    """Return the paths and codes of what is wrong with a body."""
    document, problems = check({"steps": list(steps), **body})
    assert (document is None) == bool(problems)
    return [(".".join(problem.path), problem.code) for problem in problems]


def message(*steps: Any, **body: Any) -> str:
    (problem,) = check({"steps": list(steps), **body})[1]
    return problem.message


def test_a_whole_document_is_read_with_all_it_holds() -> None:
    body = {
        "key": "triage",
        "color": "red",
        "input_default": {"a": 1},
        "steps": [
            {
                "type": "input",
                "key": "start",
                "input": {
                    "o": {
                        "type": "object",
                        "fields": {"n": {"type": "number", "list": {"path": "x"}}},
                    }
                },
                "webhook": {"method": "GET", "path": "/x"},
                "destinations": ["b"],
                "mark": [1],
            },
            {
                "type": "branch",
                "key": "b",
                "conditions": {"big": {"condition": "true", "destinations": ["h"], "order": 0}},
                "else": ["m"],
            },
            {
                "type": "http_request",
                "key": "h",
                "url": "x",
                "headers": {"a": "b"},
                "retry": {"max": 3, "backoff": 0.5, "on": ["timeout"]},
                "timeout": 5,
                "on_interrupt": "fail",
                "limits": {"cpu": 1, "memory": 1000000},
            },
            {
                "type": "model",
                "key": "m",
                "provider": {
                    "provider": "mock",
                    "model": "m",
                    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
                    "tools": ["t", {"name": "external:x", "input": {"q": {"type": "string"}}}],
                    "max_tokens": 10.0,
                    "script": ["anything"],
                },
            },
            code("t", throw_on_error=False),
        ],
    }
    document, problems = check(body)
    assert problems == []
    assert document is not None
    start, branch, request, model, tool = document.steps
    assert isinstance(start, InputStep)
    assert isinstance(start.input["o"], ObjectField)
    assert isinstance(branch, BranchStep)
    assert branch.else_ == ["m"]
    assert isinstance(request, HttpRequestStep)
    assert request.retry is not None
    assert request.retry.on == ["timeout"]
    assert isinstance(model, ModelStep)
    assert model.provider.max_tokens == 10
    assert model.provider.model_extra == {"script": ["anything"]}
    assert isinstance(tool, CodeStep)
    assert document.model_dump(exclude_unset=True) == {**body, "steps": body["steps"]}


@pytest.mark.parametrize(
    ("change", "path", "code_", "words"),
    [
        ({"code": 3}, "code", "type", '"code" is a number; give a text'),
        ({"throw_on_error": "1"}, "throw_on_error", "type", "is a text; give true or false"),
        ({"throw_on_error": 1}, "throw_on_error", "type", "is a number; give true or false"),
        ({"destinations": "a"}, "destinations", "type", "is a text; give a list"),
        ({"destinations": [3]}, "destinations.0", "type", 'item 0 of "destinations"'),
        ({"position": [1]}, "position", "too_few", "at least 2"),
        ({"position": [1, 2, 3]}, "position", "too_many", "at most 2"),
        ({"timeout": 0}, "timeout", "range", "greater than 0"),
        ({"timeout": True}, "timeout", "type", "is a boolean; give a number"),
        ({"timeout": float("inf")}, "timeout", "range", "finite"),
        ({"retry": {"max": 101}}, "retry.max", "range", "at most 100"),
        ({"retry": {"max": 1.5}}, "retry.max", "type", "whole number"),
        ({"retry": {}}, "retry.max", "required", "is missing; add it"),
        ({"retry": 3}, "retry", "type", "give an object"),
        ({"on_interrupt": "stop"}, "on_interrupt", "option", "'retry' or 'fail'"),
        ({"display": "big"}, "display", "option", "expanded"),
        ({"limits": {"cpu": -1}}, "limits.cpu", "range", "greater than 0"),
    ],
)
def test_shapes_and_types(change: dict[str, Any], path: str, code_: str, words: str) -> None:
    step = code("a", **change)
    assert found(step) == [(f"steps.0.{path}", code_)]
    assert words in message(step)


def test_other_types_of_steps_have_their_own_shapes() -> None:
    assert found(
        {"type": "http_request", "key": "a", "url": "", "method": "TRACE", "headers": {"x": 1}},
        {"type": "http_request", "key": "b", "url": "", "headers": 3},
        {"type": "input", "key": "c", "input": {"x": {"type": "zzz"}, "y": {}, "z": 1}},
        {"type": "model", "key": "d", "provider": {"provider": "", "model": "", "messages": [1]}},
        {"type": "branch", "key": "e", "conditions": {"x": {}}},
        {"type": "browser", "key": "f"},
        {"type": "nope", "key": "g"},
        {"key": "h"},
        3,
    ) == [
        ("steps.0.method", "option"),
        ("steps.0.headers.x", "type"),
        ("steps.1.headers", "type"),
        ("steps.2.input.x", "type"),
        ("steps.2.input.y", "type"),
        ("steps.2.input.z", "type"),
        ("steps.3.provider.messages.0", "type"),
        ("steps.4.conditions.x.destinations", "required"),
        ("steps.4.conditions.x.order", "required"),
        ("steps.5.url", "required"),
        ("steps.6.type", "option"),
        ("steps.7.type", "type"),
        ("steps.8", "type"),
    ]


@pytest.mark.parametrize(
    ("body", "path"),
    [(None, ()), ([], ()), ("x", ()), ({}, ("steps",)), ({"steps": {}}, ("steps",))],
)
def test_a_body_that_is_no_document(body: object, path: tuple[str, ...]) -> None:
    document, (problem,) = check(body)
    assert document is None
    assert problem.path == path


@pytest.mark.parametrize("value", ["\ud800", ["x\udfff"], {"\ud800": 1}])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    assert found(code("a", x=value)) == [("", "unicode")]


@pytest.mark.parametrize("key", ["", "1a", "a b", "a-b", "a.b", "ключ!", "a\n", " a"])
def test_keys_are_javascript_identifiers(key: str) -> None:
    assert found(code(key)) == [("steps.0.key", "identifier")]


@pytest.mark.parametrize(
    "key", ["input", "item", "util", "secrets", "class", "await", "null", "__proto__", "NaN"]
)
def test_reserved_keys(key: str) -> None:
    assert found(code(key)) == [("steps.0.key", "reserved")]


@pytest.mark.parametrize("key", ["a", "$", "_x", "$a1", "größe", "ключ", "result", "run", "Input"])
def test_good_keys(key: str) -> None:
    assert found(code(key)) == []


def test_duplicate_keys_name_the_first() -> None:
    steps = (code("a"), code("b"), code("a"), code("a"))
    assert found(*steps) == [("steps.2.key", "duplicate"), ("steps.3.key", "duplicate")]
    assert "step 0" in message(code("a"), code("a"))


def test_unknown_destinations_everywhere() -> None:
    branch = {
        "type": "branch",
        "key": "b",
        "destinations": ["x"],
        "conditions": {"c": {"destinations": ["b2", "y"], "order": 1}},
        "else": ["z"],
    }
    assert found(branch, code("b2", "q")) == [
        ("steps.0.destinations.0", "unknown_step"),
        ("steps.0.conditions.c.destinations.1", "unknown_step"),
        ("steps.0.else.0", "unknown_step"),
        ("steps.1.destinations.0", "unknown_step"),
    ]


def test_loops_stand_on_working_steps_only() -> None:
    assert found(
        {"type": "note", "key": "a", "note": "", "loop": "1"},
        {"type": "input", "key": "b", "input": {}, "loop": "1"},
        {"type": "branch", "key": "c", "conditions": {}, "loop": "1"},
        {"type": "branch", "key": "d", "conditions": {}, "loop": "  "},
        code("e", loop="1"),
    ) == [("steps.0.loop", "loop"), ("steps.1.loop", "loop"), ("steps.2.loop", "loop")]


def test_cycles_are_named_once_each() -> None:
    steps = (code("a", "b"), code("b", "c", "a"), code("c"), code("d", "d"), code("e", "d"))
    assert found(*steps) == [("steps.0.destinations", "cycle"), ("steps.3.destinations", "cycle")]
    circle = (code("a", "b"), code("b", "c"), code("c", "a"))
    assert "a → b → c → a" in message(code("z", "b"), *circle)


def test_a_tool_reference_counts_as_an_edge() -> None:
    model = {
        "type": "model",
        "key": "m",
        "provider": {"provider": "", "model": "", "messages": [], "tools": [{"name": "t"}]},
    }
    assert found(model, code("t", "m")) == [("steps.0.destinations", "cycle")]
    assert found(model, code("t")) == []


def test_branches_take_part_in_cycles_and_notes_do_not() -> None:
    branch = {"type": "branch", "key": "b", "conditions": {}, "else": ["a"]}
    assert found(code("a", "b"), branch) == [("steps.0.destinations", "cycle")]
    assert (
        found(code("a", "n"), {"type": "note", "key": "n", "note": "", "destinations": ["a"]}) == []
    )


def test_limits() -> None:
    assert found(*[code("a")] * 10_001) == [("steps", "too_many")]
    deep: Any = {}
    for _ in range(200):
        deep = {"a": deep}
    assert found(code("a", extra=deep)) == [("", "depth")]
    assert found(code("a" * 200)) == [("steps.0.key", "too_long")]
    assert found(code("a", *["a"] * 1001))[0] == ("steps.0.destinations", "too_many")
    assert len(check({"steps": [3] * 5000})[1]) == 1001
    headers = {str(i): i for i in range(5000)}
    step = {"type": "http_request", "key": "a", "url": "", "headers": headers}
    assert found(step) == [("steps.0", "shape")]


def test_a_large_document_takes_little_time() -> None:
    steps = [code(f"s{i}", f"s{i + 1}") for i in range(4999)] + [code("s4999")]
    with costing_at_most(500):
        assert found(*steps) == []
        steps[-1]["destinations"] = ["s0"]
        assert found(*steps) == [("steps.0.destinations", "cycle")]


def test_many_edges_are_refused() -> None:
    targets = [f"s{i}" for i in range(500)]
    layers = [code(key, *(f"t{i}" for i in range(500))) for key in targets]
    ends = [code(f"t{i}") for i in range(500)]
    assert found(*layers, *ends) == [("steps", "too_many")]
    conditions = {
        str(i): {"condition": "true", "destinations": targets, "order": i} for i in range(99)
    }
    branch = {"type": "branch", "key": "b", "conditions": conditions, "else": targets}
    assert found(branch, *(code(key) for key in targets)) == []
    branch["destinations"] = targets
    assert found(branch, *(code(key) for key in targets)) == [("steps", "too_many")]


def test_too_many_edges_are_counted_not_walked() -> None:
    targets = [f"s{i}" for i in range(1000)]
    steps = [code(f"s{i}", *targets) for i in range(5000)]
    with costing_at_most(500):
        assert found(*steps) == [("steps", "too_many")]


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_WORDS = """
type key steps code input fields conditions else destinations provider messages role content tools
name options label value order note url headers retry max position webhook loop
"""
_KINDS = """
note input branch code model http_request browser workflow service number select object user
"""
words = st.sampled_from(_WORDS.split())
kinds = st.sampled_from(_KINDS.split())
anything = st.recursive(
    scalars | kinds,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=6),
    max_leaves=25,
)


@settings(max_examples=100)
@given(anything, st.lists(anything, max_size=4))
def test_any_json_is_judged(body: object, steps: list[object]) -> None:
    for candidate in (body, {"steps": steps}, {"steps": body}):
        document, problems = check(candidate)
        assert (document is None) == bool(problems)
        assert all(isinstance(name, str) for problem in problems for name in problem.path)
        if isinstance(candidate, dict):
            filled = fill(candidate)
            assert repr(fill(filled)) == repr(filled)
            check(filled)
