"""What mappings copy, in which order, and how much at most."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insula.collections import mappings
from insula.errors import BadInput
from insula.kit import json


def mapping(source: str, *destinations: str) -> dict[str, Any]:
    return {"source_path": source, "destination_paths": list(destinations)}


def test_values_go_on_in_the_order_of_the_list() -> None:
    inputs: mappings.Inputs = {"a": {"x": {"y": [1, {"z": 2}]}}, "b": None, "c": {"n": 1}}
    made = mappings.apply(
        inputs,
        [
            mapping("a:x.y.1.z", "b:first", "c:deep.inner", "gone:x", "c:n.below"),
            mapping("b:first", "c:again"),
            mapping("c:nothing", "a:x"),
        ],
    )
    assert made == {
        "a": {"x": {"y": [1, {"z": 2}]}},
        "b": {"first": 2},
        "c": {"n": 1, "deep": {"inner": 2}, "again": 2},
    }
    assert inputs == {"a": {"x": {"y": [1, {"z": 2}]}}, "b": None, "c": {"n": 1}}


def test_copies_are_apart_from_what_they_are_of() -> None:
    inputs: mappings.Inputs = {"a": {"x": {"y": 1}}, "b": {}}
    made = mappings.apply(inputs, [mapping("a:x", "b:x", "a:x.old"), mapping("a:x", "b:x.more")])
    assert made["a"] == {"x": {"y": 1, "old": {"y": 1}}}
    assert made["b"] == {"x": {"y": 1, "more": {"y": 1, "old": {"y": 1}}}}


@pytest.mark.parametrize(
    "circle",
    [
        [mapping("a:x", "a:x.left", "a:x.right")] * 1_000,
        [mapping("a:x", "b:x.back"), mapping("b:x", "a:x.on", "a:x.more")] * 500,
        [mapping("a:x", *["b:x"] * 1_000)] * 1_000,
        [mapping("a:x", "a:" + "x." * 18 + "x")] * 1_000,
    ],
)
def test_mappings_that_feed_each_other_come_to_an_end(circle: list[dict[str, Any]]) -> None:
    with pytest.raises(BadInput, match=r"mappings copy|cannot be stored"):
        mappings.apply({"a": {"x": {"v": 1}}, "b": {"x": {}}}, circle)


_NAMES = st.sampled_from(["a", "b", "c"])
_PLACES = st.builds(
    lambda rule, path: f"{rule}:{'.'.join(path)}", _NAMES, st.lists(_NAMES, min_size=1, max_size=3)
)
_VALUES = st.recursive(
    st.integers(0, 3), lambda inner: st.dictionaries(_NAMES, inner, max_size=3), max_leaves=5
)
_INPUTS = st.dictionaries(_NAMES, st.none() | st.dictionaries(_NAMES, _VALUES, max_size=3))


@settings(max_examples=60)
@given(_INPUTS, st.lists(st.tuples(_PLACES, st.lists(_PLACES, max_size=3)), max_size=6))
def test_each_copy_is_what_its_source_was(inputs: Any, listed: list[tuple[str, list[str]]]) -> None:
    """One after the other, each on its own, as they are together."""
    before = json.encode(inputs)
    whole = mappings.apply(inputs, [mapping(source, *to) for source, to in listed])
    step: Any = inputs
    for source, to in listed:
        place = mappings.parse(source)
        assert place is not None
        held = mappings.at(step.get(place.rule), place.path)
        after = mappings.apply(step, [mapping(source, *to)])
        last = mappings.parse(to[-1]) if to else None
        if held is not None and last is not None and last.rule in step:
            found = mappings.at(after[last.rule], last.path)
            assert found in (held, mappings.at(step[last.rule], last.path))
        step = after
    assert whole == step
    assert json.encode(inputs) == before
