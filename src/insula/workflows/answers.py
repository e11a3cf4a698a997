"""What is answered about workflows, as the document describes it; ``render`` writes it."""

from typing import Any

from pydantic import BaseModel, Field

from insula.engine.document_fields import Field as InputField
from insula.engine.document_fields import InputOptions
from insula.engine.document_steps import AnyStep
from insula.tags.schemas import TagSchema


class AppPublicSchema(BaseModel):
    """What everybody may know of an app."""

    id: str
    name: str
    verified: bool


class UserPublicSchema(BaseModel):
    """Who did something: a key, with its name."""

    id: str
    name: str | None


class RetentionSchema(BaseModel):
    """How long a run's data is kept after its end: -1 for ever, 0 not at all."""

    max_age_in_seconds: float
    preserve_on_failure: bool | None = None


class ProblemSchema(BaseModel):
    """What keeps a draft from being deployed."""

    path: list[str]
    code: str
    message: str


class TestStatsSchema(BaseModel):
    """How the tests of a workflow did."""

    __test__ = False  # no test of ours

    total_count: int
    running_count: int
    cancelled_count: int
    passing_count: int
    failing_count: int
    expectations_failing_count: int
    expectations_passing_count: int


class BodySchema(BaseModel):
    """What a workflow does."""

    key: str
    input: dict[str, InputField] | None
    input_default: dict[str, Any] | None
    input_options: InputOptions | None
    steps: list[AnyStep] = Field(description="Empty to callers of a workflow that is not open.")


class WorkflowVersionSchema(BodySchema):
    """A deployed version."""

    id: str
    app_id: str
    workflow_id: str
    description: str | None
    version: int
    rollback_version: int | None = Field(None, description="Which one this returned to.")
    notes: str | None
    created_by: UserPublicSchema | None = Field(None, description="To its own app alone.")
    created_at: str
    withdrawn: bool | None = Field(None, description="To its own app alone, where it is.")


class WorkflowSchema(BodySchema):
    """A workflow. Its own app sees the draft; others the latest public version's body."""

    id: str
    name: str
    description: str | None
    app: AppPublicSchema
    version: WorkflowVersionSchema | None
    tags: list[TagSchema]
    tests_stats: TestStatsSchema | None = None
    template_id: str | None
    runs_count: int
    retention: RetentionSchema | None
    enabled: bool
    deleted: bool
    created_at: str | None
    updated_at: str | None
    open: bool | None = None
    discoverable: bool | None = None
    published_from_version: int | None = Field(
        None, description="The first version that others see.", json_schema_extra={"nullable": True}
    )
    caller_limit: int | None = Field(
        None,
        description="Live runs that another app may have at once.",
        json_schema_extra={"nullable": True},
    )
    problems: list[ProblemSchema] | None = None
    require_tests: bool | None = None


class CallerSchema(BaseModel):
    """Another app that runs a workflow, or may not."""

    app: AppPublicSchema
    blocked: bool
    runs_count: int


class BlockedSchema(BaseModel):
    """An app to which the workflow does not exist any more."""

    app_id: str
    blocked: bool
