"""JSON: what passes through unparsed, and what is refused."""

import pytest

from insula.kit import json
from insula.kit.json import InvalidJson, Raw


def test_raw_parts_are_copied_as_they_are() -> None:
    assert json.encode({"a": Raw(b'{"b":  1}')}) == b'{"a":{"b":  1}}'


def test_members_are_split_without_being_parsed() -> None:
    parts = json.members(b'{"a": [1, 2], "b": "x"}')
    assert {name: bytes(part) for name, part in parts.items()} == {"a": b"[1, 2]", "b": b'"x"'}


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1,]", b'"\\ud800"', b"nul", b"\xff", b"[" * 100_000]
)
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidJson):
        json.decode(text)


@pytest.mark.parametrize("text", [b"[]", b"1", b"null", b"{"])
def test_members_of_what_is_no_object_are_refused(text: bytes) -> None:
    with pytest.raises(InvalidJson):
        json.members(text)


def test_a_lone_surrogate_cannot_be_encoded() -> None:
    with pytest.raises(InvalidJson):
        json.encode({"a": "\ud800"})


def test_a_nul_character_survives() -> None:
    assert json.decode(json.encode("a\0b")) == "a\0b"
