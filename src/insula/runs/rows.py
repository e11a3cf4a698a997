"""A run's row, and what stands beside it: the row shape of this concept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

FINAL = frozenset(("CANCELLED", "SKIPPED", "COMPLETED", "FAILED"))


@dataclass(slots=True)
class RunRow:
    """A row of ``runs``, its fields in the order of the table's columns."""

    id: str
    app_id: str
    workflow_app_id: str
    workflow_id: str
    version_id: str | None
    version: int | None
    root_id: str
    parent_id: str | None
    parent_key: str | None
    depth: int
    hidden: bool
    status: str
    origin: str
    identifier: str | None
    from_step_key: str | None
    replay_of: str | None
    background: bool
    options: bytes
    owner: str | None
    seq: int
    error: str | None
    credits: float
    retention: bytes | None
    retention_due_at: int | None
    erased_at: int | None
    cancel_requested_at: int | None
    cancel_requested_by: str | None
    started_at: int | None
    ended_at: int | None
    created_at: int
    updated_at: int

    @property
    def is_final(self) -> bool:
        """Whether the status is one that stays."""
        return self.status in FINAL

    def values(self) -> tuple[Any, ...]:
        """Return the fields in the order of the columns."""
        return _VALUES(self)


COLUMNS = tuple(field.name for field in fields(RunRow))
_VALUES: Callable[[RunRow], tuple[Any, ...]] = attrgetter(*COLUMNS)


def run_row(row: Sequence[Any]) -> RunRow:
    """Make the shape from a database row that has every column in order."""
    return RunRow(*row)
