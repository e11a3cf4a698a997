"""What callers send about workflows. Documents are typed loosely here: ``draft`` checks them, and
says everything that is wrong with them at once."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainValidator

from insula.web.fields import Name, Prose
from insula.workflows.retention import Retention


def _unchecked(value: Any) -> Any:
    return value


_AsSent = PlainValidator(_unchecked)

AnObject = Annotated[dict[str, Any] | None, _AsSent, Field(json_schema_extra={"type": "object"})]
AList = Annotated[list[Any] | None, _AsSent, Field(json_schema_extra={"type": "array"})]
AKey = Annotated[str | None, _AsSent, Field(json_schema_extra={"type": "string"})]

Tags = Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=100)]


class _Sent(BaseModel):
    """What is not known is passed over, so that an answer can be sent back changed."""

    model_config = ConfigDict(extra="ignore")


class WorkflowFields(_Sent):
    """What can be set when a workflow is made and afterwards."""

    description: Prose | None = None
    key: AKey = None
    input: AnObject = None
    input_default: AnObject = None
    input_options: AnObject = None
    steps: AList = None
    retention: Retention = None
    tags_ids: Tags = []
    enabled: bool = True


class CreateWorkflow(WorkflowFields):
    """A new workflow, or one that was exported."""

    name: Name


class UpdateWorkflow(WorkflowFields):
    """Changes of a workflow; what is left out stays as it is."""

    name: Name = ""
    discoverable: bool = False
    open: bool = True
    require_tests: bool = False
    caller_limit: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    updated_at: Annotated[str, Field(max_length=40)] | None = None


class DeployVersion(_Sent):
    """A deploy of the draft."""

    notes: Prose | None = None
    description: Prose | None = None
    force: bool = False


class RollBack(_Sent):
    """The version to return to: its number or its id."""

    version: int | Annotated[str, Field(max_length=40)]
    notes: Prose | None = None
    force: bool = False


class UpdateVersion(_Sent):
    """A version is never changed, but it can be withdrawn from other apps."""

    withdrawn: bool


class DuplicateWorkflow(_Sent):
    """The name of the copy; left out, it is made from the original's."""

    name: Name | None = None
