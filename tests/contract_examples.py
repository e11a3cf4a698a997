"""Values that fill a schema of the contract: every member, and every alternative in lists."""

from typing import Any

from tests.contract import document

_DEPTH = 3
"""How often a schema may stand inside itself."""
_COMPONENTS = "#/components/schemas/"
_FORMED = {"date-time": "2026-01-31T12:00:00.000Z", "uri": "https://example.com/x"}


def schema_of(name: str) -> dict[str, Any]:
    """Return a named schema of the contract."""
    found: dict[str, Any] = document()["components"]["schemas"][name]
    return found


def filled(name: str) -> Any:
    """Return a value of a named schema with all its members."""
    return _value({"$ref": _COMPONENTS + name}, ())


def each_filled(name: str) -> list[Any]:
    """Return a value of each alternative of a schema that is a choice."""
    return [_value(option, (name,)) for option in schema_of(name)["anyOf"]]


def _value(schema: dict[str, Any], above: tuple[str, ...]) -> Any:
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_COMPONENTS)
        return _value(schema_of(name), (*above, name))
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "allOf" in schema:
        parts = [_value(part, above) for part in schema["allOf"]]
        return {name: value for part in parts for name, value in part.items()}
    if "anyOf" in schema:
        return _value(_richest(schema["anyOf"], above), above)
    return _plain(schema, above)


def _plain(schema: dict[str, Any], above: tuple[str, ...]) -> Any:
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "array":
        found = [_value(one, above) for one in _alternatives(schema.get("items", {}), above)]
        return found * max(1, schema.get("minItems", 1))
    if kind == "object":
        value = {
            name: _value(member, above)
            for name, member in schema.get("properties", {}).items()
            if not _too_deep(member, above) or name in schema.get("required", ())
        }
        others = schema.get("additionalProperties")
        if isinstance(others, dict):
            for number, one in enumerate(_alternatives(others, above)):
                value[f"m{number}"] = _value(one, above)
        return value
    formed = _FORMED.get(schema.get("format", ""), "x")
    return {"number": 1, "boolean": True, "null": None}.get(kind, formed)


def _alternatives(schema: dict[str, Any], above: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return a schema's alternatives, where they have names; else the schema itself."""
    target = schema
    while "$ref" in target:
        target = schema_of(target["$ref"].removeprefix(_COMPONENTS))
    options = [one for one in target.get("anyOf", ()) if "$ref" in one]
    return [one for one in options or [schema] if not _too_deep(one, above)]


def _richest(options: list[dict[str, Any]], above: tuple[str, ...]) -> dict[str, Any]:
    usable = [one for one in options if one and not _too_deep(one, above)]
    rich = [one for one in usable if "$ref" in one or one.get("type") in ("object", "array")]
    return next(iter(rich or usable), {})


def _too_deep(schema: dict[str, Any], above: tuple[str, ...]) -> bool:
    name = schema.get("$ref", "").removeprefix(_COMPONENTS)
    return bool(name) and above.count(name) >= _DEPTH - 1
