"""Parts of a form that stand inside an object, beside files or without."""

import io
from typing import Any

import pytest
from pydantic import BaseModel

from insula.errors import BadInput
from insula.web.body import check_json
from insula.web.form_values import values
from insula.web.forms import Form, UploadedPart


class Body(BaseModel):
    """What a form is read into."""

    input: dict[str, Any] | None = None
    stream: bool | None = None


def part() -> UploadedPart:
    return UploadedPart("a.txt", "text/plain", io.BytesIO(b"x"), 1)


@pytest.mark.parametrize("style", ["input[{}]", "input.{}"])
def test_texts_stand_inside_an_object_beside_files(style: str) -> None:
    document = part()
    form = Form(
        texts=[
            (style.format("count"), "5"),
            (style.format("more"), '{"a": 1}'),
            ("stream", "true"),
        ],
        files=[(style.format("document"), document)],
    )
    found = values(form, Body, check_json)
    assert found["input"] == {"count": "5", "more": {"a": 1}, "document": document}
    assert found["stream"] == "true"


def test_a_member_given_twice_is_a_list() -> None:
    form = Form(texts=[("input[tag]", "a"), ("input[tag]", "b")])
    assert values(form, Body, check_json) == {"input": {"tag": ["a", "b"]}}


def test_members_join_an_object_that_came_as_json() -> None:
    form = Form(texts=[("input", '{"a": 1}'), ("input[b]", "2")])
    assert values(form, Body, check_json) == {"input": {"a": 1, "b": "2"}}


def test_a_member_of_what_is_no_object_is_refused() -> None:
    form = Form(texts=[("input", "[1]"), ("input[b]", "2")])
    with pytest.raises(BadInput, match="does not stand inside an object"):
        values(form, Body, check_json)


def test_a_name_that_means_no_field_is_left_alone() -> None:
    form = Form(texts=[("other[b]", "2")])
    assert values(form, Body, check_json) == {"other[b]": "2"}
