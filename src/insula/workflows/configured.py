"""What other apps see of a workflow's ``input_default``: it is the owner's configuration."""

from collections.abc import Mapping, Sequence
from typing import Any

from insula.kit.json import Raw, decode, raw

_Definitions = Sequence[Mapping[str, Any]]


def shown_default(parts: Mapping[str, Raw], *, closed: bool) -> Raw | None:
    """Return a body's ``input_default`` as other apps see it; ``None`` where it has none.

    Connections are left out, and of a closed workflow all that is configured, or not known.
    """
    default = decode(parts["input_default"]) if "input_default" in parts else None
    if not isinstance(default, dict) or not default:
        return parts.get("input_default")
    return raw(_shown(default, _definitions(parts), closed))


def _definitions(parts: Mapping[str, Raw]) -> _Definitions:
    steps = decode(parts["steps"]) if "steps" in parts else []
    inputs = [step.get("input") for step in steps if step.get("type") == "input"]
    own = decode(parts["input"]) if "input" in parts else None
    return [one for one in (own, *inputs) if isinstance(one, dict)]


def _shown(default: Mapping[str, Any], definitions: _Definitions, closed: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, value in default.items():
        fields = [one[name] for one in definitions if isinstance(one.get(name), dict)]
        if any(_is_unseen(field, closed) for field in fields) or (closed and not fields):
            continue
        inner = [field.get("fields") for field in fields if field.get("type") == "object"]
        shown[name] = _inner(value, [one for one in inner if isinstance(one, dict)], closed)
    return shown


def _is_unseen(field: Mapping[str, Any], closed: bool) -> bool:
    return field.get("type") == "connection" or (closed and bool(field.get("config")))


def _inner(value: Any, definitions: _Definitions, closed: bool) -> Any:
    if not definitions:
        return value
    if isinstance(value, list):
        return [_inner(one, definitions, closed) for one in value]
    return _shown(value, definitions, closed) if isinstance(value, dict) else value
