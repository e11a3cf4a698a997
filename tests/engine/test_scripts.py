"""Reading JavaScript: names, references, engine, errors, and that hostile sources cost little."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import costing_at_most

from insula.engine.scripts import SOURCE_MAX, analyse, function_body


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("return a.b", {"a"}),
        ("`x${b.output}`", {"b"}),
        ("for (const x of y) z(x)", {"y", "z"}),
        ("for (var {a, b: c = d} of y) ; return [a, c]", {"y", "d"}),
        ("({a, ...b}) => [a, b, c]", {"c"}),
        ("[a, {b}] = c", {"a", "b", "c"}),
        ("try { f() } catch ({e}) { return e }", {"f"}),
        ("class A extends B { #x = y; static z() { return this.#x } }", {"B", "y"}),
        ("function* f(a = b) { yield a }", {"b"}),
        ("(function f() { return f + g })()", {"g"}),
        ("let q = 1; { let r = q; var s = r } return r + s", {"r"}),
        ("const {output: o = k, [m]: n} = x; return o + n", {"k", "m", "x"}),
        ("label: for (;;) { break label }", set()),
        ("return {a: 1, b, [c]: d}", {"b", "c", "d"}),
        (r"\u0061b.output", {"ab"}),
        ("input.map(input => input.x)", {"input"}),
        ("switch (k) { case 1: let w = v; return w }", {"k", "v"}),
        ("for (let i = n; i < m; i++) {} return i", {"n", "m", "i"}),
        ("typeof STEP === 'undefined'", {"STEP"}),
        ("", set()),
    ],
)
def test_names_are_those_that_nothing_declares(source: str, names: set[str]) -> None:
    script = analyse(source)
    assert script.error is None
    assert script.names == names


@pytest.mark.parametrize(
    ("source", "awaits"),
    [
        ("await f()", True),
        ("if (a) { return b + (await c) }", True),
        ("for await (const x of y) z(x)", True),
        ("async () => await f()", False),
        ("async function f() { for await (const x of y) z(x) } return f", False),
        ("return {await: 1}.await", False),
        ("'await' + `await`", False),
    ],
)
def test_what_awaits_does_so_outside_of_its_functions(source: str, awaits: bool) -> None:
    script = analyse(source)
    assert (script.error, script.awaits) == (None, awaits)


@pytest.mark.parametrize(
    ("source", "references"),
    [
        ("a.output + b?.status + c['error'] + d?.[\"logs\"]", {"a", "b", "c", "d"}),
        ("a.x.output", set()),
        ("a[output]", set()),
        ("items.map(total => total.output)", set()),
        ("const r = await fetch(u); return r.status", set()),
        ("r = f(); return r.status", set()),
        ("{ let a = 1 } return a.output", set()),
    ],
)
def test_references_are_names_read_like_steps_and_declared_nowhere(
    source: str, references: set[str]
) -> None:
    assert analyse(source).references == references


@pytest.mark.parametrize(
    ("source", "body"),
    [
        ("1 + 1", "return (\n1 + 1\n)"),
        ("x; // done", "return (\nx\n)"),
        ("x;;", "return (\nx\n)"),
        ("{a: 1}", "return (\n{a: 1}\n)"),
        ("{a: 1};", "return (\n{a: 1}\n)"),
        ("{}", "return (\n{}\n)"),
        ("{a: 1}.a", "return (\n{a: 1}.a\n)"),
        ("'use v8'; ä + 'ö'", "return (\nä + 'ö'\n)"),
        ("// why\nx // how", "return (\nx\n)"),
        ("a, b", "return (\na, b\n)"),
    ],
)
def test_a_bare_expression_is_returned(source: str, body: str) -> None:
    assert analyse(source).expression
    assert function_body(source) == body


@pytest.mark.parametrize(
    "source", ["return 1", "x; y", "{ return 1 }", "if (x) y", "const x = 1", ""]
)
def test_a_function_body_stays_as_it_is(source: str) -> None:
    assert not analyse(source).expression
    assert function_body(source) == source


@pytest.mark.parametrize(
    "source",
    [
        "a +",
        "foo(",
        "return (",
        "a) + (b",
        "const = 3",
        "{a: 1",
        "'x",
        "import a from 'b'",
        "<a>b</a>",
    ],
)
def test_what_does_not_parse_says_so(source: str) -> None:
    assert analyse(source).error is not None


def test_an_error_names_its_place() -> None:
    assert "line 2" in str(analyse("return [\n  a b\n]").error)


@pytest.mark.parametrize(
    "source",
    [
        "new Intl.NumberFormat('de')",
        "x.toLocaleString()",
        "({timeZone: 'UTC'})",
        "Temporal.Now",
        "globalThis['WebAssembly']",
        "'use v8'; return 1",
        "// use v8\nreturn 1",
        "/* use v8 */ 1",
    ],
)
def test_what_needs_or_asks_for_v8_gets_it(source: str) -> None:
    assert analyse(source).lane == "v8"


@pytest.mark.parametrize("source", ["'Intl is big'", "x // Intl", "internal", "// used v8\n1"])
def test_everything_else_gets_quickjs(source: str) -> None:
    assert analyse(source).lane == "quickjs"


def test_waiting_is_seen() -> None:
    assert analyse("return await x").waits
    assert analyse("return fetch(u).then(f)").waits
    assert not analyse("return 1 + input.x").waits


@pytest.mark.parametrize(
    "piece", ["(", "[", "{", "a+", "!", "`${", "(a,", "<a ", "async(", "f(x=>{", "[a,b,c,", "x=>"]
)
def test_a_hostile_source_costs_little(piece: str) -> None:
    with costing_at_most(750):
        analyse(piece * (50_000 // len(piece)))


def test_limits_are_named() -> None:
    assert str(SOURCE_MAX) in str(analyse("a" * (SOURCE_MAX + 1)).error)
    assert "250" in str(analyse("x=>" * 1000 + "1").error)
    assert "surrogate" in str(analyse("'\ud800'").error)


@settings(max_examples=200)
@given(st.text(alphabet="ab.(){}[]=>`$'\";,+/ \n1?:\\", max_size=60))
def test_any_text_is_read(source: str) -> None:
    script = analyse(source)
    assert script.error is None or not script.names
    assert script.references <= script.names
