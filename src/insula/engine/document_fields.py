"""The fields that an input step, or a model's tool, asks for: one model a type."""

from typing import Annotated, Any, Literal

from pydantic import Field as Setting
from pydantic import Tag

from insula.engine.document_shape import Part, by_kind, by_property, named

ConnectionType = Literal[
    "SCHEDULER",
    "TOOLS",
    "FILES",
    "COLLECTIONS",
    "OAUTH",
    "GOOGLE_SHEETS",
    "GOOGLE_CALENDAR",
    "GMAIL",
    "GOOGLE_DRIVE",
    "SLACK",
    "ENCOMPASS",
    "PERSONA",
    "NOTION",
    "OPENAI",
    "ANTHROPIC",
    "GOOGLE_AI",
    "XAI",
    "AZURE_AI",
    "OPENROUTER",
    "GROQ",
]
SelectorMode = Literal["all", "auto", "manual"]


class FieldDisplay(Part):
    """How the studio shows a field."""

    field: Literal["inline", "stacked"] | None = None
    container: Literal["grid", "full", "center"] | None = None
    hidden: bool | None = None


class InputOptions(Part):
    """How the studio shows the whole input."""

    display: FieldDisplay | None = None


class FileDisplay(FieldDisplay):
    """How the studio shows a file field."""

    render: Literal["button", "dropzone"] | None = None


class StringDisplay(FieldDisplay):
    """How the studio shows a string field."""

    render: Literal["text", "textarea", "password"] | None = None


class SelectDisplay(FieldDisplay):
    """How the studio shows a select field."""

    render: Literal["dropdown", "inline"] | None = None


class OptionList(Part):
    """Where the values to choose from are listed."""

    path: str | None = None
    requires: list[str] | None = None


class _Field(Part):
    type: str
    name: str | None = None
    desc: str | None = None
    optional: bool | None = None
    array: bool | None = None
    placeholder: str | None = None
    display: FieldDisplay | None = None
    order: float | None = None
    config: bool | None = None
    link: str | None = None
    metadata: dict[str, Any] | None = None


class FileField(_Field):
    """A file, in any of the forms in which one can be handed over."""

    type: Literal["file"] = "file"
    display: FileDisplay | None = None
    allowed_types: list[str] | None = None
    extract_contents: bool | None = None
    extract_images: bool | None = None
    visibility: Literal["PUBLIC", "PRIVATE"] | None = None


class NumberField(_Field):
    """A finite number."""

    type: Literal["number"] = "number"
    default: float | None = None
    list_: OptionList | None = named("list")


class StringField(_Field):
    """A text."""

    type: Literal["string"] = "string"
    display: StringDisplay | None = None
    default: str | None = None
    validation: Literal["url"] | None = None
    list_: OptionList | None = named("list")


class BooleanField(_Field):
    """True or false."""

    type: Literal["boolean"] = "boolean"
    default: bool | None = None
    allowed_modes: list[SelectorMode] | None = None


class DateField(_Field):
    """A day, ``2026-01-31``."""

    type: Literal["date"] = "date"


class DateTimeField(_Field):
    """A moment, ``2026-01-31T12:00:00Z``."""

    type: Literal["datetime"] = "datetime"


class TimeField(_Field):
    """A time of day, ``12:00``."""

    type: Literal["time"] = "time"


class SelectOption(Part):
    """One of the values of a select field."""

    label: str
    value: str
    description: str | None = None
    icon: str | None = None


class SelectField(_Field):
    """One of several texts."""

    type: Literal["select"] = "select"
    display: SelectDisplay | None = None
    default: str | None = None
    options: Annotated[list[SelectOption], Setting(min_length=1)]
    list_: OptionList | None = named("list")
    allowed_modes: list[SelectorMode] | None = None
    additional_options: bool | None = None


class ContentField(_Field):
    """Text that is shown between the fields; it asks for nothing."""

    type: Literal["content"] = "content"
    content: str | None = None


class ConnectionField(_Field):
    """The id of a connection."""

    type: Literal["connection"] = "connection"
    allowed_types: ConnectionType | None = None


class ObjectField(_Field):
    """An object with fields of its own."""

    type: Literal["object"] = "object"
    fields_: "dict[str, Field]" = named("fields", ...)
    additional_fields: (
        Annotated[
            Annotated[OptionList, Tag("\0object")] | Annotated[bool, Tag("\0boolean")],
            by_kind("give true, false or a list of names"),
        ]
        | None
    ) = None


FIELD_TYPES = (
    "file, number, string, boolean, date, datetime, time, select, content, connection, object"
)

Field = Annotated[
    Annotated[FileField, Tag("\0file")]
    | Annotated[NumberField, Tag("\0number")]
    | Annotated[StringField, Tag("\0string")]
    | Annotated[BooleanField, Tag("\0boolean")]
    | Annotated[DateField, Tag("\0date")]
    | Annotated[DateTimeField, Tag("\0datetime")]
    | Annotated[TimeField, Tag("\0time")]
    | Annotated[SelectField, Tag("\0select")]
    | Annotated[ContentField, Tag("\0content")]
    | Annotated[ConnectionField, Tag("\0connection")]
    | Annotated[ObjectField, Tag("\0object")],
    by_property("type", f"give an object whose type is one of: {FIELD_TYPES}"),
]

ObjectField.model_rebuild()


def default_of(kind: Field) -> object:
    """Return a field's own default, ``None`` if it has none; of a list it is the one item."""
    own = getattr(kind, "default", None)
    return own if own is None or not kind.array else [own]
