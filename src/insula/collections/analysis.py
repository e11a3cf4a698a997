"""Analysing a record: which of its rules are to be run, and the unit that begins it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from insula.collections import record_repository
from insula.collections.rows import Config, RecordRow, RuleRow, Standing
from insula.collections.workflows import Ready, check_rule
from insula.errors import BadInput, FieldError
from insula.runs.services import RunServices

CLEARED: dict[str, Any] = {
    "due": False,
    "status": "DRAFT",
    "run_id": None,
    "ended": None,
    "outcome": None,
    "ran": None,
    "credits": 0.0,
}
"""A rule without a result."""

UNCANCELLED: dict[str, Any] = {"cancel_requested_at": None, "cancel_requested_by": None}
"""A record whose cancel nobody has asked for."""


def ended_as(rules: Sequence[RuleRow | Standing]) -> str:
    """Return the status of a record of whose rules none is open.

    CANCELLED if a rule was cancelled, else FAILED if a run failed, or could not be made; else
    COMPLETED, whatever the verdicts.
    """
    ends = {rule.ended for rule in rules if not rule.disabled}
    return next((end for end in ("CANCELLED", "FAILED") if end in ends), "COMPLETED")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The keys of the rules that are to be run."""

    keys: tuple[str, ...]


async def choose(
    services: RunServices, app_id: str, config: Config, rules: Sequence[RuleRow], mode: str
) -> Chosen:
    """Say which rules are to be run: all that are not disabled, or those whose input, rule or
    version is another than at their last run, and those that have no verdict.

    Raises:
        BadInput: one of them could not be run with its input; one entry for each problem.
    """
    keys: list[str] = []
    errors: list[FieldError] = []
    for rule in rules:
        if rule.disabled:
            continue
        ready = await check_rule(services, app_id, config.rule(rule.key), rule.input)
        if mode == "changed" and not _differs(rule, ready):
            continue
        keys.append(rule.key)
        errors += problems(ready)
    if errors:
        raise BadInput("The record cannot be analysed: some inputs cannot be used", errors)
    return Chosen(tuple(keys))


def _differs(rule: RuleRow, ready: Ready) -> bool:
    return rule.status == "DRAFT" or rule.ran is None or rule.ran != ready.ran


def problems(ready: Ready) -> list[FieldError]:
    """Return what keeps a rule from being run, each with its path in the record."""
    here = ("rules", ready.key)
    if ready.failure is not None:
        return [FieldError(here, "workflow", f"cannot be run: {ready.failure.message}")]
    assert ready.checked is not None
    return [
        FieldError((*here, *error.path[1:]), error.code, error.message)
        for error in ready.checked.errors
    ]


def begin(connection: Connection, row: RecordRow, rules: Sequence[RuleRow], chosen: Chosen) -> None:
    """In a unit: let the chosen rules be due, without their former results."""
    wanted = set(chosen.keys)
    record_repository.clear(connection, row.id, chosen.keys, {**CLEARED, "due": True})
    for rule in rules:
        if rule.key in wanted:
            rule.status = "DRAFT"
    record_repository.change(
        connection,
        row,
        {
            "status": "QUEUED",
            "analysis": row.analysis + 1,
            **UNCANCELLED,
            **record_repository.tally(rules),
        },
    )
