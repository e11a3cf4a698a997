from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.effort import costing_at_most

from insula.engine.masking import MASK, Masker
from insula.kit import json
from insula.kit.json import Raw

SECRET = 'pä"ss\\w/ord 😀!'
WAYS = {
    "as it is": SECRET,
    "JSON": json.encode(SECRET).decode()[1:-1],
    "JSON in ASCII": "".join(
        f"\\u{unit:04x}" for unit in memoryview(SECRET.encode("utf-16-le")).cast("H")
    ),
    "half of it escaped": SECRET.replace("\\", "\\\\").replace('"', '\\"').replace("s", "\\u0073"),
    "JSON with slashes": json.encode(SECRET).decode()[1:-1].replace("/", "\\/"),
    "JSON in JSON": json.encode(json.encode(SECRET).decode()[1:-1]).decode()[1:-1],
    "a URL": quote(SECRET, safe=""),
    "a path": quote(SECRET),
    "a form": quote_plus(SECRET),
    "a path in Go's JSON": json.encode(quote(SECRET, safe="!&"))
    .decode()[1:-1]
    .replace("!", "\\u0021"),
    "percents escaped": quote(SECRET, safe="").replace("%", "\\u0025"),
    "escapes and percents": "\\u0070%c3\\u00a4"[:6] + quote(SECRET[1:], safe=""),
    "JSON in ASCII in a URL": quote(
        "".join(f"\\u{unit:04x}" for unit in memoryview(SECRET.encode("utf-16-le")).cast("H")),
        safe="",
    ),
    "lower case": quote(SECRET).replace("%C3", "%c3").replace("%F0", "%f0"),
}


@pytest.mark.parametrize("written", WAYS.values(), ids=list(WAYS))
def test_a_value_is_covered_however_it_is_written(written: str) -> None:
    masker = Masker([SECRET])
    text = f"before {written} after"
    assert masker.text(text) == f"before {MASK} after"
    for cut in range(len(text) + 1):
        stream = masker.stream()
        pieces = [stream.feed(text[:cut]), stream.feed(text[cut:]), stream.finish()]
        assert "".join(pieces) == f"before {MASK} after"
    stream = masker.stream()
    assert "".join([*map(stream.feed, text), stream.finish()]) == f"before {MASK} after"


SENT = {
    "a host": ("Tenant-7Qx9.Internal", "tenant-7qx9.internal"),
    "a host with its port": ("Tenant-7Qx9.Internal:8443", "tenant-7qx9.internal:8443"),
    "an address": ("https://Hooks.A.Test/Ab/Cd", "https://hooks.a.test/Ab/Cd"),
    "with a query": ("https://Hooks.A.Test?token=Ab", "https://hooks.a.test?token=Ab"),
    "with a user": ("HTTPS://Us:Pw@A.Test:443/Ab", "https://a.test/Ab"),
    "with a line break": ("https://a.test/Ab/Cd\n", "https://a.test/Ab/Cd"),
    "a token with white space": (" sk-live-0123\r\n", "sk-live-0123"),
    "UTF-8 read as Latin-1": ("€uro-passwort", "€uro-passwort".encode().decode("latin-1")),
}


@pytest.mark.parametrize(("value", "told"), SENT.values(), ids=list(SENT))
def test_a_value_is_covered_as_it_comes_back_from_where_it_was_sent(value: str, told: str) -> None:
    masker = Masker([value])
    for written in (value, told, quote(told, safe="")):
        assert masker.text(f"before {written} after") == f"before {MASK} after"
    assert masker.text(f"before {told[1:]}") == f"before {told[1:]}"


def test_what_can_not_begin_a_value_is_not_held_back() -> None:
    stream = Masker(["sk-live-1234", "sk-test-5678"]).stream()
    assert stream.feed("The key is s") == "The key is "
    assert stream.feed("mall, and sk-") == "small, and "
    assert stream.feed("live") == ""
    assert stream.feed("-1235. \\") == "sk-live-1235. "
    assert stream.feed("x%") == "\\x"
    assert stream.finish() == "%"


def test_values_that_overlap_are_one_and_neighbours_are_two() -> None:
    masker = Masker(["abcdefghij", "ghijklmnop", "abcdefgh", "cdefghij"])
    assert masker.text("xabcdefghijklmnopx") == f"x{MASK}x"
    assert masker.text("abcdefghabcdefgh") == MASK + MASK
    assert masker.text("abcdefghi") == MASK + "i"


def test_values_that_are_too_short_are_none() -> None:
    assert not Masker(["short", "1234567"])
    assert Masker(["short"]).text("short") == "short"


LETTERS = 'ab\\u0061%2/"'
TEXTS = st.text(LETTERS, max_size=60)


@given(st.lists(st.text("ab\\%/", min_size=8, max_size=12), min_size=1, max_size=5), st.data())
@settings(max_examples=200, deadline=None)
def test_a_stream_is_covered_like_the_whole(values: list[str], data: st.DataObject) -> None:
    masker = Masker(values)
    text = "".join(
        data.draw(st.lists(st.one_of(TEXTS, st.sampled_from(values)), min_size=1, max_size=4))
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    stream = masker.stream()
    pieces = [stream.feed(text[start:end]) for start, end in pairwise([0, *cuts, len(text)])]
    whole = masker.text(text)
    assert "".join([*pieces, stream.finish()]) == whole
    assert not any(value in whole for value in values)


@pytest.mark.parametrize("end", ["\\", "%", "%4", "\\u00"])
@pytest.mark.parametrize("begin", ["a", "\\u0061", "%61"])
def test_what_looks_like_an_escape_at_the_end_of_a_stream_is_none(begin: str, end: str) -> None:
    value = f"abcdefgh{end}"
    masker = Masker([value])
    text = f"{begin}bcdefgh{end}"
    for cut in range(len(text) + 1):
        stream = masker.stream()
        said = stream.feed(text[:cut]) + stream.feed(text[cut:]) + stream.finish()
        assert said == masker.text(text) == MASK


@given(st.lists(st.text("ab", min_size=8, max_size=12), min_size=1, max_size=6), st.text("ab"))
@settings(max_examples=200, deadline=None)
def test_every_value_is_found_wherever_it_stands(values: list[str], text: str) -> None:
    covered = [False] * len(text)
    for value in values:
        for at in range(len(text) - len(value) + 1):
            if text.startswith(value, at):
                covered[at : at + len(value)] = [True] * len(value)
    found = [False] * len(text)
    for start, end in Masker(values).spans(text.encode()):
        found[start:end] = [True] * (end - start)
    assert found == covered


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"a":"12345678","b":12345678,"c":1.5}', '{"a":"•••","b":"•••","c":1.5}'),
        ('{"12345678":[1,{"x":"a\\u003112345678"}]}', '{"•••":[1,{"x":"a1•••"}]}'),
        ("123456789", '"•••"'),
        ('["\\u0031\\u0032345678",true,null]', '["•••",true,null]'),
        ("[12345678", '"[•••"'),
    ],
)
def test_json_stays_json(before: str, after: str) -> None:
    assert bytes(Masker(["12345678"]).json(Raw(before.encode()))).decode() == after


def test_a_value_that_looks_like_structure_harms_none() -> None:
    text = Raw(b'{"a":1,"b":2,"c":",\\"b\\":2,\\""}')
    masked = json.decode(Masker([',"b":2,"']).json(text))
    assert masked == {"a": 1, "b": 2, "c": MASK}


def test_json_that_holds_no_value_is_the_same_object() -> None:
    text = Raw(b'{"a":1.0}')
    assert Masker(["12345678"]).json(text) is text


def test_many_values_and_much_data_are_no_matter() -> None:
    values = [f"sk-live-{number:032x}" for number in range(1000)]
    masker = Masker(values)
    quiet = (b"nothing to be seen here, and no sk-live key either %41\\n" * 100_000)[: 5 << 20]
    loud = b"sk-live-" * (5 << 17)
    with costing_at_most(2000):
        assert masker.spans(quiet) == []
        assert masker.data(quiet[:-40] + values[7].encode()).endswith(MASK.encode())
    with costing_at_most(2000):
        assert masker.spans(loud) == []


def test_values_that_repeat_themselves_are_no_matter() -> None:
    masker = Masker(["a" * length for length in range(8, 260)])
    with costing_at_most(1250):
        assert masker.spans(b"a" * (1 << 20)) == [(0, 1 << 20)]


def _in_json(text: str, draw: st.DrawFn) -> str:
    return "".join(f"\\u{ord(c):04x}" if draw(st.booleans()) else c for c in text)


def _percent(text: str, draw: st.DrawFn) -> str:
    return "".join(f"%{ord(c):02x}" if draw(st.booleans()) or c == "%" else c for c in text)


@st.composite
def _mixed(draw: st.DrawFn) -> str:
    """The value ``sk-live-&1``, percent-encoded and then escaped, or the other way round."""
    if draw(st.booleans()):
        return _in_json(_percent("sk-live-&1", draw), draw)
    return _percent(_in_json("sk-live-&1", draw), draw)


@given(_mixed(), st.text(LETTERS, max_size=5), st.data())
@settings(max_examples=200, deadline=None)
def test_mixtures_are_covered(written: str, beside: str, data: st.DataObject) -> None:
    masker = Masker(["sk-live-&1"])
    text = f"{beside} {written} {beside}"
    assert masker.text(text) == f"{beside} {MASK} {beside}"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    stream = masker.stream()
    pieces = [stream.feed(text[start:end]) for start, end in pairwise([0, *cuts, len(text)])]
    assert "".join([*pieces, stream.finish()]) == f"{beside} {MASK} {beside}"


def test_json_whose_texts_are_percent_encoded_is_covered() -> None:
    text = Raw(b'{"a":"\\u002573\\u00256b-live-%261","b":"\\u0073%6b%2dlive-&1"}')
    assert json.decode(Masker(["sk-live-&1"]).json(text)) == {"a": MASK, "b": MASK}
