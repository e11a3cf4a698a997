"""Schedules on the wire."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from insula.kit.clock import iso
from insula.kit.json import Raw
from insula.schedules.repository import Schedule
from insula.web.fields import storable

Id = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(storable)]
Word = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(storable)]
Missed = Literal["skip", "once", "all"]


class _Times(BaseModel):
    """When it is due: exactly one of ``at``, ``cron`` and ``every``."""

    model_config = ConfigDict(extra="ignore")

    at: Annotated[str, Field(max_length=100)] | None = Field(
        None, description="ISO 8601; in `timezone` where it names none."
    )
    cron: Annotated[str, Field(max_length=100)] | None = Field(
        None, description="Five fields, or `@hourly` and so on."
    )
    every: int | None = Field(None, description="Seconds, counted from when it was set.")
    timezone: Annotated[str, Field(max_length=100)] | None = Field(
        None, description="Such as Europe/Berlin; UTC if left out."
    )
    workflow_version_id: Word | int | None = Field(None, description="`latest` if left out.")
    from_step_key: Word | None = None
    input: dict[str, Any] | None = None
    missed: Missed | None = Field(None, description="What is done about missed ticks: `once`.")
    enabled: bool | None = None


class CreateSchedule(_Times):
    """Make a schedule."""

    workflow_id: Id


class UpdateSchedule(_Times):
    """Change a schedule; what is left out stays."""


class ScheduleSchema(BaseModel):
    """A schedule."""

    id: str
    workflow_id: str
    workflow_version_id: str | None
    step_key: str | None
    from_step_key: str | None
    at: str | None
    cron: str | None
    every: int | None
    timezone: str
    input: dict[str, Any] | None
    missed: Missed
    enabled: bool
    next_at: str | None
    last_at: str | None
    last_run_id: str | None
    last_error: str | None
    runs_count: int
    created_at: str
    updated_at: str


def schedule_wire(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule as ``ScheduleSchema`` says."""
    return {
        "id": schedule.id,
        "workflow_id": schedule.workflow_id,
        "workflow_version_id": schedule.version,
        "step_key": schedule.step_key,
        "from_step_key": schedule.from_step_key,
        "at": _time(schedule.at),
        "cron": schedule.cron,
        "every": schedule.every,
        "timezone": schedule.timezone,
        "input": None if schedule.input is None else Raw(schedule.input),
        "missed": schedule.missed,
        "enabled": schedule.enabled,
        "next_at": _time(schedule.next_at),
        "last_at": _time(schedule.last_at),
        "last_run_id": schedule.last_run_id,
        "last_error": schedule.last_error,
        "runs_count": schedule.runs,
        "created_at": iso(schedule.created_at),
        "updated_at": iso(schedule.updated_at),
    }


def _time(moment: int | None) -> str | None:
    return None if moment is None else iso(moment)
