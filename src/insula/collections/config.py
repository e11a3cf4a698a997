"""Changes of a collection's rules, mappings and triggers. Rules are checked when they are saved."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection

from insula.collections import mappings as paths
from insula.collections import repository
from insula.collections.rows import CollectionRow, Config
from insula.collections.schemas import (
    TRIGGERS_MAX,
    CreateTrigger,
    Rule,
    UpdateConfig,
    UpdateTrigger,
)
from insula.collections.workflows import resolve
from insula.connections import repository as connections
from insula.errors import BadInput, Conflict, FieldError, InsulaError
from insula.kit import json
from insula.kit.clock import iso, now_ms
from insula.kit.ids import new_id
from insula.runs.services import RunServices
from insula.runs.start import check_seen
from insula.web.auth import Principal, unknown
from insula.web.idempotency import Idempotency, claim

DEFAULT_MAX = 256 * 1024
"""Bytes of a rule's default input."""

_NO_KEY = re.compile(r"[^A-Za-z0-9_-]+")


async def change(
    services: RunServices, app_id: str, collection_id: str, fields: UpdateConfig
) -> None:
    """Give a collection new rules or mappings. Records keep theirs until they are told.

    Raises:
        BadInput: one entry for each thing that cannot be used.
        NotFound: there is no such collection.
        Conflict: it was changed meanwhile.
    """
    read = await services.database.read(partial(_read, app_id=app_id, collection_id=collection_id))
    if read is None:
        raise unknown()
    row, current = read
    rules = current.rules if fields.rules is None else await _checked(services, app_id, fields)
    mappings = current.mappings
    if fields.mappings is not None:
        mappings = [mapping.model_dump() for mapping in fields.mappings]
    _check_mappings(mappings, {rule["key"] for rule in rules}, sent=fields.mappings is not None)
    made = Config(new_id("conf"), collection_id, rules, mappings, now_ms())

    def unit(connection: Connection) -> None:
        now = repository.find(connection, app_id, collection_id)
        if now is None:
            raise unknown()
        if now.config_id != row.config_id:
            raise Conflict("The rules were changed meanwhile: read them again")
        repository.store_config(connection, made)
        repository.change(connection, now, {"config_id": made.id})
        repository.drop_config(connection, row.config_id)

    await services.database.write(unit)


def _read(
    connection: Connection, app_id: str, collection_id: str
) -> tuple[CollectionRow, Config] | None:
    row = repository.find(connection, app_id, collection_id)
    if row is None:
        return None
    config = repository.config(connection, row.config_id)
    assert config is not None
    return row, config


async def _checked(
    services: RunServices, app_id: str, fields: UpdateConfig
) -> list[dict[str, Any]]:
    errors: list[FieldError] = []
    rules: list[dict[str, Any]] = []
    taken: set[str] = {rule.key for rule in fields.rules or () if rule.key is not None}
    seen: set[str] = set()
    for place, rule in enumerate(fields.rules or ()):
        here = ("rules", str(place))
        key = rule.key or _key_from(rule.name, taken)
        taken.add(key)
        if key in seen:
            errors.append(FieldError((*here, "key"), "duplicate", "another rule has this key"))
        seen.add(key)
        try:
            rules.append(await _rule(services, app_id, rule, key))
        except InsulaError as error:
            named = "step_key" if rule.step_key and error.errors else "workflow_id"
            message = f"cannot be run: {error.message}"
            errors.append(FieldError((*here, named), "workflow", message))
    if errors:
        first = errors[0]
        raise BadInput(f"{'.'.join(first.path)} {first.message}", errors)
    return rules


async def _rule(services: RunServices, app_id: str, rule: Rule, key: str) -> dict[str, Any]:
    """Check a rule and return it as it is stored: as the contract has it.

    Raises:
        InsulaError: its workflow cannot be run by this app, or not from that step.
    """
    latest = rule.workflow_use_latest
    if latest is None:
        latest = rule.workflow_version_id is None
    selector = None if latest else rule.workflow_version_id
    runnable = await resolve(services, app_id, rule.workflow_id, selector)
    if runnable.version_id is None:
        raise BadInput("a rule runs a deployed version, not a draft")
    if rule.step_key is not None:
        check_seen(runnable, app_id, rule.step_key)
    await services.plans.lay_out(runnable, rule.step_key)
    if rule.workflow_input_default is not None:
        _check_default(rule.workflow_input_default)
    return {
        "name": rule.name,
        "key": key,
        **({"execution_order": rule.execution_order} if rule.execution_order else {}),
        "on_success": rule.on_success,
        "on_fail": rule.on_fail,
        "step_key": rule.step_key,
        "workflow_id": rule.workflow_id,
        "workflow_version_id": runnable.version_id,
        "workflow_use_latest": latest,
        "workflow_input_default": rule.workflow_input_default,
        "disabled": rule.disabled,
    }


def _check_default(value: dict[str, Any]) -> None:
    try:
        size = len(json.encode(value))
    except json.InvalidJson as error:
        raise BadInput(f"workflow_input_default cannot be stored: {error}") from error
    if size > DEFAULT_MAX:
        raise BadInput(
            f"workflow_input_default is over {DEFAULT_MAX:,} bytes; store files first and name "
            "them by their id"
        )


def _key_from(name: str, taken: set[str]) -> str:
    base = _NO_KEY.sub("_", name).strip("_")[:90] or "rule"
    key, number = base, 1
    while key in taken:
        number += 1
        key = f"{base}_{number}"
    return key


def _check_mappings(mappings: Sequence[dict[str, Any]], keys: set[str], *, sent: bool) -> None:
    """Refuse mappings that were sent and lead to rules that there are not; older ones may."""
    if not sent:
        return
    errors = []
    for place, mapping in enumerate(mappings):
        named = [("source_path", mapping["source_path"])]
        named += [
            (f"destination_paths.{number}", text)
            for number, text in enumerate(mapping["destination_paths"])
        ]
        for member, text in named:
            found = paths.parse(text)
            if found is None or found.rule not in keys:
                path = ("mappings", str(place), *member.split("."))
                errors.append(FieldError(path, "unknown", "names a rule that there is not"))
    if errors:
        raise BadInput(f"{'.'.join(errors[0].path)} {errors[0].message}", errors)


async def add_trigger(
    services: RunServices,
    principal: Principal,
    collection_id: str,
    fields: CreateTrigger,
    idempotency: Idempotency | None = None,
) -> dict[str, Any]:
    """Give a collection a trigger; return it, or what the same request made before.

    Raises:
        NotFound, Conflict: there is no such collection; it has too many.
        BadInput: the app has no such connection.
    """
    now, trigger_id = iso(now_ms()), new_id("trig")
    made = {
        "id": trigger_id,
        "type": fields.config.type,
        "name": fields.name,
        "config": fields.config.model_dump(exclude_none=True),
        "enabled": fields.enabled,
        "connection_id": fields.connection_id,
        "collection_id": collection_id,
        "created_at": now,
        "updated_at": now,
    }

    def unit(connection: Connection) -> dict[str, Any]:
        row, triggers = _triggers(connection, principal.app_id, collection_id)
        if idempotency and (earlier := claim(connection, principal, idempotency, trigger_id)):
            return _named(triggers, earlier)
        if len(triggers) >= TRIGGERS_MAX:
            raise Conflict(f"A collection has at most {TRIGGERS_MAX} triggers")
        _check_connection(connection, principal.app_id, fields.connection_id)
        repository.change(connection, row, {"triggers": json.encode([*triggers, made])})
        return made

    return await services.database.write(unit)


def _named(triggers: list[dict[str, Any]], trigger_id: str) -> dict[str, Any]:
    found = next((each for each in triggers if each["id"] == trigger_id), None)
    if found is None:
        raise unknown()
    return found


async def change_trigger(
    services: RunServices,
    app_id: str,
    collection_id: str,
    trigger_id: str,
    fields: UpdateTrigger | None,
) -> dict[str, Any]:
    """Change a trigger, or remove it (``None``); return it as it is, or was.

    Raises:
        NotFound: there is no such trigger.
        BadInput: the app has no such connection.
    """

    def unit(connection: Connection) -> dict[str, Any]:
        row, triggers = _triggers(connection, app_id, collection_id)
        found = _named(triggers, trigger_id)
        if fields is None:
            triggers.remove(found)
        else:
            _check_connection(connection, app_id, fields.connection_id)
            given = fields.model_dump(include=fields.model_fields_set, exclude_none=False)
            kept = {name: value for name, value in given.items() if value is not None}
            nulled: dict[str, Any] = {n: None for n in ("name", "connection_id") if n in given}
            found.update({**nulled, **kept, "updated_at": iso(now_ms())})
            if fields.config is not None:
                found["config"] = fields.config.model_dump(exclude_none=True)
                found["type"] = fields.config.type
        repository.change(connection, row, {"triggers": json.encode(triggers)})
        return found

    return await services.database.write(unit)


def _check_connection(connection: Connection, app_id: str, connection_id: str | None) -> None:
    if connection_id is None or connections.find(connection, app_id, connection_id) is not None:
        return
    words = "no such connection: use one of the app's, or leave it out"
    raise BadInput(f"connection_id: {words}", [FieldError(("connection_id",), "unknown", words)])


def _triggers(
    connection: Connection, app_id: str, collection_id: str
) -> tuple[CollectionRow, list[dict[str, Any]]]:
    row = repository.find(connection, app_id, collection_id)
    if row is None:
        raise unknown()
    return row, json.decode(row.triggers)
