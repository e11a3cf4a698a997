"""Bodies on their way in: what lacks is filled, what is wrong is named, what is unknown stays."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insula.errors import BadInput
from insula.kit.json import decode
from insula.workflows.draft import key_from, merged, prepare

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Invoice triage", "invoice_triage"),
        ("Übergrößen – prüfen!", "ubergroen_prufen"),
        ("請求書", "workflow"),
        ("3 steps", "workflow_3_steps"),
        ("Input", "workflow_input"),
        ("class", "workflow_class"),
    ],
)
def test_a_key_is_made_from_the_name(name: str, key: str) -> None:
    assert key_from(name) == key


@given(st.text(min_size=1, max_size=200))
def test_every_name_makes_an_identifier(name: str) -> None:
    key = key_from(name)
    assert key.isascii()
    assert key.isidentifier()
    assert key not in ("input", "item", "index", "console", "class", "if", "return")


@settings(max_examples=25, deadline=None)
@given(json_values.filter(lambda value: value is not None))
async def test_unknown_properties_of_steps_survive(value: object) -> None:
    step = {"type": "code", "key": "one", "code": "return 1", "colour": value}
    draft = await prepare({"key": "sum", "steps": [step]})
    kept = decode(draft.body)["steps"][0]["colour"]
    assert kept == value
    assert repr(kept) == repr(value)


async def test_every_problem_is_named_with_its_path() -> None:
    steps = [
        {"type": "code", "key": "one", "code": "return 1", "destinations": ["nowhere"]},
        {"type": "code", "key": "one", "code": 3},
    ]
    with pytest.raises(BadInput) as caught:
        await prepare({"key": "sum", "steps": steps})
    paths = {error.path[:2] for error in caught.value.errors}
    assert {("steps", "0"), ("steps", "1")} <= paths


async def test_what_a_draft_lacks_is_filled_in() -> None:
    draft = await prepare({"key": "sum", "steps": [{"type": "code", "key": "one"}]})
    body = decode(draft.body)
    assert list(body) == ["key", "input", "input_default", "input_options", "steps"]
    assert body["steps"][0]["code"] == ""
    assert [problem["path"][:2] for problem in decode(draft.problems)] == [["steps", "0"]]


def test_merging_replaces_what_is_given_and_keeps_the_rest() -> None:
    assert merged(b'{"key":"a","steps":[1]}', {"steps": []}) == {"key": "a", "steps": []}
