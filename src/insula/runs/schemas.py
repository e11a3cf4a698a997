"""What callers send about runs."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from insula.workflows.retention import Retention

Seconds = Annotated[float, Field(gt=0, le=7 * 24 * 3600, allow_inf_nan=False)]
StepKey = Annotated[str, Field(min_length=1, max_length=256)]
Identifier = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]


class RunLimits(BaseModel):
    """Bounds on each evaluation of the run, none above the installation's."""

    model_config = ConfigDict(extra="forbid", strict=True)

    cpu: Seconds | None = None
    wall: Seconds | None = None
    memory: Annotated[int, Field(ge=1024 * 1024)] | None = None
    output: Annotated[int, Field(ge=1)] | None = None
    logs: Annotated[int, Field(ge=1)] | None = None


class _Following(BaseModel):
    model_config = ConfigDict(extra="ignore")

    stream: bool | None = None
    background: bool | None = None
    identifier: Identifier | None = None
    retention: Retention = None
    on_disconnect: Literal["continue", "cancel"] = "continue"


class CreateRun(_Following):
    """Start a run (``POST …/runs``); every field may be left out, the body too."""

    input: dict[str, Any] | None = None
    workflow_version_id: str | int | None = None
    from_step_key: StepKey | None = None
    timeout: Seconds | None = None
    limits: RunLimits | None = None


class ReplayRun(_Following):
    """Start a run anew from one of its steps."""

    stepKey: StepKey


class UpdateRetention(BaseModel):
    """Change how long a run's data is kept."""

    model_config = ConfigDict(extra="ignore")

    retention: Retention = None


class CreateRunStep(BaseModel):
    """Run one step definition by itself."""

    model_config = ConfigDict(extra="ignore")

    step: dict[str, Any]
    stream: bool | None = None


class CancelRuns(BaseModel):
    """Which of an app's runs to cancel; nothing given means all that are not final."""

    model_config = ConfigDict(extra="forbid")

    status: Literal["ALL", "PENDING", "RUNNING"] = "ALL"
    origin: Literal["ALL", "WORKFLOW", "TRIGGER", "RECORD", "TEST", "ENDPOINT", "WEBHOOK"] = "ALL"
    workflow_id: str | None = None
    identifier: Identifier | None = None
    since: str | None = None
    until: str | None = None
