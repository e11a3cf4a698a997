"""How much of a body a model may have to look at."""

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, create_model
from tests.web.application import Thing

from insula.errors import BadInput
from insula.web import bounds


class Nested(BaseModel):
    words: dict[str, list[str]] | None = None
    free: dict[str, Any] | None = None
    thing: Thing | None = None


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "VALUES", 10)


@pytest.mark.parametrize(
    ("bodies", "field"),
    [
        ([{"words": {"a": [0] * 10}}], "words"),
        ([{"words": [0] * 11}], "words"),
        ([{"words": [[[]] * 5, [[]] * 5]}], "words"),
        ([{"thing": {"tags": [0] * 10}}], "thing"),
        ([{"words": [0] * 6}, {"thing": [0] * 5}], "thing"),
    ],
)
def test_what_is_looked_into_is_bounded(bodies: list[Any], field: str) -> None:
    with pytest.raises(BadInput) as raised:
        bounds.bound(bodies, Nested)
    assert raised.value.errors[0].path == (field,)


def test_of_a_body_that_admits_no_other_names_they_count() -> None:
    strict = create_model("Strict", __config__=ConfigDict(extra="forbid"), a=(int, 0))
    bounds.bound([{str(number): 0 for number in range(10)}], strict)
    with pytest.raises(BadInput, match="The body holds more than 10 values"):
        bounds.bound([{str(number): 0 for number in range(11)}], strict)


@pytest.mark.parametrize(
    "bodies",
    [
        [{"words": {"a": [0] * 9}}, {}, 3],
        [{"free": {"a": [0] * 100}, "other": [0] * 100}],
        [{"words": [0] * 5}, {"words": [0] * 5}],
    ],
)
def test_what_is_taken_as_it_is_may_be_as_large_as_it_likes(bodies: list[Any]) -> None:
    bounds.bound(bodies, Nested)
