"""What every part of a workflow document is made of: strict models that keep unknown properties."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator
from pydantic import Field as Setting

TAG = "\0"
"""Begins the tags of unions, so that they can be told from the names in a path."""


class Part(BaseModel):
    """An object of the document: no silent conversions, unknown properties kept."""

    model_config = ConfigDict(
        strict=True,
        extra="allow",
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )


def _whole(value: object) -> object:
    """JSON does not tell 3.0 from 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, BeforeValidator(_whole)]
Positive = Annotated[float, Setting(gt=0, le=1e15)]
Pair = Annotated[list[float], Setting(min_length=2, max_length=2)]


def _kind_tag(value: object) -> str | None:
    match value:
        case str():
            return TAG + "text"
        case list():
            return TAG + "list"
        case bool():
            return TAG + "boolean"
        case dict() | BaseModel():
            return TAG + "object"
        case int() | float():
            return TAG + "number"
    return None


def by_kind(remedy: str) -> Discriminator:
    """Choose a union's member by the kind of JSON value found."""
    return Discriminator(_kind_tag, custom_error_type="kind", custom_error_message=remedy)


def by_property(name: str, remedy: str) -> Discriminator:
    """Choose a union's member by the text that stands in one property."""

    def tag(value: object) -> str | None:
        found = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
        return TAG + found if isinstance(found, str) else None

    choose: Callable[[Any], str | None] = tag
    return Discriminator(choose, custom_error_type="choice", custom_error_message=remedy)


def named(name: str, default: Any = None) -> Any:
    """Declare a property whose name in JSON is no name for an attribute."""
    return Setting(default, validation_alias=name, serialization_alias=name)
