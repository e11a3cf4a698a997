"""Stores a rule's verdict in the same commit as its run's end, because the run may be erased with
that commit.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection

from insula.collections import record_repository
from insula.collections.rows import RecordRow
from insula.collections.verdict import STATUSES, succeeds
from insula.engine.display import display_of
from insula.engine.events import RunEnded
from insula.engine.state import RunState
from insula.kit import json
from insula.kit.clock import iso, now_ms
from insula.kit.json import Raw
from insula.runs.options import RuleMark, options_of
from insula.runs.render import Sight, closed_to, shown_error, shown_result, usage_of
from insula.runs.rows import RunRow
from insula.workflows.resolve import Runnable

RESULT_MAX = 1024 * 1024
"""Bytes of a result that a record keeps; a larger one stays with its run alone."""

CANCELLED = "The run was cancelled"
NOT_BEGUN = "The record was cancelled before this rule began"


def mark(record: RecordRow, rule: Mapping[str, Any]) -> RuleMark:
    """Return what a rule's run carries with it: whose it is, and what its end means."""
    return RuleMark(
        collection_id=record.collection_id,
        record_id=record.id,
        key=rule["key"],
        on_success=rule["on_success"],
        on_fail=rule["on_fail"],
    )


def begun(rule: Mapping[str, Any], run_id: str, workflow_app_id: str) -> bytes:
    """Return the outcome of a rule whose run is being created: the run in short."""
    now = iso(now_ms())
    return json.encode(
        {
            "run": {
                "id": run_id,
                "status": "PENDING",
                "workflow_app_id": workflow_app_id,
                "workflow_id": rule["workflow_id"],
                "started_at": None,
                "ended_at": None,
                "created_at": now,
                "updated_at": now,
            }
        }
    )


def land(
    row: RunRow, state: RunState, ended: RunEnded, runnable: Runnable | None
) -> Callable[[Connection], None] | None:
    """Return what stores the verdict of a run that ends, if it is a rule's."""
    if row.origin != "RECORD" or row.depth:
        return None
    rule = options_of(row).rule
    if rule is None:
        return None
    seen = frozenset[str]() if runnable is None else closed_to(runnable, row.app_id)
    sight = Sight(None, None, seen)
    changed = _verdict(rule, row, state, ended, sight)

    def unit(connection: Connection) -> None:
        record_repository.land(connection, rule.record_id, rule.key, row.id, changed)

    return unit


def _verdict(
    rule: RuleMark, row: RunRow, state: RunState, ended: RunEnded, sight: Sight
) -> dict[str, Any]:
    result = shown_result(state, sight)
    encoded = None if result is None else json.encode(result)
    outcome: dict[str, Any] = {
        "usage": usage_of(row, state, sight),
        "run": _short(row, ended),
    }
    status = "DRAFT"
    if ended.status == "CANCELLED":
        outcome["error"] = CANCELLED
    else:
        value = None if encoded is None else json.decode(encoded)
        success = succeeds(ended.status, value)
        status = STATUSES[rule.on_success if success else rule.on_fail]
        if encoded is not None and len(encoded) <= RESULT_MAX:
            outcome["result"] = Raw(encoded)
        elif encoded is not None:
            outcome["result_omitted"] = True
        if display := display_of(state):
            outcome["display"] = display
        if ended.status == "FAILED":
            outcome["error"] = shown_error(ended.error or "The run failed", state, sight)
    changed: dict[str, Any] = {
        "status": status,
        "ended": ended.status,
        "outcome": json.encode(outcome),
        "credits": state.credits,
    }
    return changed | ({"ran": None} if ended.status == "CANCELLED" else {})


def _short(row: RunRow, ended: RunEnded) -> dict[str, Any]:
    short: dict[str, Any] = {
        "id": row.id,
        "status": ended.status,
        "workflow_app_id": row.workflow_app_id,
        "workflow_id": row.workflow_id,
        "started_at": None if row.started_at is None else iso(row.started_at),
        "ended_at": iso(ended.at),
        "created_at": iso(row.created_at),
        "updated_at": iso(ended.at),
    }
    return short | ({} if row.version is None else {"version": row.version})
