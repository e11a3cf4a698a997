"""Templates: paths, expressions, escaping, types, bounds."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import costing_at_most

from insula.engine.failures import StepFailure
from insula.engine.template import (
    SETTINGS_MAX,
    FileValue,
    Filling,
    Kind,
    compile_template,
    render,
    render_parts,
    render_value,
)
from insula.kit.json import Raw, decode, raw

SCOPE: Mapping[str, Any] = {
    "input": {"a": 'x"y\n', "n": 3, "o": {"k": [1, {"z": None}]}, "s": "a b/c?d", "t": True},
    "STEP": {"output": {"list": [1, 2, 3], "😀": "😀x", "a b": 1}, "status": "COMPLETED"},
    "variables": {"KEY": "v"},
    "injected": "{{input.n}}",
}


def lookup(name: str) -> Raw | None:
    return raw(SCOPE[name]) if name in SCOPE else None


def fill(text: str, kind: Kind = "text", *values: Any) -> str:
    return render(compile_template(text, kind), Filling(lookup), [raw(value) for value in values])


def value_of(text: str, *values: Any) -> Any:
    return decode(render_value(compile_template(text), Filling(lookup), [raw(v) for v in values]))


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("no holes } { }}", "no holes } { }}"),
        ("n={{input.n}}.", "n=3."),
        ("{{ input ?. o . k [ 0 ] }}", "1"),
        ("{{input?.o?.['k']?.[0]}}", "1"),
        ("{{STEP.output['😀']}}{{STEP.output[\"a b\"]}}", "😀x1"),
        ("{{STEP.output.list.length}} {{STEP.output['😀'].length}}", "3 3"),
        ("{{input.a.length}}{{input.s[0]}}", "4a"),
        ("{{input.o}}", '{"k":[1,{"z":null}]}'),
        ("{{input.t}}{{input.o.k[1].z}}", "true"),
        ("[{{input.q.r[7].s}}{{nobody.output}}{{input.n.x}}{{STEP.output.list[9]}}]", "[]"),
        ("{{injected}}", "{{input.n}}"),
        ("{{env.KEY}}{{secrets.KEY}}{{variables['KEY']}}", "vvv"),
    ],
)
def test_paths(text: str, filled: str) -> None:
    template = compile_template(text)
    assert template.error is None
    assert not template.scripts
    assert fill(text) == filled


def test_expressions_are_handed_out_in_order_and_their_values_put_in() -> None:
    template = compile_template("{{a + 1}} {{input.n}} {{ {b: {c: 1}}}}{{Math.PI}}{{true}}")
    assert template.scripts == ("a + 1", "{b: {c: 1}}", "Math.PI", "true")
    assert {"a", "input", "Math"} <= template.names
    values = [raw("x"), raw({"b": 1}), None, raw(True)]
    assert render(template, Filling(lookup), values) == 'x 3 {"b":1}true'


@pytest.mark.parametrize(
    "expression",
    [
        '"}}" + x',
        "'}}' + x",
        "`}}${ {a: '}}'}.a }}}` + x",
        'x.replace(/}}"/g, "")',
        "x /* }} */ + 1",
        "{a: {b: 1}}.a",
        "[{a: 1}, {b: {}}][0].a",
        "f({a: 1}) / g / 2",
        "(() => { return {a: {}} })()",
    ],
)
def test_braces_inside_javascript_do_not_end_a_hole(expression: str) -> None:
    template = compile_template(f"<{{{{{expression}}}}}>")
    assert template.error is None
    assert template.scripts == (expression,)
    assert fill(f"<{{{{{expression}}}}}>", "text", 1) == "<1>"


@pytest.mark.parametrize(
    "text",
    ["{{", "a {{ b", "{{}}", "{{ }}", "{{ 'it }}", "{{ ) }}", "{{return 1}}", "{{a b}}", "{{`}}"],
)
def test_what_is_no_template_says_so_and_fails(text: str) -> None:
    template = compile_template(text)
    assert template.error is not None
    assert "line 1" in template.error
    with pytest.raises(StepFailure) as failure:
        render(template, Filling(lookup), [])
    assert failure.value.code == "script"


def test_one_hole_keeps_its_type() -> None:
    assert value_of("{{input.o}}") == SCOPE["input"]["o"]
    assert value_of(" {{input.n}}\n") == 3
    assert value_of("{{input.missing}}") is None
    assert value_of("{{ [1].concat(2) }}", [1, 2]) == [1, 2]
    assert value_of("n: {{input.n}}") == "n: 3"
    assert render_value(compile_template("{{x + 1}}"), Filling(lookup), [None]) == Raw(b"null")


def test_json_is_escaped_inside_strings_and_whole_outside() -> None:
    text = (
        '{"a": "{{input.a}}", "b": {{input.a}}, "c": {{input.o}}, "d": "<{{input.o}}>",'
        ' "e": "\\"{{input.a}}\\\\", "f": {{input.q}}, "g": "{{input.q}}"}'
    )
    a, o = SCOPE["input"]["a"], SCOPE["input"]["o"]
    o_text = json.dumps(o, separators=(",", ":"))
    assert json.loads(fill(text, "json")) == {
        "a": a,
        "b": a,
        "c": o,
        "d": f"<{o_text}>",
        "e": f'"{a}\\',
        "f": None,
        "g": "",
    }


def test_urls_are_encoded_in_path_and_query_only() -> None:
    assert fill("https://{{input.s}}/{{input.s}}?q={{input.s}}", "url") == (
        "https://a b/c?d/a%20b%2Fc%3Fd?q=a%20b%2Fc%3Fd"
    )
    assert fill("{{variables.KEY}}/x/{{input.s}}", "url") == "v/x/a%20b%2Fc%3Fd"
    assert fill("{{input.s}}", "url") == "a b/c?d"
    assert fill("http://h:1/{{input.o}}", "url") == "http://h:1/" + (
        "%7B%22k%22%3A%5B1%2C%7B%22z%22%3Anull%7D%5D%7D"
    )


def test_a_header_refuses_control_characters() -> None:
    assert fill("Bearer {{input.n}}", "header") == "Bearer 3"
    with pytest.raises(StepFailure) as failure:
        fill("Bearer {{input.a}}", "header")
    assert failure.value.code == "input"


def test_files_stand_in_messages_only() -> None:
    template = compile_template(
        "See {{input.doc:contents}} and {{ input.docs[0]:images }}{{STEP.output.q:file}}!"
    )
    assert [hole.suffix for hole in template.files] == ["contents", "images", "file"]
    assert template.names == {"input", "STEP"}
    file = raw({"id": "file_1"})
    scope = {"input": raw({"doc": {"id": "file_1"}})}
    pieces = render_parts(template, Filling(scope.get), [])
    assert pieces == [
        "See ",
        FileValue("contents", file),
        " and ",
        FileValue("images", None),
        FileValue("file", None),
        "!",
    ]
    with pytest.raises(StepFailure, match="model messages only"):
        render(template, Filling(lookup), [])
    assert not compile_template("{{a ? b:file}}").files


def test_a_value_that_is_no_text_fails_in_words() -> None:
    broken = Raw(b'"\\ud800"')
    with pytest.raises(StepFailure):
        render(compile_template("x{{a}}"), Filling(lambda _: broken), [])
    with pytest.raises(StepFailure):
        render(compile_template("{{a.b.c}}"), Filling(lambda _: Raw(b'{"b": [')), [])


def test_bounds() -> None:
    assert "10000" in str(compile_template("{{a}}" * 10_001).error)
    assert "65536" in str(compile_template("{{" + " " * 70_000 + "a}}").error)
    big = raw("x" * 1_000_000)
    with pytest.raises(StepFailure, match="67,108,864") as failure:
        render(compile_template("{{a}}" * 100), Filling(lambda _: big), [])
    assert failure.value.code == "limit_settings"


@pytest.mark.parametrize("fill_in", [render, render_parts, render_value])
def test_the_settings_of_a_step_share_their_room(fill_in: Any) -> None:
    filling = Filling(lambda _: raw("x" * 1_000_000))
    for _ in range(SETTINGS_MAX // 1_000_100):
        fill_in(compile_template("{{a}}"), filling, [])
    with pytest.raises(StepFailure, match="settings come to more"):
        fill_in(compile_template("{{a}}"), filling, [])


@pytest.mark.parametrize(
    "text",
    [
        "{{" * 50_000,
        "{{a}}" * 10_000,
        "{{a+1}}" * 10_000,
        "{{ {" * 20_000,
        "{{ `${" * 15_000,
        "{{ " + "/" * 60_000 + " }}",
        "{{ " + "/[ " * 20_000 + " }}",
        "{{" + " " * 60_000 + "x y}}",
        "{{ a" + "[0]" * 15_000 + "}}",
        "{{ a" + " . b" * 15_000 + " ! }}",
        "x{{a}}\n" * 9_999,
        '"\\' * 500_000 + "{{a}}",
    ],
)
@pytest.mark.parametrize("kind", ["text", "json", "url"])
def test_a_template_bomb_costs_little(text: str, kind: Kind) -> None:
    with costing_at_most(500):
        template = compile_template(text, kind)
        if template.error is None:
            render(template, Filling(lambda _: raw({"b": 1})), [raw(1)] * len(template.scripts))


def test_a_big_value_is_read_once() -> None:
    big = raw({"a": list(range(100_000))})
    template = compile_template("".join(f"{{{{input.a[{i}]}}}}" for i in range(10_000)))
    with costing_at_most(500):
        assert render(template, Filling(lambda _: big), []).startswith("01234567891011")


def test_the_characters_of_a_long_text_are_read_once() -> None:
    long = raw({"s": "0123456789" * 1_000_000})
    template = compile_template("".join(f"{{{{input.s[{i}]}}}}" for i in range(1_000)))
    with costing_at_most(500):
        assert render(template, Filling(lambda _: long), []) == "0123456789" * 100


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100)
@given(values, texts)
def test_what_goes_into_json_comes_out_again(value: Any, around: str) -> None:
    quoted = json.dumps(around).replace("{{", "{\\u007b")
    text = f'{{"before": {quoted}, "value": {{{{v}}}}, "text": "{{{{t}}}}"}}'
    filled = render(
        compile_template(text, "json"), Filling({"v": raw(value), "t": raw(around)}.get), []
    )
    assert json.loads(filled) == {"before": around, "value": value, "text": around}


@settings(max_examples=100)
@given(texts)
def test_what_goes_into_a_url_comes_out_again(value: str) -> None:
    url = render(
        compile_template("http://h/p/{{v}}?q={{v}}#{{v}}", "url"), Filling(lambda _: raw(value)), []
    )
    path, _, rest = url.removeprefix("http://h/p/").partition("?q=")
    query, _, fragment = rest.partition("#")
    assert [unquote(part) for part in (path, query, fragment)] == [value] * 3


@settings(max_examples=100)
@given(values)
def test_one_hole_gives_exactly_the_value(value: Any) -> None:
    found = render_value(compile_template("{{v}}"), Filling(lambda _: raw(value)), [])
    assert decode(found) == value


@settings(max_examples=200)
@given(st.text(alphabet="{}ab.'\"`$/\\[]0:? \n", max_size=60))
def test_any_text_is_read(text: str) -> None:
    for kind in ("text", "json", "url"):
        template = compile_template(text, kind)
        if template.error is None and not template.files:
            render(template, Filling(lookup), [raw("x")] * len(template.scripts))
