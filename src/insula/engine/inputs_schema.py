"""Fields as JSON Schema, as models are told of a tool's arguments."""

from collections.abc import Mapping
from typing import Any, Final

from insula.engine.document_fields import (
    Field,
    ObjectField,
    SelectField,
    StringField,
    default_of,
)

_TYPES: Final[dict[str, dict[str, Any]]] = {
    "file": {"type": "string", "description": "base64, a URL, or the id of a file"},
    "number": {"type": "number"},
    "string": {"type": "string"},
    "boolean": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "time": {"type": "string", "format": "time"},
    "select": {"type": "string"},
    "connection": {"type": "string", "description": "the id of a connection"},
    "object": {"type": "object"},
}


def json_schema(definition: Mapping[str, Field]) -> dict[str, Any]:
    """Return JSON Schema of an object with these fields."""
    asked = {name: kind for name, kind in definition.items() if kind.type != "content"}
    required = [
        name for name, kind in asked.items() if not kind.optional and default_of(kind) is None
    ]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: _field(kind) for name, kind in asked.items()},
        "additionalProperties": False,
    }
    return {**schema, "required": required} if required else schema


def _field(kind: Field) -> dict[str, Any]:
    one = dict(_TYPES[kind.type])
    if isinstance(kind, ObjectField):
        one = json_schema(kind.fields_)
        one["additionalProperties"] = bool(kind.additional_fields)
    elif isinstance(kind, SelectField) and not kind.additional_options and kind.list_ is None:
        one["enum"] = [option.value for option in kind.options]
    elif isinstance(kind, StringField) and kind.validation == "url":
        one["format"] = "uri"
    schema = {"type": "array", "items": one} if kind.array else one
    described = kind.desc or kind.name
    default = default_of(kind)
    if described:
        schema["description"] = described
    return schema if default is None else {**schema, "default": default}
