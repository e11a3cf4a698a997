"""The rules of a record with their inputs: given, held, from a rule's default, and mapped."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from insula.collections import mappings, workflows
from insula.collections.rows import PHASES, Config, RecordRow, RuleRow
from insula.collections.services import RecordServices
from insula.errors import BadInput, FieldError
from insula.files.store import Also
from insula.kit import json
from insula.kit.clock import now_ms


async def taken_in(
    services: RecordServices,
    record: RecordRow,
    config: Config,
    held: Sequence[RuleRow],
    given: Mapping[str, dict[str, Any] | None],
    *,
    from_text: bool = False,
    held_on: Config | None = None,
    also: Also | None = None,
) -> list[RuleRow]:
    """Return the rules of a record on a config, with the inputs that are given or held, mapped.

    ``held_on`` is the config with which inputs are held, if it is another: what its defaults gave
    is left to those of this one. ``also`` is done in the unit of each file that is stored.
    """
    take = partial(
        workflows.taken_in, services.runs, record.app_id, record.id, from_text=from_text, also=also
    )
    known = {rule["key"] for rule in config.rules}
    errors = [
        FieldError(("rules", key), "unknown", "is no rule of this record; see `config.rules`")
        for key in given
        if key not in known
    ]
    if errors:
        raise BadInput(f"rules.{errors[0].path[1][:100]} {errors[0].message}", errors)
    by_key = {row.key: row for row in held}
    inputs: mappings.Inputs = {}
    for rule in config.rules:
        key = rule["key"]
        if key in given or key not in by_key:
            inputs[key] = await take(rule, given.get(key))
        else:
            stands = by_key[key].input
            inputs[key] = None if stands is None else json.decode(stands)
            if held_on is not None:
                old = held_on.rule(key)
                before = await _old_default(services, record.app_id, old, rule)
                if before is not None:
                    inputs[key] = _over(await take(rule, None), inputs[key], before)
    mapped = inputs
    if config.mappings:  # they may copy megabytes
        mapped = await asyncio.to_thread(mappings.apply, inputs, config.mappings)
    now = now_ms()
    made = []
    for place, each in enumerate(config.rules):
        key, value = each["key"], mapped[each["key"]]
        row = by_key.get(key) or _blank_rule(record.id, key, now)
        encoded = None if value is None else json.encode(workflows.storable(key, value))
        made.append(_renewed(row, each, place, encoded))
    return made


async def _old_default(
    services: RecordServices, app_id: str, old: Mapping[str, Any], rule: Mapping[str, Any]
) -> list[dict[str, Any]] | None:
    """Return what a rule's former default may stand as in a record, ``None`` if it is the same."""
    name = "workflow_input_default"
    if (old.get(name) or {}) == (rule.get(name) or {}):
        return None
    return await workflows.defaults(services.runs, app_id, old)


def _over(
    default: dict[str, Any] | None, held: dict[str, Any] | None, before: list[dict[str, Any]]
) -> dict[str, Any] | None:
    """Return what is held of an input over the default that its rule has now: what still is as a
    former default gave it follows the default."""
    kept = {
        key: value
        for key, value in (held or {}).items()
        if not any(key in each and _same(each[key], value) for each in before)
    }
    return {**(default or {}), **kept} or None


def _same(one: object, other: object) -> bool:
    return workflows.canonical(json.encode(one)) == workflows.canonical(json.encode(other))


def _blank_rule(record_id: str, key: str, now: int) -> RuleRow:
    return RuleRow(
        record_id=record_id,
        key=key,
        place=0,
        phase=1,
        disabled=False,
        due=False,
        status="DRAFT",
        input=None,
        run_id=None,
        ended=None,
        outcome=None,
        ran=None,
        credits=0.0,
        created_at=now,
        updated_at=now,
    )


def _renewed(row: RuleRow, rule: Mapping[str, Any], place: int, value: bytes | None) -> RuleRow:
    kept = {name: getattr(row, name) for name in RuleRow.__dataclass_fields__}
    kept |= {
        "place": place,
        "phase": PHASES.get(rule.get("execution_order"), 1),
        "disabled": bool(rule.get("disabled")),
        "input": value,
    }
    return RuleRow(**kept)
