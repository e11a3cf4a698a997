"""What is answered about runs, as the document describes it; ``render`` writes it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from insula.workflows.answers import BodySchema, RetentionSchema, WorkflowVersionSchema

RunStatus = Literal["PENDING", "RUNNING", "CANCELLED", "COMPLETED", "SKIPPED", "FAILED"]
RunOrigin = Literal["WORKFLOW", "TRIGGER", "RECORD", "TEST", "ENDPOINT", "WEBHOOK"]
StepType = Literal[
    "note", "branch", "code", "model", "http_request", "browser", "workflow", "service", "input"
]


class _Began(BaseModel):
    key: str
    type: StepType
    output: Any = None
    logs: list[Any] | None = None
    start: int = Field(description="Unix milliseconds.")


class RunStepCallSchema(_Began):
    """One execution of a tool that a model called."""

    id: str
    status: RunStatus
    index: int | None = Field(None, description="In a loop, the iteration.")
    end: int | None = None
    error: str | None = None


class RunStepSchema(_Began):
    """A step that was run by itself."""

    status: RunStatus
    end: int | None = None
    error: str | None = None


class _Step(_Began):
    calls: list[RunStepCallSchema] | None = None
    attempts: int | None = Field(None, description="Where it took more than one.")


class RunStepRunningSchema(_Step):
    """A step that is at work."""

    status: Literal["RUNNING"]


class RunStepCompletedSchema(_Step):
    """A step that has its output."""

    status: Literal["COMPLETED"]
    end: int


class RunStepSkippedSchema(_Step):
    """A step whose conditional did not hold, or that no live edge reached."""

    status: Literal["SKIPPED"]
    end: int


class RunStepFailedSchema(_Step):
    """A step that failed; with what it had produced."""

    status: Literal["FAILED"]
    end: int
    error: str | None = None


class RunStepCancelledSchema(_Step):
    """A step that was stopped; with what it had produced."""

    status: Literal["CANCELLED"]
    end: int
    error: str | None = None


AnyRunStep = (
    RunStepRunningSchema
    | RunStepCompletedSchema
    | RunStepSkippedSchema
    | RunStepFailedSchema
    | RunStepCancelledSchema
)


class CallUsageSchema(BaseModel):
    """What one execution of a tool cost."""

    id: str
    total: float


class StepUsageSchema(BaseModel):
    """What a step cost, in credits."""

    total: float
    calls: list[CallUsageSchema] | None = None


class RunUsageSchema(BaseModel):
    """What a run cost, in credits; of the steps, those that cost anything."""

    total: float
    steps: dict[str, StepUsageSchema]


class InterruptionSchema(BaseModel):
    """What a step was doing when it was stopped."""

    key: str
    runs: list[str] | None = Field(None, description="The child runs that lead to it.")
    doing: str
    for_ms: int
    effect_possible: bool = Field(description="Whether what it asked for may have happened.")


class CancellationSchema(BaseModel):
    """Who cancelled a run, when everything had stopped, and what was interrupted."""

    requested_by: str | None
    requested_at: str | None
    stopped_at: str | None
    interrupted: list[InterruptionSchema]
    interrupted_hidden: int | None = None


class RunSchema(BaseModel):
    """A run. A result may bring members that end in ``_blocks`` to be shown with it."""

    model_config = ConfigDict(extra="allow")

    id: str
    result: Any
    input: dict[str, Any] | None
    output: dict[str, AnyRunStep]
    status: RunStatus
    origin: RunOrigin
    error: str | None = None
    error_code: str | None = None
    started_at: str | None
    ended_at: str | None
    app_id: str
    workflow_app_id: str
    workflow_id: str
    workflow_version_draft: BodySchema | None
    workflow_version: WorkflowVersionSchema | None
    version: int | None = None
    usage: RunUsageSchema
    retention: RetentionSchema | None
    retention_due_at: str | None
    collection_id: str | None = Field(None, description="Of a rule's run.")
    record_id: str | None = Field(None, description="Of a rule's run.")
    identifier: str | None = None
    parent_run_id: str | None = None
    trigger: dict[str, Any] | None = Field(None, description="Of a run that a trigger started.")
    display: dict[str, Any] | None = Field(None, description="Blocks to be shown.")
    cancellation: CancellationSchema | None = Field(None, description="With `verbose=all`.")
    created_at: str
    updated_at: str


class CancelledSchema(BaseModel):
    """How many runs were cancelled."""

    count: int


class CancelledRunsSchema(CancelledSchema):
    """How many runs were cancelled, and which."""

    runs: list[str]
