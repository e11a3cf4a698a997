"""How much of a body a model may have to look at, one value after the other.

Of each that is wrong the library makes an error of a kilobyte, and ends only with the last: a body
of nothing but wrong values would take hundreds of times its own size. What a field takes as it is,
such as any object, is not looked into, and not counted.
"""

from collections.abc import Iterable
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from typing_extensions import TypeAliasType

from insula.errors import BadInput, FieldError

VALUES = 100_000
"""Values of a body in objects and lists whose members have a schema."""


def bound(bodies: Iterable[Any], model: type[BaseModel]) -> None:
    """Check that bodies hold together no more values than a model may look at.

    Raises:
        BadInput: they do; names the field.
    """
    left = VALUES
    for body in bodies:
        if not isinstance(body, dict):
            continue
        if model.model_config.get("extra") == "forbid":  # each name that it does not know is wrong
            left -= len(body)
        if left < 0:
            raise _too_many(())
        for name in _looked_into(model):
            left -= _count(body.get(name), left)
            if left < 0:
                raise _too_many((name,))


def _too_many(path: tuple[str, ...]) -> BadInput:
    message = f"holds more than {VALUES:,} values"
    return BadInput(
        f"{'.'.join(path) or 'The body'} {message}.", [FieldError(path, "too_many", message)]
    )


def _count(value: Any, most: int) -> int:
    """Count the values in objects and lists, until there are more than ``most``."""
    found, open_ones = 0, [value]
    while open_ones and found <= most:
        value = open_ones.pop()
        if isinstance(value, dict | list):
            found += len(value)
            if found <= most:
                inner = value.values() if isinstance(value, dict) else value
                open_ones += (each for each in inner if isinstance(each, dict | list))
    return found


@lru_cache(maxsize=256)
def _looked_into(model: type[BaseModel]) -> tuple[str, ...]:
    fields = model.model_fields.items()
    return tuple(field.alias or name for name, field in fields if _has_schema(field.annotation))


def _has_schema(annotation: Any) -> bool:
    """Say whether a type's objects and lists have members of a type of their own."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, TypeAliasType):
        return _has_schema(annotation.__value__)
    if origin is Annotated:
        return _has_schema(inner[0])
    if origin in (Union, UnionType):
        return any(map(_has_schema, inner))
    if origin in (list, dict):
        return inner[-1] not in (Any, object)
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
