"""YAML is JSON written otherwise: everything reads back exactly, and nothing else is read."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insula.errors import BadInput
from insula.workflows import yaml_text

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
words = ["", "null", "~", "yes", "No", "1", "1e3", "0x1F", ".inf", "2024-01-01", "1:30", "<<", "="]
marks = ["- a", "a: b", "#x", "&a", "\ufeff", "'\"\n"]
lines = ["\n", " \n x", "x\n", "x\n\n", "\tx\n y", "é\nü", "\x85\n"]
awkward = st.sampled_from([*words, *marks, *lines])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | awkward
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts | awkward, inner, max_size=4),
    max_leaves=15,
)


@settings(max_examples=200, deadline=None)
@given(values)
def test_what_is_written_reads_back(value: Any) -> None:
    read = yaml_text.load(yaml_text.dump(value).encode())
    assert read == value
    assert repr(read) == repr(value)  # 1 and 1.0 and True are not the same


def test_code_is_written_as_a_block() -> None:
    code = "const a = 1;\nreturn a;\n"
    assert yaml_text.dump({"code": code}) == "code: |\n  const a = 1;\n  return a;\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("a: yes\nb: off", {"a": "yes", "b": "off"}),
        ("2024-01-01", "2024-01-01"),
        ("[0x1F, 0o17, 017, 1., .5, 1e3]", [31, 15, 17, 1.0, 0.5, 1000.0]),
        ("1: x\nnull: y", {"1": "x", "null": "y"}),
        ("!!str 12", "12"),
        ("'~'", "~"),
        ("a: {b: [c]}\n# done", {"a": {"b": ["c"]}}),
    ],
)
def test_plain_words_are_those_of_the_core_schema(text: str, value: object) -> None:
    assert yaml_text.load(text.encode()) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: &x 1\nb: *x", "anchors"),
        ("!!python/object/apply:os.system [ls]", "tag"),
        ("!!timestamp 2024-01-01", "tag"),
        ("a: .nan", "no number"),
        ("a: 1e999", "no number"),
        ("{a: 1, a: 2}", "twice"),
        ("{[1]: 2}", "name"),
        ("a: 1\n--- \nb: 2", "more than one"),
        ("a: [1", "line"),
        ("[" * 300 + "]" * 300, "deeper"),
        ('"\\ud800"', "."),
        ("a: '\x00'", "."),
    ],
)
def test_what_json_does_not_have_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        yaml_text.load(text.encode())


def test_bytes_that_are_no_text_and_floods_are_refused() -> None:
    with pytest.raises(BadInput, match="UTF-8"):
        yaml_text.load(b"a: \xff")
    with pytest.raises(BadInput, match="bytes"):
        yaml_text.load(b"a" * (yaml_text.LIMIT + 1))
