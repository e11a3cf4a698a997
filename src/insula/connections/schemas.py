"""Connections on the wire."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, field_validator
from sqlalchemy import Row

from insula.adapters.models.configured import known_url, provider_name
from insula.kit.clock import iso
from insula.kit.json import decode, encode
from insula.web.fields import Name

ConnectionType = Literal[
    "OPENAI",
    "ANTHROPIC",
    "GOOGLE_AI",
    "XAI",
    "AZURE_AI",
    "OPENROUTER",
    "GROQ",
    "OPENAI_COMPATIBLE",
    "OAUTH",
    "GOOGLE_SHEETS",
    "GOOGLE_CALENDAR",
    "GMAIL",
    "GOOGLE_DRIVE",
    "SLACK",
    "ENCOMPASS",
    "PERSONA",
    "NOTION",
    "TOOLS",
]
PROVIDERS: Final = {
    "OPENAI": "openai",
    "ANTHROPIC": "anthropic",
    "GOOGLE_AI": "google",
    "XAI": "xai",
    "AZURE_AI": "azure",
    "OPENROUTER": "openrouter",
    "GROQ": "groq",
}
"""Which provider a *model* step names to use a connection of a type."""
COMPATIBLE: Final = "OPENAI_COMPATIBLE"

SETTINGS_MAX: Final = 16 * 1024
_Credential = Annotated[str, Field(min_length=1, max_length=8192)]
Credentials = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=100)], _Credential],
    Field(max_length=20, description="Secret texts, such as `api_key`; never shown."),
]


class _Change(BaseModel):
    base_url: str | None = Field(
        None, max_length=2000, description="Of a model provider: where its API is."
    )
    provider: str | None = Field(
        None, max_length=60, description="Of `OPENAI_COMPATIBLE`: what *model* steps call it."
    )
    settings: dict[str, Any] | None = Field(None, description="What is no secret; kept for you.")

    @field_validator("base_url")
    @classmethod
    def _base(cls, value: str | None) -> str | None:
        if value is None:
            return None
        head, slashes, rest = value.partition("://")
        if (
            head not in ("http", "https")
            or not slashes
            or not rest
            or any(c in rest for c in "@?# ")
        ):
            raise ValueError("must be a base URL such as https://host/v1, without user or query")
        return value.rstrip("/")

    @field_validator("provider")
    @classmethod
    def _provider(cls, value: str | None) -> str | None:
        if value is None:
            return None
        name = provider_name(value)
        if not name or name in ("auto", "mock"):
            raise ValueError("must be a name of letters and digits, not auto or mock")
        return name

    @field_validator("settings")
    @classmethod
    def _bounded(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and len(encode(value)) > SETTINGS_MAX:
            raise ValueError(f"must not be over {SETTINGS_MAX:,} bytes as JSON")
        return value


class CreateConnectionSchema(_Change):
    """A connection."""

    name: Name
    type: ConnectionType
    credentials: Credentials = Field(default_factory=dict)


class UpdateConnectionSchema(_Change):
    """Changes to a connection; what is absent stays. ``credentials`` are replaced whole, and where
    some are stored, another ``base_url`` needs them anew."""

    name: Name | None = None
    credentials: Credentials | None = None


class ConnectionSchema(BaseModel):
    """A connection, without its credentials."""

    id: str
    name: str
    type: str
    provider: str | None = Field(None, description="What *model* steps call it.")
    base_url: str | None = None
    settings: dict[str, Any]
    credentials: list[str] = Field(description="The names of those that are stored.")
    created_at: str
    updated_at: str


class ConnectionTestSchema(BaseModel):
    """Whether a connection works."""

    ok: bool
    status: int | None = Field(None, description="What the provider answered.")
    message: str


def connection_wire(row: Row[Any]) -> dict[str, object]:
    """Put a row of ``connections`` into the shape of ``ConnectionSchema``."""
    kept: dict[str, Any] = decode(row.settings)
    wire: dict[str, object] = {"id": row.id, "name": row.name, "type": row.type}
    if (provider := provider_of(row.type, kept)) is not None:
        wire["provider"] = provider
        if (url := url_of(row.type, kept)) is not None:
            wire["base_url"] = url
    wire["settings"] = kept.get("settings", {})
    wire["credentials"] = kept.get("credentials", [])
    wire["created_at"] = iso(row.created_at)
    wire["updated_at"] = iso(row.updated_at)
    return wire


def provider_of(kind: str, kept: dict[str, Any]) -> str | None:
    """Return what *model* steps call a connection; ``None``: it is no model provider's."""
    own: str | None = kept.get("provider")
    return own if kind == COMPATIBLE else PROVIDERS.get(kind)


def url_of(kind: str, kept: dict[str, Any]) -> str | None:
    """Return the base URL of a model provider's connection."""
    own: str | None = kept.get("base_url")
    return own or known_url(PROVIDERS.get(kind, ""))
