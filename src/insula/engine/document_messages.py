"""A model step's ``provider``: the model, its messages and its tools."""

from typing import Annotated, Any, Literal

from pydantic import Field as Setting
from pydantic import Tag

from insula.engine.document_fields import Field
from insula.engine.document_shape import Part, WholeNumber, by_kind, by_property


class TextPart(Part):
    """Text in a message."""

    type: Literal["text"] = "text"
    text: str
    disable_variables: bool | None = None


class FilePart(Part):
    """A file in a message, by its URL."""

    type: Literal["file"] = "file"
    url: str
    disable_variables: bool | None = None


class ImagePart(Part):
    """An image in a message, by its URL."""

    type: Literal["image"] = "image"
    url: str
    disable_variables: bool | None = None


class ToolCallPart(Part):
    """A tool that the model asked for."""

    id: str
    name: str
    input: Any = None
    disable_variables: bool | None = None


class ToolResultPart(Part):
    """What a tool answered."""

    type: Literal["tool_result"] = "tool_result"
    id: str
    name: str
    output: Any = None
    disable_variables: bool | None = None


_TEXTS = "give a text or a list of text parts"
_USER_PART = "give an object whose type is text, file or image"
UserPart = Annotated[
    Annotated[TextPart, Tag("\0text")]
    | Annotated[FilePart, Tag("\0file")]
    | Annotated[ImagePart, Tag("\0image")],
    by_property("type", _USER_PART),
]


class SystemMessage(Part):
    """What the model is told to be."""

    role: Literal["system"] = "system"
    content: str
    disable_variables: bool | None = None


class AssistantMessage(Part):
    """What the model said before."""

    role: Literal["assistant"] = "assistant"
    content: Annotated[
        Annotated[str, Tag("\0text")] | Annotated[list[TextPart], Tag("\0list")], by_kind(_TEXTS)
    ]
    tools: list[ToolCallPart] | None = None
    disable_variables: bool | None = None


class UserMessage(Part):
    """What the model is asked."""

    role: Literal["user"] = "user"
    content: Annotated[
        Annotated[str, Tag("\0text")] | Annotated[list[UserPart], Tag("\0list")],
        by_kind("give a text or a list of text, file and image parts"),
    ]
    disable_variables: bool | None = None


class ToolMessage(Part):
    """What tools answered before."""

    role: Literal["tool"] = "tool"
    content: list[ToolResultPart]
    disable_variables: bool | None = None


Message = Annotated[
    Annotated[SystemMessage, Tag("\0system")]
    | Annotated[AssistantMessage, Tag("\0assistant")]
    | Annotated[UserMessage, Tag("\0user")]
    | Annotated[ToolMessage, Tag("\0tool")],
    by_property("role", "give an object whose role is system, user, assistant or tool"),
]


class ModelTool(Part):
    """A tool with its description and arguments; ``name`` is a step key or ``external:NAME``."""

    name: str
    description: str | None = None
    input: dict[str, Field] | None = Setting(default=None, json_schema_extra={"nullable": True})


class ModelFeatures(Part):
    """What a provider can do besides."""

    web_search: dict[str, Any] | None = None


class ModelProvider(Part):
    """Which model is asked what. ``messages`` is a list, or one template that yields it."""

    provider: str
    model: str
    messages: Annotated[
        Annotated[str, Tag("\0text")] | Annotated[list[Message], Tag("\0list")],
        by_kind("give a list of messages, or a template that yields one"),
    ]
    temperature: float | None = None
    response_format: Literal["text", "json"] | None = None
    max_tokens: Annotated[WholeNumber, Setting(gt=0, le=10**9)] | None = None
    tools: (
        list[
            Annotated[
                Annotated[str, Tag("\0text")] | Annotated[ModelTool, Tag("\0object")],
                by_kind("give a step key, external:NAME, or an object with a name"),
            ]
        ]
        | None
    ) = None
    tools_parallel: bool | None = None
    tools_mode: Literal["auto", "required", "none"] | None = None
    max_iterations: Annotated[WholeNumber, Setting(gt=0, le=1000)] | None = None
    features: ModelFeatures | None = None
