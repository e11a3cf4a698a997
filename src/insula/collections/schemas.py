"""What callers send about collections and records."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from insula.collections import mappings
from insula.web.fields import Name, Prose, storable

RULES_MAX = 1_000
MAPPINGS_MAX = 1_000
TRIGGERS_MAX = 20

Effect = Literal["PASS", "FAIL", "WARN"]
Mode = Literal["all", "changed"]
Id = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(storable)]
Ids = Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=100)]
RuleKey = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_-]+$")]
RecordName = Annotated[str, Field(max_length=500), AfterValidator(storable)]


def _is_place(text: str) -> str:
    if mappings.parse(text) is None:
        raise ValueError("must be a rule's key, a colon and a field, such as intake:person.name")
    return text


Place = Annotated[str, Field(max_length=1_000), AfterValidator(storable), AfterValidator(_is_place)]


class _Sent(BaseModel):
    """What is not known is passed over, so that an answer can be sent back changed."""

    model_config = ConfigDict(extra="ignore")


class CreateCollection(_Sent):
    """A new collection; ``from_collection_id`` copies another's rules and mappings."""

    name: Name
    description: Prose | None = None
    from_collection_id: Id | None = None
    tags_ids: Ids | None = None


class UpdateCollection(_Sent):
    """Changes of a collection; what is left out stays as it is."""

    name: Name | None = None
    description: Prose | None = None
    tags_ids: Ids | None = None


class Rule(_Sent):
    """One rule: a workflow, and what its success and its failure mean."""

    name: Name
    key: RuleKey | None = Field(None, description="Made from the name if left out.")
    workflow_id: Id
    workflow_version_id: Id | int | None = Field(
        None, description="The version that is pinned; with `workflow_use_latest` of no effect."
    )
    workflow_use_latest: bool | None = Field(
        None, description="Follow the latest version; so it is where no version is named."
    )
    workflow_input_default: dict[str, Any] | None = None
    step_key: Id | None = Field(None, description="Begin at this step.")
    execution_order: Literal["before-all", "together", "after-all"] | None = None
    on_success: Effect = "PASS"
    on_fail: Effect = "FAIL"
    disabled: bool = False


class Mapping(_Sent):
    """Copy what stands at one ``RULE:field`` to others."""

    source_path: Place
    destination_paths: Annotated[list[Place], Field(max_length=RULES_MAX)]


class UpdateConfig(_Sent):
    """The rules and mappings of a collection, whole; what is left out stays as it is."""

    rules: Annotated[list[Rule], Field(max_length=RULES_MAX)] | None = None
    mappings: Annotated[list[Mapping], Field(max_length=MAPPINGS_MAX)] | None = None


class TriggerMapping(_Sent):
    """What of an entity goes into the input of a rule."""

    type: Literal["document", "property"]
    name: Name | None = None
    entity_path: Annotated[str, Field(min_length=1, max_length=1_000), AfterValidator(storable)]
    input_path: Annotated[
        list[Annotated[str, Field(max_length=200), AfterValidator(storable)]],
        Field(min_length=1, max_length=100),
    ]


Five = Annotated[list[Annotated[str, AfterValidator(storable)]], Field(max_length=5)]


class TriggerConfig(_Sent):
    """What a trigger watches, and where what it finds goes."""

    type: Literal["ENCOMPASS", "PERSONA"]
    mappings: Annotated[list[TriggerMapping], Field(max_length=MAPPINGS_MAX)] | None = None
    pull_on_millestones: Five | None = None
    pull_on_folders: Five | None = None


class CreateTrigger(_Sent):
    """A trigger: where records come from."""

    name: Name | None = None
    config: TriggerConfig
    enabled: bool = True
    connection_id: Id | None = None


class UpdateTrigger(_Sent):
    """Changes of a trigger; what is left out stays as it is."""

    name: Name | None = None
    config: TriggerConfig | None = None
    enabled: bool | None = None
    connection_id: Id | None = None


class Entity(_Sent):
    """What a trigger saw: a record is made of it."""

    trigger_id: Id
    entity_id: Id
    data: dict[str, Any] = {}


RuleInputs = Annotated[dict[str, dict[str, Any] | None], Field(max_length=RULES_MAX)]


class _RecordFields(_Sent):
    name: RecordName | None = None
    rules: RuleInputs | None = Field(default=None, description="Inputs by the keys of rules.")
    run: Mode | None = None
    tags_ids: Ids | None = None


class CreateRecord(_RecordFields):
    """A new record; ``run`` analyses it at once."""

    source: Literal["APP", "API"] = "API"
    entity: Entity | None = Field(None, description="Of a trigger; the source is then TRIGGER.")


class UpdateRecord(_RecordFields):
    """Changes of a record. A rule's input is replaced as a whole; others stay."""


class RunRecord(_Sent):
    """Which rules to run."""

    mode: Mode

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, given: Any) -> Any:
        return given if not isinstance(given, dict) or given else {"mode": "all"}
