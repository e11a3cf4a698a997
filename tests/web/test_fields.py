"""Texts for text columns."""

import pytest
from pydantic import BaseModel, ValidationError

from insula.web.fields import Line, Name, Prose


class Texts(BaseModel):
    name: Name = "n"
    line: Line = ""
    prose: Prose = ""


@pytest.mark.parametrize(
    "given",
    [{"name": ""}, {"name": "  "}, {"name": "x" * 201}, {"line": "x" * 501}]
    + [
        {field: text}
        for field in ("name", "line", "prose")
        for text in ("a\0", "a\ud800", "\udfff")
    ],
)
def test_what_a_column_cannot_hold(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Texts(**given)


def test_everything_else() -> None:
    assert Texts(name="Ünï 🏝", line="\n", prose="x" * 20_000).name == "Ünï 🏝"
