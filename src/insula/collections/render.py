"""Collections and records as the contract's JSON; what is stored as JSON is copied, not parsed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row

from insula.collections.record_repository import tally
from insula.collections.repository import Shown
from insula.collections.rows import Config, RecordRow, RuleRow
from insula.engine.credits import total
from insula.kit import json
from insula.kit.clock import iso
from insula.kit.json import NULL, Raw
from insula.tags.schemas import tag_wire

NO_USAGE: dict[str, Any] = {"total": 0, "steps": {}}


@dataclass(frozen=True, slots=True)
class Around:
    """What answers about records need beside the records' own rows."""

    base: str
    """Where this installation is, for links."""
    rules: Mapping[str, list[RuleRow]]
    configs: Mapping[str, Raw]
    """Configs as the contract has them, by their ids."""
    collections: Mapping[str, str]
    """Names, by ids."""
    keys: Mapping[str, str]
    """Names, by ids."""
    tags: Mapping[str, Sequence[Row[Any]]]
    runs: Mapping[str, Any] = field(default_factory=dict)
    """Runs by their ids: whole ones, or what is newer of one than its record tells."""


def collection_members(shown: Shown, base: str, config: Raw) -> dict[str, Any]:
    """Make ``CollectionSchema``, or with an extended config, ``ExtendedCollectionSchema``."""
    row = shown.row
    app = shown.app
    return {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "app": None
        if app is None
        else {"id": app.id, "name": app.name, "verified": bool(app.verified)},
        "config": config,
        "tags": [tag_wire(tag) for tag in shown.tags],
        "records_count": shown.records_count,
        "deleted": False,
        "triggers": Raw(row.triggers),
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
        "link": f"{base}/apps/{row.app_id}/collections/{row.id}",
    }


def config_raw(config: Config, rules: Sequence[Mapping[str, Any]]) -> Raw:
    """Encode ``CollectionConfigSchema`` with the rules as they are to be shown."""
    at = iso(config.created_at)
    return json.raw(
        {
            "id": config.id,
            "rules": rules,
            "mappings": config.mappings,
            "created_at": at,
            "updated_at": at,
        }
    )


def followed(config: Config, latest: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Return a config's rules with the versions that they mean now; ``latest`` by workflow."""
    return [
        {**rule, "workflow_version_id": latest.get(rule["workflow_id"])}
        if rule["workflow_use_latest"] and latest.get(rule["workflow_id"])
        else rule
        for rule in config.rules
    ]


def record_members(row: RecordRow, around: Around, *, extended: bool = False) -> dict[str, Any]:
    """Make ``RecordSchema``; ``extended`` adds what an entity's data is."""
    rules = around.rules.get(row.id, [])
    parts = {rule.key: _parts(rule) for rule in rules}
    usage = {key: part["usage"] for key, part in parts.items() if "usage" in part}
    by = row.created_by
    counts = tally(rules)  # the row's do not follow while it is analysed
    shown: dict[str, Any] = {
        "id": row.id,
        "name": row.name,
        "status": row.status,
        "source": row.source,
        "usage": {"total": round(total(rule.credits for rule in rules), 9), "rules": usage},
        "rules_count": counts["rules_count"],
        "rules_pass_count": counts["pass_count"],
        "rules_fail_count": counts["fail_count"],
        "rules_warn_count": counts["warn_count"],
        "rules": {rule.key: _rule(row, rule, parts[rule.key], around) for rule in rules},
        "config": around.configs[row.config_id],
        "collection_name": around.collections.get(row.collection_id, ""),
        "collection_id": row.collection_id,
        "created_by": None if by is None else {"id": by, "name": around.keys.get(by)},
        "entity": _entity(row, extended=extended),
        "tags": [tag_wire(tag) for tag in around.tags.get(row.id, ())],
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
        "link": f"{around.base}/apps/{row.app_id}/collections/{row.collection_id}/records/{row.id}",
    }
    if row.cancel_requested_at is not None:
        shown["cancel_requested_at"] = iso(row.cancel_requested_at)
    return shown


def _parts(rule: RuleRow) -> dict[str, Raw]:
    return {} if rule.outcome is None else json.members(rule.outcome)


def _rule(
    row: RecordRow, rule: RuleRow, parts: Mapping[str, Raw], around: Around
) -> dict[str, Any]:
    shown: dict[str, Any] = {"status": rule.status, "key": rule.key}
    for name in ("result", "result_omitted", "display", "error"):
        if name in parts:
            shown[name] = parts[name]
    shown["input"] = NULL if rule.input is None else Raw(rule.input)
    shown["run"] = _run(row, rule, parts, around)
    if rule.disabled:
        shown["disabled"] = True
    return shown | {"created_at": iso(rule.created_at), "updated_at": iso(rule.updated_at)}


def _run(
    row: RecordRow, rule: RuleRow, parts: Mapping[str, Raw], around: Around
) -> dict[str, Any] | None:
    """Return the rule's run: whole if it was read, else in short, without its steps."""
    if rule.run_id is None or "run" not in parts:
        return None
    found = around.runs.get(rule.run_id, {})
    if "output" in found:
        return dict(found)
    return {
        **json.decode(parts["run"]),
        "input": None,
        "output": {},
        "origin": "RECORD",
        "app_id": row.app_id,
        "workflow_version_draft": None,
        "workflow_version": None,
        "collection_id": row.collection_id,
        "record_id": row.id,
        **found,
    }


def _entity(row: RecordRow, *, extended: bool) -> Any:
    if row.entity is None:
        return None
    entity = json.decode(row.entity)
    if not extended:
        entity.pop("data", None)
    return entity
