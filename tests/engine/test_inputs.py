"""A run's input against its fields: kinds, defaults, text, files, errors."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from insula.engine.document import Field, FileField
from insula.engine.inputs import Checked, check_input, json_schema, place

_adapter = TypeAdapter(dict[str, Field])


def check(fields: dict[str, Any], given: object, default: object = None, **more: bool) -> Checked:
    return check_input(_adapter.validate_python(fields), given, default, **more)


def one(field: dict[str, Any], value: object, **more: bool) -> Checked:
    return check({"f": field}, {"f": value}, **more)


def choose(*values: str, **more: Any) -> dict[str, Any]:
    return {"type": "select", "options": [{"label": v, "value": v} for v in values], **more}


GOOD = [
    ({"type": "number"}, 3),
    ({"type": "number"}, -0.5),
    ({"type": "string"}, ""),
    ({"type": "string"}, "NUL \0 and 😀"),
    ({"type": "string", "validation": "url"}, "https://example.com:8080/a?b#c"),
    ({"type": "boolean"}, False),
    ({"type": "date"}, "2024-02-29"),
    ({"type": "datetime"}, "2026-01-31T12:00:00Z"),
    ({"type": "datetime"}, "2026-01-31T12:00:00.123+02:00"),
    ({"type": "time"}, "23:59"),
    (choose("a", "b"), "b"),
    (choose("a", additional_options=True), "z"),
    (choose("a", list={"path": "p"}), "z"),
    ({"type": "content"}, {"any": "thing"}),
    ({"type": "connection"}, "con_1"),
    ({"type": "object", "fields": {}}, {"unknown": [1]}),
    ({"type": "number", "array": True}, []),
    ({"type": "number", "array": True}, [1, 2.5]),
]
BAD = [
    ({"type": "number"}, "3", "type", "a text; give a number"),
    ({"type": "number"}, True, "type", "a boolean; give a number"),
    ({"type": "number"}, float("nan"), "range", "finite"),
    ({"type": "number"}, float("inf"), "range", "finite"),
    ({"type": "number"}, 10**400, "range", "finite"),
    ({"type": "string"}, 3, "type", "a number; give a text"),
    ({"type": "string"}, "\ud800", "unicode", "surrogate"),
    ({"type": "string", "validation": "url"}, "example.com", "url", "http://"),
    ({"type": "string", "validation": "url"}, "javascript:alert(1)", "url", "http://"),
    ({"type": "string", "validation": "url"}, "http://[::1", "url", "http://"),
    ({"type": "boolean"}, "true", "type", "a text; give true or false"),
    ({"type": "boolean"}, 1, "type", "a number; give true or false"),
    ({"type": "date"}, "2026-02-30", "format", "2026-01-31"),
    ({"type": "date"}, "20260131", "format", "2026-01-31"),
    ({"type": "date"}, "2026-01-31T00:00:00Z", "format", "2026-01-31"),
    ({"type": "datetime"}, "2026-01-31 12:00", "format", "2026-01-31T12:00:00Z"),
    ({"type": "time"}, "24:01", "format", "12:00:00"),
    (choose("a", "b"), "c", "option", "'a', 'b'"),
    (choose("a"), 1, "type", "a number"),
    ({"type": "connection"}, "", "type", "id of a connection"),
    ({"type": "object", "fields": {}}, [1], "type", "a list; give an object"),
    ({"type": "number", "array": True}, 3, "type", "a number; give a list"),
    ({"type": "file"}, 3, "type", "a number; give base64"),
    ({"type": "file"}, "", "file", "an empty text"),
    ({"type": "file"}, {"name": "a"}, "file", "no file"),
    ({"type": "number"}, None, "required", "is missing"),
]


@pytest.mark.parametrize(("field", "value"), GOOD)
def test_a_value_of_its_kind_is_kept(field: dict[str, Any], value: object) -> None:
    checked = one(field, value)
    assert checked.errors == []
    assert checked.value == {"f": value}


@pytest.mark.parametrize(("field", "value", "code", "words"), BAD)
def test_a_value_of_another_kind_is_refused_in_words(
    field: dict[str, Any], value: object, code: str, words: str
) -> None:
    (error,) = one(field, value).errors
    assert (error.path, error.code) == (("input", "f"), code)
    assert error.message.startswith("input.f ")
    assert words in error.message


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ({"type": "number"}, " 3 ", 3),
        ({"type": "number"}, "-2.5e3", -2500),
        ({"type": "number"}, "0.1", 0.1),
        ({"type": "boolean"}, "TRUE", True),
        ({"type": "boolean"}, "off", False),
        ({"type": "string"}, "3", "3"),
        ({"type": "number", "array": True}, "[1, 2]", [1, 2]),
        ({"type": "number", "array": True}, "7", [7]),
        ({"type": "string", "array": True}, ["a", "b"], ["a", "b"]),
        ({"type": "object", "fields": {"n": {"type": "number"}}}, '{"n": "4"}', {"n": 4}),
    ],
)
def test_text_is_coerced_where_everything_is_text(
    field: dict[str, Any], text: object, value: object
) -> None:
    checked = one(field, text, from_text=True)
    assert checked.errors == []
    assert checked.value["f"] == value


@pytest.mark.parametrize("text", ["nan", "inf", "1_000", "0x10", "٣", "", "1e999"])
def test_text_that_is_no_number_is_refused(text: str) -> None:
    assert len(one({"type": "number"}, text, from_text=True).errors) == 1


def test_an_optional_field_that_a_form_left_blank_is_left_out() -> None:
    checked = one({"type": "number", "optional": True}, "", from_text=True)
    assert (checked.value, checked.errors) == ({}, [])


def test_every_field_has_its_error_at_its_path() -> None:
    fields = {
        "person": {"type": "object", "fields": {"age": {"type": "number"}}},
        "people": {"type": "object", "array": True, "fields": {"age": {"type": "number"}}},
        "tags": {"type": "string", "array": True},
        "name": {"type": "string"},
    }
    given = {"person": {"age": "x"}, "people": [{"age": 1}, {}, 3], "tags": ["a", 1, 2]}
    assert [error.path for error in check(fields, given).errors] == [
        ("input", "person", "age"),
        ("input", "people", "1", "age"),
        ("input", "people", "2"),
        ("input", "tags", "1"),
        ("input", "name"),
    ]


def test_unknown_keys_are_kept_at_every_level() -> None:
    fields = {"o": {"type": "object", "fields": {"n": {"type": "number"}}}}
    given = {"o": {"n": 1, "x": [2]}, "y": None}
    assert check(fields, given).value == given


def test_configured_values_and_defaults_stand_in_and_the_input_wins() -> None:
    fields = {
        "set": {"type": "number", "config": True},
        "over": {"type": "number", "config": True},
        "plain": {"type": "number", "optional": True},
        "own": {"type": "number", "default": 7},
        "list": choose("a", "b", array=True, default="a"),
        "person": {"type": "object", "fields": {"age": {"type": "number", "config": True}}},
    }
    default = {"set": 1, "over": 1, "plain": 1, "person": {"age": 40}}
    checked = check(fields, {"over": 2}, default)
    assert checked.errors == []
    assert checked.value == {"set": 1, "over": 2, "own": 7, "list": ["a"], "person": {"age": 40}}


def test_a_configured_value_is_checked_too() -> None:
    (error,) = check({"n": {"type": "number", "config": True}}, {}, {"n": "x"}).errors
    assert error.path == ("input", "n")


def test_optional_and_content_fields_may_be_missing() -> None:
    fields = {"a": {"type": "file", "optional": True}, "b": {"type": "content", "content": "Hi"}}
    assert check(fields, None) == Checked({}, [], [])


@pytest.mark.parametrize("given", [[], "x", 3, True])
def test_an_input_that_is_no_object_is_refused(given: object) -> None:
    (error,) = check({}, given).errors
    assert error.path == ("input",)
    assert "give an object" in error.message


@pytest.mark.parametrize(
    "file",
    [
        "aGVsbG8=",
        "data:text/plain;base64,aGVsbG8=",
        {"data": "aGVsbG8=", "type": "text/plain", "name": "a.txt", "encoding": "base64"},
        "https://example.com/a.pdf",
        "file_123",
        {"future_file_id": "file_123"},
        {"id": "file_123", "file_id": "file_123", "file_url": "http://h/f", "file_size": 3},
        object(),
    ],
)
def test_files_are_found_in_every_form_and_can_be_replaced(file: Any) -> None:
    fields = {
        "doc": {"type": "file"},
        "o": {"type": "object", "array": True, "fields": {"x": {"type": "file", "array": True}}},
    }
    given = {"doc": file, "o": [{"x": [file, file]}]}
    checked = check(fields, given)
    assert [slot.path for slot in checked.files] == [("doc",), ("o", 0, "x", 0), ("o", 0, "x", 1)]
    assert all(isinstance(slot.field, FileField) and slot.value == file for slot in checked.files)
    for number, slot in enumerate(checked.files):
        place(checked.value, slot.path, {"id": number})
    assert checked.value == {"doc": {"id": 0}, "o": [{"x": [{"id": 1}, {"id": 2}]}]}
    assert given == {"doc": file, "o": [{"x": [file, file]}]}


def test_deep_defaults_take_no_exponential_time() -> None:
    field: dict[str, Any] = {"type": "number"}
    default: Any = 1
    for _ in range(30):
        field = {"type": "object", "fields": {"a": field, "b": {"type": "number"}}}
        default = {"a": default}
    assert check({"a": field}, {}, {"a": default}).errors


def test_json_schema() -> None:
    fields = _adapter.validate_python(
        {
            "n": {"type": "number", "desc": "How many", "default": 3},
            "c": choose("a", "b", array=True),
            "l": {"type": "string", "array": True, "default": "x"},
            "o": {"type": "object", "optional": True, "fields": {"d": {"type": "date"}}},
            "t": {"type": "content"},
        }
    )
    assert json_schema(fields) == {
        "type": "object",
        "properties": {
            "n": {"type": "number", "description": "How many", "default": 3},
            "c": {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}},
            "l": {"type": "array", "items": {"type": "string"}, "default": ["x"]},
            "o": {
                "type": "object",
                "properties": {"d": {"type": "string", "format": "date"}},
                "additionalProperties": False,
                "required": ["d"],
            },
        },
        "additionalProperties": False,
        "required": ["c"],
    }


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("abcd") | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=10,
)
simple = st.sampled_from(
    [{"type": t} for t in ("file", "number", "string", "boolean", "date", "time", "content")]
    + [{"type": "datetime"}, {"type": "connection"}, choose("a", "b"), choose("a", default="a")]
)
marks = st.fixed_dictionaries(
    {}, optional={"optional": st.booleans(), "array": st.booleans(), "config": st.booleans()}
)


def marked(field: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(field, marks).map(lambda pair: {**pair[0], **pair[1]})


definitions = st.dictionaries(
    st.sampled_from("abcd"),
    st.recursive(
        marked(simple),
        lambda inner: marked(
            st.dictionaries(st.sampled_from("abcd"), inner, max_size=3).map(
                lambda fields: {"type": "object", "fields": fields}
            )
        ),
        max_leaves=6,
    ),
    max_size=4,
)


@settings(max_examples=150)
@given(definitions, anything, anything, st.booleans())
def test_any_value_is_judged_and_what_passes_passes_again_unchanged(
    fields: dict[str, Any], given: object, default: object, from_text: bool
) -> None:
    checked = check(fields, given, default, from_text=from_text)
    if not checked.errors:
        again = check(fields, checked.value, default)
        assert again.errors == []
        assert repr(again.value) == repr(checked.value)
