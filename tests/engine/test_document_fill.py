"""What a draft lacks is filled in, once, and then nothing that the contract requires is missing."""

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from insula.engine.document import check, fill


def step(**given_: Any) -> dict[str, Any]:
    return fill({"steps": [given_]})["steps"][0]  # type: ignore[no-any-return]  # a draft is any JSON


def test_the_empty_draft() -> None:
    assert fill({}) == {
        "key": "",
        "input": None,
        "input_default": None,
        "input_options": None,
        "steps": [],
    }


def test_each_type_of_step() -> None:
    assert step(type="note", key="a") == {"type": "note", "key": "a", "note": ""}
    assert step(type="code", key="a") == {"type": "code", "key": "a", "code": ""}
    assert step(type="http_request", key="a")["url"] == ""
    assert step(type="browser", key="a")["url"] == ""
    assert step(type="workflow", key="a")["input"] == {}
    assert step(type="service", key="a")["service"] == {}
    assert step(type="input", key="a")["input"] == {}
    assert step(type="branch", key="a")["conditions"] == {}
    assert step(type="model", key="a")["provider"] == {"provider": "", "model": "", "messages": []}


def test_a_null_is_left_out_where_the_contract_knows_none_and_kept_where_nobody_knows_it() -> None:
    given_ = {"type": "branch", "key": "a", "loop": None, "else": None, "studio": None, "x": [None]}
    assert step(**given_) == {
        "type": "branch",
        "key": "a",
        "studio": None,
        "x": [None],
        "conditions": {},
    }
    assert step(type="workflow", key="a", step_key=None, workflow_id=None) == {
        "type": "workflow",
        "key": "a",
        "step_key": None,
        "input": {},
    }


def test_what_is_inside() -> None:
    branch = step(type="branch", key="a", conditions={"x": {}, "y": {"order": 9}, "z": {}})
    assert branch["conditions"] == {
        "x": {"destinations": [], "order": 0},
        "y": {"destinations": [], "order": 9},
        "z": {"destinations": [], "order": 2},
    }
    asked = step(
        type="input",
        key="a",
        input={
            "s": {"type": "select"},
            "o": {"type": "object"},
            "p": {"type": "select", "options": [{"value": "v"}]},
        },
        webhook={},
    )
    assert asked["input"] == {
        "s": {"type": "select", "options": [{"label": "", "value": ""}]},
        "o": {"type": "object", "fields": {}},
        "p": {"type": "select", "options": [{"label": "v", "value": "v"}]},
    }
    assert asked["webhook"] == {"method": "POST"}


def test_null_counts_as_lacking_and_the_draft_is_left_alone() -> None:
    draft = {"steps": [{"type": "code", "key": "a", "code": None, "loop": None, "x": None}]}
    before = copy.deepcopy(draft)
    assert fill(draft)["steps"] == [{"type": "code", "key": "a", "code": "", "x": None}]
    assert draft == before


def test_what_is_there_stays() -> None:
    body = {"key": "k", "x": 1, "steps": [{"type": "code", "key": "a", "code": "1", "y": [None]}]}
    assert fill(body).items() >= body.items()


extras = st.fixed_dictionaries(
    {},
    optional={
        "display": st.sampled_from(["expanded", None]),
        "loop": st.none(),
        "destinations": st.just([]),
        "timeout": st.sampled_from([None, 1, 2.5]),
        "mine": st.integers() | st.none(),
    },
)
fields = st.recursive(
    st.sampled_from(["file", "number", "string", "boolean", "date", "select", "content"]).map(
        lambda kind: {"type": kind}
    ),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(
        lambda members: {"type": "object", **({"fields": members} if members else {})}
    ),
    max_leaves=5,
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"])}
) | st.fixed_dictionaries(
    {
        "role": st.just("user"),
        "content": st.lists(st.sampled_from([{"type": t} for t in ("text", "file", "image")])),
    }
)
own = {
    "note": st.fixed_dictionaries({}, optional={"note": st.none() | st.text(max_size=3)}),
    "input": st.fixed_dictionaries(
        {},
        optional={"input": st.dictionaries(st.sampled_from("abc"), fields), "webhook": st.just({})},
    ),
    "branch": st.fixed_dictionaries(
        {},
        optional={
            "conditions": st.dictionaries(
                st.sampled_from("abc"),
                st.fixed_dictionaries({}, optional={"condition": st.text(max_size=3)}),
            ),
            "else": st.none() | st.just([]),
        },
    ),
    "code": st.fixed_dictionaries({}, optional={"code": st.text(max_size=3)}),
    "model": st.fixed_dictionaries(
        {},
        optional={
            "provider": st.fixed_dictionaries(
                {},
                optional={
                    "provider": st.none() | st.just("mock"),
                    "messages": st.text(max_size=3) | st.lists(messages, max_size=3),
                    "tools": st.none() | st.just(["external:x", {"name": "external:y"}]),
                },
            )
        },
    ),
    "http_request": st.fixed_dictionaries({}, optional={"headers": st.none() | st.just({})}),
    "browser": st.just({}),
    "workflow": st.fixed_dictionaries({}, optional={"step_key": st.none()}),
    "service": st.just({}),
}
one_step = st.one_of(
    *(
        st.tuples(inner, extras).map(lambda pair, kind=kind: {"type": kind, **pair[0], **pair[1]})
        for kind, inner in own.items()
    )
)


@settings(max_examples=150)
@given(st.lists(one_step, max_size=6), st.booleans())
def test_a_filled_draft_lacks_nothing(steps: list[dict[str, Any]], keyed: bool) -> None:
    draft = {"steps": [{**part, "key": f"s{place}"} for place, part in enumerate(steps)]}
    if keyed:
        draft = {"key": "k", **draft}
    filled = fill(draft)
    assert fill(filled) == filled
    document, problems = check(filled)
    assert problems == []
    assert document is not None
