"""What a draft lacks and the contract requires, filled in with empty values."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from insula.engine.document_steps import STEP_MODELS

Make = Callable[[], Any]
Filler = Callable[[dict[str, Any]], dict[str, Any]]

_NULLABLE: Final = frozenset(("step_key", "input"))
"""Properties of steps that the contract lets be null."""
_DEPTH_MAX: Final = 100
_KNOWN: Final = {
    kind: frozenset(field.serialization_alias or name for name, field in model.model_fields.items())
    for kind, model in STEP_MODELS.items()
}


def fill(body: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of the body with what the contract requires and a draft lacks.

    Null counts as lacking where the contract knows no null. What cannot be made up stays missing:
    types, keys and roles. Parts of a wrong shape stay as they are, for ``check`` to tell of.
    """
    filled = {"key": "", "input": None, "input_default": None, "input_options": None, **body}
    if filled["key"] is None:
        filled["key"] = ""
    if isinstance(filled["input"], dict):
        filled["input"] = _each(filled["input"], _field)
    if isinstance(filled["input_options"], dict):
        filled["input_options"] = _tidy(_without_nulls(filled["input_options"]), "display")
    steps = filled.get("steps")
    filled["steps"] = [] if steps is None else _listed(steps, fill_step)
    return filled


def fill_step(step: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of one step, filled in in the same way."""
    kind = step.get("type")
    known = _known(kind) - _NULLABLE
    kept = {key: value for key, value in step.items() if value is not None or key not in known}
    kept = _tidy(kept, "auto", "retry", "limits")
    filler = _STEPS.get(kind) if isinstance(kind, str) else None
    return kept if filler is None else filler(kept)


def _known(kind: object) -> frozenset[str]:
    """Return the properties that a kind of step has; others are kept, a null too."""
    return _KNOWN.get(kind, frozenset()) if isinstance(kind, str) else frozenset()


def _without_nulls(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if value is not None}


def _tidy(part: dict[str, Any], *names: str) -> dict[str, Any]:
    """Leave out the nulls in some of its objects."""
    found = {name: part[name] for name in names if isinstance(part.get(name), dict)}
    return {**part, **_each(found, _without_nulls)}


def _with(name: str, make: Make, inner: Filler | None = None) -> Filler:
    """Make a filler that gives one property an empty value, and fills what is in it."""

    def filler(part: dict[str, Any]) -> dict[str, Any]:
        value = part.get(name)
        if value is None:
            value = make()
        return {**part, name: inner(value) if inner and isinstance(value, dict) else value}

    return filler


def _listed(value: Any, filler: Filler) -> Any:
    if not isinstance(value, list):
        return value
    return [filler(item) if isinstance(item, dict) else item for item in value]


def _each(part: dict[str, Any], filler: Filler) -> dict[str, Any]:
    return {k: filler(v) if isinstance(v, dict) else v for k, v in part.items()}


def _fields(fields: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    return _each(fields, lambda field: _field(field, depth))


def _field(field: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    kept = _tidy(_without_nulls(field), "display", "list", "additional_fields")
    if kept.get("type") == "select":
        options = kept.get("options") or [{"label": "", "value": ""}]
        kept["options"] = _listed(options, _option)
    if kept.get("type") == "object":
        inner = kept.get("fields", {})
        shallow = isinstance(inner, dict) and depth < _DEPTH_MAX
        kept["fields"] = _fields(inner, depth + 1) if shallow else inner
    return kept


def _option(option: dict[str, Any]) -> dict[str, Any]:
    kept = _without_nulls(option)
    return {"label": kept.get("value", ""), "value": "", **kept}


def _conditions(conditions: dict[str, Any]) -> dict[str, Any]:
    return {
        key: {"destinations": [], "order": place, **_without_nulls(condition)}
        if isinstance(condition, dict)
        else condition
        for place, (key, condition) in enumerate(conditions.items())
    }


def _provider(provider: dict[str, Any]) -> dict[str, Any]:
    kept = {"provider": "", "model": "", "messages": [], **_without_nulls(provider)}
    kept = _tidy(kept, "features")
    kept["messages"] = _listed(kept["messages"], _message)
    if "tools" in kept:
        kept["tools"] = _listed(kept["tools"], _tool)
    return kept


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    fields = tool.get("input")
    kept = {k: v for k, v in tool.items() if v is not None or k == "input"}
    return {**kept, "input": _fields(fields)} if isinstance(fields, dict) else kept


def _message(message: dict[str, Any]) -> dict[str, Any]:
    kept = _without_nulls(message)
    empty: Any = [] if kept.get("role") == "tool" else ""
    content = _listed(kept.get("content", empty), _message_part)
    kept["content"] = content
    if "tools" in kept:
        kept["tools"] = _listed(kept["tools"], _call)
    return kept


def _message_part(part: dict[str, Any]) -> dict[str, Any]:
    match part.get("type"):
        case "text":
            return {"text": "", **_without_nulls(part)}
        case "file" | "image":
            return {"url": "", **_without_nulls(part)}
        case "tool_result":
            return _call(part)
    return part


def _call(part: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in part.items() if v is not None or k in ("input", "output")}
    return {"id": "", "name": "", **kept}


def _webhook(webhook: dict[str, Any]) -> dict[str, Any]:
    return {"method": "POST", **_without_nulls(webhook)}


def _input_step(step: dict[str, Any]) -> dict[str, Any]:
    filled = _with("input", dict, _fields)(step)
    return _with("webhook", dict, _webhook)(filled) if "webhook" in step else filled


_STEPS: Final[dict[str, Filler]] = {
    "note": _with("note", str),
    "input": _input_step,
    "branch": _with("conditions", dict, _conditions),
    "code": _with("code", str),
    "model": _with("provider", dict, _provider),
    "http_request": _with("url", str),
    "browser": _with("url", str),
    "workflow": lambda step: {"input": {}, **step},
    "service": _with("service", dict),
}
