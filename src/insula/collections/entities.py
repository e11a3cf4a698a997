"""Entities: what a trigger saw elsewhere, and what of it goes into a record's inputs."""

from collections.abc import Mapping
from typing import Any

from insula.collections import mappings
from insula.collections.rows import CollectionRow
from insula.collections.schemas import Entity
from insula.errors import BadInput, Conflict, FieldError
from insula.kit import json
from insula.kit.clock import iso, now_ms
from insula.kit.ids import new_id

DATA_MAX = 1024 * 1024
"""Bytes of an entity's data."""


def entity_of(collection: CollectionRow, given: Entity, record_id: str) -> dict[str, Any]:
    """Return an entity as a record keeps it.

    Raises:
        BadInput: the collection has no such trigger, or there is too much data.
        Conflict: the trigger is switched off.
    """
    trigger = _trigger(collection, given.trigger_id)
    if trigger is None:
        words = "names no trigger of this collection"
        error = FieldError(("entity", "trigger_id"), "unknown", words)
        raise BadInput(f"entity.trigger_id {words}", [error])
    if not trigger["enabled"]:
        raise Conflict("This trigger is switched off: enable it before records come from it")
    if len(json.encode(given.data)) > DATA_MAX:
        words = f"is over {DATA_MAX:,} bytes"
        error = FieldError(("entity", "data"), "too_long", words)
        raise BadInput(f"entity.data {words}", [error])
    now = iso(now_ms())
    return {
        "id": new_id("ent"),
        "entity_id": given.entity_id,
        "status": "SYNCED",
        "type": trigger["type"],
        "trigger_id": given.trigger_id,
        "record_id": record_id,
        "data": given.data,
        "created_at": now,
        "updated_at": now,
    }


def given_by(collection: CollectionRow, entity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs that a trigger's mappings make of an entity.

    ``input_path`` is a list of ``RULE:field``, or the parts of one path, the rule's key first.

    Raises:
        BadInput: they copy too much.
    """
    trigger = _trigger(collection, entity["trigger_id"])
    given: dict[str, Any] = {}
    copies = mappings.Copies()
    for mapping in (trigger or {}).get("config", {}).get("mappings", ()):
        value = mappings.at(entity["data"], mapping["entity_path"].split("."))
        if value is None:
            continue
        copy = copies.of(value)
        places = [mappings.parse(text) for text in mapping["input_path"]]
        whole = [(place.rule, *place.path) for place in places if place is not None]
        for path in whole or [tuple(mapping["input_path"])]:
            mappings.put(given, path, copy())
    return {rule: fields for rule, fields in given.items() if isinstance(fields, dict)}


def _trigger(collection: CollectionRow, trigger_id: str) -> dict[str, Any] | None:
    triggers: list[dict[str, Any]] = json.decode(collection.triggers)
    return next((each for each in triggers if each["id"] == trigger_id), None)
