"""The rows of tests and of shared expectations."""

from dataclasses import dataclass
from typing import Any

from insula.kit import json

DRAFT = "DRAFT"
RUNNING = "RUNNING"
CANCELLED = "CANCELLED"
PASSED = "PASSED"
FAILED = "FAILED"
_WRITTEN = frozenset(("key", "name", "expectation_id", "script"))


@dataclass(frozen=True, slots=True)
class Expectation:
    """A row of ``workflow_expectations``."""

    id: str
    app_id: str
    workflow_id: str
    name: str
    script: bytes
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class WorkflowTest:
    """A row of ``workflow_tests`` without its recording, of which it only says that there is one.

    RUNNING without ``run_id`` it waits for its turn; with one, its run goes on or is being judged.
    """

    id: str
    app_id: str
    workflow_id: str
    name: str
    status: str
    input: bytes | None
    input_default: bytes | None
    input_context: bytes | None
    step_key: str | None
    expectations: bytes
    passing: int
    failing: int
    run_id: str | None
    error: str | None
    version: str | None
    ran: bytes | None
    created_at: int
    updated_at: int
    recorded: bool

    def items(self) -> list[dict[str, Any]]:
        """Return what it expects, with what became of it."""
        found: list[dict[str, Any]] = json.decode(self.expectations)
        return found


def as_written(item: dict[str, Any]) -> dict[str, Any]:
    """Return an expectation without what became of it."""
    return {name: value for name, value in item.items() if name in _WRITTEN}


@dataclass(frozen=True, slots=True)
class Underway:
    """A test that is RUNNING, in short, with the end of its run: ``None`` if that has not ended.

    ``lost``: the row of its run is gone.
    """

    id: str
    workflow_id: str
    run_id: str | None
    updated_at: int
    run_status: str | None
    run_ended_at: int | None

    @property
    def lost(self) -> bool:
        """Whether its run's row is gone."""
        return self.run_id is not None and self.run_status is None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is stored of an execution that is over; without ``expectations`` none was judged."""

    status: str
    expectations: bytes | None = None
    passing: int = 0
    failing: int = 0
    error: str | None = None
    ran: bytes | None = None
