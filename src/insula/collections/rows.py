"""The row shapes of collections, their configs, records, and the rules of records."""

from dataclasses import dataclass, fields
from typing import Any

from insula.kit import json
from insula.storage import tables

LIVE = ("QUEUED", "RUNNING")
"""Statuses of a record whose rules are being run."""

PHASES = {"before-all": 0, None: 1, "together": 1, "after-all": 2}
"""When a rule is run, by its ``execution_order``."""


@dataclass(slots=True)
class CollectionRow:
    """A row of ``collections``."""

    id: str
    app_id: str
    name: str
    description: str | None
    config_id: str
    triggers: bytes
    deleting: bool
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Config:
    """Rules and mappings, as they stood from one moment on; never changed."""

    id: str
    collection_id: str
    rules: list[dict[str, Any]]
    mappings: list[dict[str, Any]]
    created_at: int
    is_lost: bool = False
    """Whether it stands, without rules, for one that the database does not hold."""

    def rule(self, key: str) -> dict[str, Any]:
        """Return the rule of this key."""
        return next(rule for rule in self.rules if rule["key"] == key)


@dataclass(slots=True)
class RecordRow:
    """A row of ``records``."""

    id: str
    app_id: str
    collection_id: str
    config_id: str
    name: str | None
    status: str
    source: str
    rules_count: int
    pass_count: int
    fail_count: int
    warn_count: int
    analysis: int
    entity: bytes | None
    created_by: str | None
    cancel_requested_at: int | None
    cancel_requested_by: str | None
    created_at: int
    updated_at: int

    @property
    def is_live(self) -> bool:
        """Whether its rules are being run."""
        return self.status in LIVE


@dataclass(slots=True)
class RuleRow:
    """A row of ``record_rules``: one rule of one record."""

    record_id: str
    key: str
    place: int
    phase: int
    disabled: bool
    due: bool
    status: str
    input: bytes | None
    run_id: str | None
    ended: str | None
    outcome: bytes | None
    ran: bytes | None
    credits: float
    created_at: int
    updated_at: int

    def given(self) -> dict[str, Any]:
        """Return its input."""
        value = None if self.input is None else json.decode(self.input)
        return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a rule of a record is, without what it was given and what came of it."""

    key: str
    phase: int
    disabled: bool
    due: bool
    status: str
    ended: str | None
    run_id: str | None

    @property
    def is_open(self) -> bool:
        """Whether the analysis still waits for it."""
        return self.due or self.status == "RUNNING"


def names(shape: Any) -> tuple[str, ...]:
    """Return a row shape's columns, in order."""
    return tuple(field.name for field in fields(shape))


assert names(CollectionRow) == tuple(column.name for column in tables.collections.columns)
assert names(RecordRow) == tuple(column.name for column in tables.records.columns)
assert names(RuleRow) == tuple(column.name for column in tables.record_rules.columns)


def values(row: CollectionRow | RecordRow | RuleRow) -> dict[str, Any]:
    """Return a row's columns."""
    return {name: getattr(row, name) for name in names(row)}
