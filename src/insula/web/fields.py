"""Types of text that goes into text columns: bounded, and free of what databases refuse."""

from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, Field, TypeAdapter
from pydantic import ValidationError as Invalid
from pydantic_core import PydanticCustomError

from insula.kit.json import encode

ANY_TEXT: Final = "any text"
"""Marks the field of a body whose text is stored as bytes: it may hold whatever it likes."""

FORM: Final = {"form": True}
"""What a field's validator finds as its context where the values come as text."""


def storable(text: str) -> str:
    """Return the text if a text column can hold it.

    Raises:
        ValueError: it holds a NUL character or a lone surrogate.
    """
    if "\0" in text:
        raise ValueError("must not hold a NUL character")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("must not hold a lone surrogate")
    return text


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return storable(text)


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_filled)]
"""A name: 1 to 200 characters, not blank."""

Line = Annotated[str, Field(max_length=500), AfterValidator(storable)]
"""A short text that may be empty, such as a caller's own identifier."""

Prose = Annotated[str, Field(max_length=20_000), AfterValidator(storable)]
"""A description or notes."""

_moment = TypeAdapter(AwareDatetime).validate_json


def _from_text(given: object) -> object:
    if not isinstance(given, str):
        return given
    try:
        return _moment(encode(given), strict=True)
    except Invalid as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        raise PydanticCustomError(problem["type"], "{why}", {"why": problem["msg"]}) from None


Moment = Annotated[AwareDatetime, BeforeValidator(_from_text)]
"""A time with its offset, which JSON has as a text: nothing else stands for one."""


def unstorable(body: BaseModel) -> Iterator[tuple[tuple[str, ...], str]]:
    """Find the texts of a body that no text column can hold: the path of each, and why.

    Looked at is what a field says to be a text, a list of them or a body of its own. What an
    object without a schema holds is JSON, is stored as such, and may be any text.
    """
    for name, field in type(body).model_fields.items():
        if ANY_TEXT not in field.metadata:
            yield from _unstorable((field.alias or name,), getattr(body, name))


def _unstorable(path: tuple[str, ...], value: object) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, str):
        try:
            storable(value)
        except ValueError as error:
            yield path, str(error)
    elif isinstance(value, BaseModel):
        yield from ((path + rest, why) for rest, why in unstorable(value))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _unstorable((*path, str(index)), entry)
