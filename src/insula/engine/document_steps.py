"""The workflow document and its steps, one model a type."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field as Setting
from pydantic import Tag

from insula.engine.document_fields import Field, InputOptions
from insula.engine.document_messages import ModelProvider
from insula.engine.document_shape import (
    Pair,
    Part,
    Positive,
    WholeNumber,
    by_kind,
    by_property,
)

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
DESTINATIONS_MAX = 1000
"""Edges of one group of one step."""

Destinations = Annotated[list[str], Setting(max_length=DESTINATIONS_MAX)]


class Retry(Part):
    """How often a failed attempt is tried again; ``backoff`` seconds, doubled each time.

    ``on`` lists the failure codes that are tried again; without it all are.
    """

    max: Annotated[WholeNumber, Setting(ge=0, le=100)]
    backoff: Annotated[float, Setting(ge=0, le=3600)] = 1.0
    on: list[str] | None = None


class StepLimits(Part):
    """Bounds on a step's JavaScript, seconds and bytes; the installation's are the ceiling."""

    cpu: Positive | None = None
    wall: Positive | None = None
    memory: Positive | None = None
    output: Positive | None = None
    logs: Positive | None = None


class AutoConfig(Part):
    """What the studio's assistant was last asked with."""

    provider: str | None = None
    model: str | None = None
    temperature: float | None = None


class Step(Part):
    """What steps of every type have. ``timeout`` is in seconds, for one attempt."""

    type: str
    key: str
    display: Literal["expanded", "collapsed", "minimal"] | None = None
    conditional: str | None = None
    loop: str | None = None
    throw_on_error: bool = True
    input_connected: bool = False
    destinations: Destinations = Setting(default_factory=list)
    position: Pair | None = None
    size: Pair | None = None
    auto: AutoConfig | None = None
    timeout: Positive | None = None
    retry: Retry | None = None
    on_interrupt: Literal["retry", "fail"] = "retry"
    limits: StepLimits | None = None


class NoteStep(Step):
    """Text on the canvas; it never runs."""

    type: Literal["note"] = "note"
    note: str


class Webhook(Part):
    """How the outside starts a run at this input."""

    method: Method
    path: str | None = None


class InputStep(Step):
    """Where a run begins: the fields it asks for."""

    type: Literal["input"] = "input"
    input: dict[str, Field]
    webhook: Webhook | None = None


class BranchCondition(Part):
    """A script, and where the run goes on while it holds."""

    condition: str | None = None
    destinations: Destinations
    order: float


class BranchStep(Step):
    """Independent conditions, and where the run goes on when none holds."""

    type: Literal["branch"] = "branch"
    conditions: dict[str, BranchCondition]
    else_: Destinations = Setting(
        default_factory=list, validation_alias="else", serialization_alias="else"
    )


class CodeStep(Step):
    """JavaScript."""

    type: Literal["code"] = "code"
    code: str


class ModelStep(Step):
    """A conversation with a model."""

    type: Literal["model"] = "model"
    provider: ModelProvider


class HttpRequestStep(Step):
    """One outgoing request. ``headers`` are an object, or a template that yields one."""

    type: Literal["http_request"] = "http_request"
    url: str
    method: Method = "GET"
    headers: (
        Annotated[
            Annotated[str, Tag("\0text")] | Annotated[dict[str, str], Tag("\0object")],
            by_kind("give an object of texts, or a template that yields one"),
        ]
        | None
    ) = None
    body: str | None = None


class BrowserStep(Step):
    """One page in a real browser."""

    type: Literal["browser"] = "browser"
    url: str
    strip_html: bool | None = None
    wait_for_selector: str | None = None


class WorkflowStep(Step):
    """A child run. ``step_key`` is its entry."""

    type: Literal["workflow"] = "workflow"
    input: Any
    step_key: str | None = Setting(default=None, json_schema_extra={"nullable": True})
    workflow_id: str | None = None
    workflow_version_id: (
        Annotated[
            Annotated[str, Tag("\0text")] | Annotated[WholeNumber, Tag("\0number")],
            by_kind("give latest, draft, a number or the id of a version"),
        ]
        | None
    ) = None


class ServiceStep(Step):
    """An action of a service."""

    type: Literal["service"] = "service"
    service: dict[str, Any]


STEP_MODELS: dict[str, type[Step]] = {
    "note": NoteStep,
    "input": InputStep,
    "branch": BranchStep,
    "code": CodeStep,
    "model": ModelStep,
    "http_request": HttpRequestStep,
    "browser": BrowserStep,
    "workflow": WorkflowStep,
    "service": ServiceStep,
}

AnyStep: TypeAlias = Annotated[
    Annotated[NoteStep, Tag("\0note")]
    | Annotated[InputStep, Tag("\0input")]
    | Annotated[BranchStep, Tag("\0branch")]
    | Annotated[CodeStep, Tag("\0code")]
    | Annotated[ModelStep, Tag("\0model")]
    | Annotated[HttpRequestStep, Tag("\0http_request")]
    | Annotated[BrowserStep, Tag("\0browser")]
    | Annotated[WorkflowStep, Tag("\0workflow")]
    | Annotated[ServiceStep, Tag("\0service")],
    by_property("type", f"give an object whose type is one of: {', '.join(STEP_MODELS)}"),
]


class Document(Part):
    """A workflow's body: a flat list of steps, whose edges live on their sources."""

    key: str = ""
    input: dict[str, Field] | None = None
    input_default: dict[str, Any] | None = None
    input_options: InputOptions | None = None
    steps: list[AnyStep] = Setting(default_factory=list)
