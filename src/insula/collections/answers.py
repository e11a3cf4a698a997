"""What is answered about collections and records, as the document describes it; ``render`` writes
it."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from insula.collections.schemas import Effect
from insula.runs.answers import RunSchema, RunUsageSchema
from insula.tags.schemas import TagSchema
from insula.workflows.answers import (
    AppPublicSchema,
    UserPublicSchema,
    WorkflowSchema,
    WorkflowVersionSchema,
)

EntityType = Literal["ENCOMPASS", "PERSONA"]
RecordStatus = Literal["DRAFT", "QUEUED", "RUNNING", "CANCELLED", "COMPLETED", "FAILED"]


class RuleSchema(BaseModel):
    """One rule: a workflow, and what its success and its failure mean."""

    name: str
    key: str
    execution_order: str | None = None
    on_success: Effect
    on_fail: Effect
    step_key: str | None
    workflow_id: str
    workflow_version_id: str
    workflow_use_latest: bool
    workflow_input_default: dict[str, Any] | None
    disabled: bool


class ExtendedRuleSchema(RuleSchema):
    """A rule with what it runs."""

    workflow: WorkflowSchema
    workflow_version: WorkflowVersionSchema


class MappingSchema(BaseModel):
    """Copy what stands at one ``RULE:field`` to others."""

    source_path: str
    destination_paths: list[str]


class _Config(BaseModel):
    id: str
    mappings: list[MappingSchema]
    created_at: str
    updated_at: str


class CollectionConfigSchema(_Config):
    """Rules and mappings."""

    rules: list[RuleSchema]


class ExtendedCollectionConfigSchema(_Config):
    """Rules with what they run, and mappings."""

    rules: list[ExtendedRuleSchema]


class _Onto(BaseModel):
    name: str | None = None
    entity_path: str
    input_path: list[str]


class DocumentMappingSchema(_Onto):
    """Which document of an entity goes into the input of a rule."""

    type: Literal["document"]


class PropertyMappingSchema(_Onto):
    """Which property of an entity goes into the input of a rule."""

    type: Literal["property"]


class _Watched(BaseModel):
    mappings: list[DocumentMappingSchema | PropertyMappingSchema] | None = None


class EncompassTriggerSchema(_Watched):
    """What a trigger watches, and where what it finds goes."""

    type: Literal["ENCOMPASS"]
    pull_on_millestones: list[str] | None = Field(None, max_length=5)
    pull_on_folders: list[str] | None = Field(None, max_length=5)


class PersonaTriggerSchema(_Watched):
    """What a trigger watches, and where what it finds goes."""

    type: Literal["PERSONA"]


class TriggerSchema(BaseModel):
    """Where records come from."""

    id: str
    type: EntityType
    name: str | None
    config: EncompassTriggerSchema | PersonaTriggerSchema
    enabled: bool
    connection_id: str | None
    collection_id: str
    created_at: str
    updated_at: str


class _Collection(BaseModel):
    id: str
    name: str
    description: str | None
    app: AppPublicSchema | None
    tags: list[TagSchema]
    records_count: int
    deleted: bool
    triggers: list[TriggerSchema]
    created_at: str
    updated_at: str
    link: str


class CollectionSchema(_Collection):
    """A collection."""

    config: CollectionConfigSchema | None


class ExtendedCollectionSchema(_Collection):
    """A collection with what its rules run."""

    config: ExtendedCollectionConfigSchema | None


class EntitySchema(BaseModel):
    """What a trigger saw, without its data."""

    id: str
    entity_id: str
    status: Literal["SYNCED", "SYNCING"]
    type: EntityType
    trigger_id: str | None
    record_id: str | None
    created_at: str
    updated_at: str


class ExtendedEntitySchema(EntitySchema):
    """What a trigger saw."""

    data: dict[str, Any]


class RecordUsageSchema(BaseModel):
    """What a record's rules cost, in credits."""

    total: float
    rules: dict[str, RunUsageSchema]


class RecordRuleSchema(BaseModel):
    """One rule of a record: its input, and its verdict. Its run is in short, unless
    `verbose=all`."""

    status: Literal["DRAFT", "RUNNING", "PASSED", "FAILED", "WARN"]
    key: str
    result: Any = None
    result_omitted: bool | None = Field(None, description="It was too large to be kept here.")
    display: dict[str, Any] | None = Field(None, description="Blocks to be shown, by their names.")
    error: str | None = None
    input: dict[str, Any] | None
    run: RunSchema | None
    disabled: bool | None = None
    created_at: str
    updated_at: str


class _Record(BaseModel):
    id: str
    name: str | None
    status: RecordStatus
    source: Literal["APP", "API", "TRIGGER", "WORKFLOW"]
    usage: RecordUsageSchema
    rules_count: int
    rules_pass_count: int
    rules_fail_count: int
    rules_warn_count: int
    rules: dict[str, RecordRuleSchema]
    collection_name: str
    collection_id: str
    created_by: UserPublicSchema | None
    tags: list[TagSchema]
    created_at: str
    updated_at: str
    link: str
    cancel_requested_at: str | None = None


class RecordSchema(_Record):
    """A record."""

    config: CollectionConfigSchema
    entity: EntitySchema | None


class ExtendedRecordSchema(_Record):
    """A record with what its rules run."""

    config: ExtendedCollectionConfigSchema
    entity: ExtendedEntitySchema | None


class InputErrorSchema(BaseModel):
    """What is wrong with one field of a rule's input."""

    code: str
    expected: str
    received: str
    path: list[str]
    message: str


class RecordRuleErrorSchema(BaseModel):
    """What keeps a rule from being run."""

    message: str
    errors: list[InputErrorSchema]
    key: str


class RecordStatusSchema(BaseModel):
    """Where a record is, and what keeps it from being analysed."""

    status: RecordStatus
    errors: list[RecordRuleErrorSchema] | None = None
