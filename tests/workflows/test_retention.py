"""A retention is read from all the forms that callers send, and kept in one."""

import pytest
from pydantic import BaseModel, ValidationError

from insula.web.fields import FORM
from insula.workflows.retention import Retention, RetentionRule, parse, stored


class Holder(BaseModel):
    retention: Retention = None


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        (0, b'{"max_age_in_seconds":0}'),
        (-1, b'{"max_age_in_seconds":-1}'),
        (3600.5, b'{"max_age_in_seconds":3600.5}'),
        ({"max_age_in_seconds": 60}, b'{"max_age_in_seconds":60}'),
        (
            {"max_age_in_seconds": 60, "preserve_on_failure": True},
            b'{"max_age_in_seconds":60,"preserve_on_failure":true}',
        ),
    ],
)
def test_every_form_is_kept_as_one(given: object, kept: bytes | None) -> None:
    assert stored(given) == kept
    assert stored(parse(given)) == kept


@pytest.mark.parametrize(
    "given",
    [
        True,
        "60",
        -2,
        -0.5,
        1e300,
        10**400,
        -(10**400),
        {"max_age_in_seconds": 10**400},
        float("nan"),
        float("inf"),
        [],
        {},
        {"max_age_in_seconds": None},
        {"max_age_in_seconds": 1, "preserve_on_failure": 1},
        {"max_age_in_seconds": False},
    ],
    ids=lambda given: repr(given)[:40],
)
def test_anything_else_is_refused_in_words(given: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse(given)


def test_in_a_form_a_number_is_text_and_in_json_it_is_not() -> None:
    assert Holder.model_validate({"retention": "60"}, context=FORM).retention == RetentionRule(
        max_age_in_seconds=60
    )
    for words in ("sixty", "1" + "0" * 400):
        with pytest.raises(ValidationError):
            Holder.model_validate({"retention": words}, context=FORM)
    with pytest.raises(ValidationError):
        Holder.model_validate({"retention": "60"}, strict=True)
    with pytest.raises(ValidationError):
        Holder.model_validate_json('{"retention": "60"}', strict=True)
