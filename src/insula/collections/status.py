"""What keeps a record from being analysed: the problems of its inputs, rule by rule."""

from collections.abc import Mapping
from typing import Any

from insula.collections.records import LOST, read
from insula.collections.services import RecordServices
from insula.collections.workflows import Ready, check_rule
from insula.engine.inputs_kinds import kind_of
from insula.errors import FieldError


async def status(
    services: RecordServices, app_id: str, collection_id: str | None, record_id: str
) -> dict[str, Any]:
    """Make ``RecordStatusSchema``.

    Raises:
        NotFound: there is no such record.
    """
    found = await read(services, app_id, collection_id, record_id)
    errors = []
    for rule in found.rules:
        if rule.disabled:
            continue
        if found.config.is_lost:
            errors.append(_failure(rule.key, LOST))
            continue
        ready = await check_rule(services.runs, app_id, found.config.rule(rule.key), rule.input)
        error = _rule_error(ready, rule.given())
        if error is not None:
            errors.append(error)
    shown: dict[str, Any] = {"status": found.row.status}
    return shown | ({"errors": errors} if errors else {})


def _rule_error(ready: Ready, given: Mapping[str, Any]) -> dict[str, Any] | None:
    if ready.failure is not None:
        return _failure(ready.key, ready.failure.message)
    assert ready.checked is not None
    if not ready.checked.errors:
        return None
    errors = [_one(ready, given, error) for error in ready.checked.errors]
    number = len(errors)
    message = f"{number} field{'s' if number > 1 else ''} of the input cannot be used"
    return {"message": message, "errors": errors, "key": ready.key}


def _failure(key: str, words: str) -> dict[str, Any]:
    return {"message": f"The rule cannot be run: {words}", "errors": [], "key": key}


def _one(ready: Ready, given: Mapping[str, Any], error: FieldError) -> dict[str, Any]:
    path = error.path[1:]
    value: Any = given
    for name in path:
        if isinstance(value, list) and name.isdigit() and int(name[:9]) < len(value):
            value = value[int(name[:9])]
        else:
            value = value.get(name) if isinstance(value, dict) else None
    return {
        "code": error.code,
        "expected": _expected(ready.definition, path),
        "received": "nothing" if value is None else kind_of(value),
        "path": list(path),
        "message": error.message,
    }


def _expected(definition: Mapping[str, Any], path: tuple[str, ...]) -> str:
    """Return the type of the field at a path, as the definition names it."""
    fields: Mapping[str, Any] = definition
    kind: Any = None
    for name in path:
        if name.isdigit() and kind is not None:
            continue
        kind = fields.get(name)
        fields = getattr(kind, "fields_", {}) if kind is not None else {}
    if kind is None:
        return "object"
    listed = getattr(kind, "array", False) and not (path and path[-1].isdigit())
    return f"list of {kind.type}" if listed else str(kind.type)
