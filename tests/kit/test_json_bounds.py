"""JSON that a stranger sent: what ``check`` takes is what ``decode`` takes, within bounds."""

import json as standard
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insula.kit import json, json_bounds
from insula.kit.json import InvalidJson
from insula.kit.json_bounds import CONTAINERS, DEPTH, OverBounds, check, check_numbers

TOKENS = st.sampled_from(
    [
        *("[", "]", "{", "}", ",", ":", '"', "\\", '\\"', "\\\\", "\\ud800", "\\u0041", " ", "é"),
        *("true", "null", "e", "E", "+", "-", ".", "1", "1e999", "-1E+400", "1e308", "1e-999"),
        *("1" * 250 + "e99", "9" * 310, '"1e999"', '"[[["', '{"a":1}', "[[]]", "0" * 200),
    ]
)
VALUES = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
)


def taken(text: bytes) -> bool:
    try:
        check(text)
    except InvalidJson:
        return False
    return True


def decoded(text: bytes) -> bool:
    try:
        json.decode(text)
    except InvalidJson:
        return False
    return True


@pytest.fixture(params=[4, 5, 7, 1 << 18])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go through texts in small pieces too, cut wherever it hurts."""
    monkeypatch.setattr(json_bounds, "_PIECE", request.param)


@pytest.mark.usefixtures("piece")
def test_it_takes_what_decode_takes() -> None:
    @given(st.lists(TOKENS, max_size=12).map("".join))
    @settings(max_examples=300, deadline=None)
    def tokens(text: str) -> None:
        assert taken(text.encode()) == decoded(text.encode())

    @given(st.lists(VALUES, max_size=5), TOKENS, st.booleans())
    @settings(max_examples=100, deadline=None)
    def values(values: list[object], token: str, plain: bool) -> None:
        text = standard.dumps([*values, token], ensure_ascii=plain)[:-1] + ",1e999]"
        assert taken(text.encode(errors="replace")) is False
        text = text.replace(",1e999]", ',1e300,"1e999"]')
        assert taken(text.encode(errors="replace")) == decoded(text.encode(errors="replace"))

    tokens()
    values()


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("text", [b'"\xff"', b'"\xed\xa0\x80"', b'"\xc3', b"", b"[1,]", b"1 2"])
def test_what_is_no_json(text: bytes) -> None:
    assert not taken(text)


@pytest.mark.usefixtures("piece")
@pytest.mark.parametrize("beside", [b"", b'"[[[[\\"[[\\\\",' * 300])
def test_depth_is_bounded_outside_strings(beside: bytes) -> None:
    check(b"[" + beside + b"[" * (DEPTH - 1) + b"]" * (DEPTH - 1) + b"]")
    with pytest.raises(OverBounds, match="200 levels") as caught:
        check(b"[" + beside + b"[" * DEPTH + b"]" * DEPTH + b"]")
    assert caught.value.code == "too_deep"


def test_the_number_of_lists_is_bounded() -> None:
    check(b"[" + b"[]," * (CONTAINERS - 2) + b"[]]")
    with pytest.raises(OverBounds, match="1,000,000") as caught:
        check(b"[" + b"{}," * CONTAINERS + b"[]]")
    assert caught.value.code == "too_many"


@pytest.mark.usefixtures("piece")
def test_numbers_out_of_range_are_found_among_strings() -> None:
    check_numbers(b'{"1e999":"1e999","a":[1e30,' + b"1" * 299 + b"]}")
    for number in (b"1e999", b"-1e400", b"1" * 250 + b"e99", b"1" * 9_000):
        with pytest.raises(InvalidJson):
            check_numbers(b'["1e999",true,' + number + b"]")


@pytest.mark.parametrize(
    "text",
    [
        b"[" + b'"",' * 1_000_000 + b"1e100]",
        b"[" + b"1.5," * 1_000_000 + b"1e100]",
        b"[" + b"[]," * 900_000 + b"1e100]",
        b'["' + b"\\n" * 1_500_000 + b'",1e100]',
    ],
    ids=["texts", "numbers", "lists", "escapes"],
)
def test_nothing_is_built(text: bytes) -> None:
    tracemalloc.start()
    try:
        check(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(text) + 30 * 1024 * 1024
