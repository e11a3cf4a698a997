"""Apps and keys on the wire."""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from sqlalchemy import Row

from insula.kit.clock import iso, milliseconds
from insula.kit.json import Raw, encode
from insula.web.fields import Moment, Name

SETTINGS_MAX = 16 * 1024


class AppSettings(BaseModel):
    """What an app sets for itself; unknown properties are kept."""

    model_config = ConfigDict(extra="allow")

    model_default: str | None = Field(
        None, max_length=200, description="`provider/model` that answers where a step says `auto`."
    )


class _Change(BaseModel):
    @field_validator("settings", check_fields=False)
    @classmethod
    def _bounded(cls, value: AppSettings | None) -> AppSettings | None:
        if value is not None and len(encode(value.model_dump(mode="json"))) > SETTINGS_MAX:
            raise ValueError(f"must not be over {SETTINGS_MAX:,} bytes as JSON")
        return value


class CreateAppSchema(_Change):
    """A new app."""

    name: Name
    settings: AppSettings | None = None


class UpdateAppSchema(_Change):
    """Changes to an app; what is absent stays."""

    name: Name | None = None
    verified: bool | None = None
    settings: AppSettings | None = None


class AppSchema(BaseModel):
    """An app."""

    id: str
    name: str
    verified: bool
    settings: AppSettings
    created_at: str
    updated_at: str


class CreatedAppSchema(AppSchema):
    """A new app with its first key, which is shown this once."""

    key: str | None = Field(None, description="Absent when an Idempotency-Key was sent again.")
    key_id: str | None = None


class CreateKeySchema(BaseModel):
    """A new key."""

    name: Name = "key"
    read_only: bool = False
    expires_at: Moment | None = Field(
        None, description="When it expires, ISO 8601 with its offset; absent: never."
    )

    @field_validator("expires_at")
    @classmethod
    def _bounded(cls, value: datetime | None) -> datetime | None:
        try:
            return None if value is None else value.astimezone(UTC)
        except OverflowError as error:
            raise ValueError("must lie before the year 10000") from error

    def expires_ms(self) -> int | None:
        """When it expires, in Unix milliseconds."""
        return None if self.expires_at is None else milliseconds(self.expires_at)


class KeySchema(BaseModel):
    """A key, without its text."""

    id: str
    name: str
    read_only: bool
    expires_at: str | None = None
    revoked_at: str | None = None
    last_used_at: str | None = Field(None, description="To the minute.")
    created_at: str


class CreatedKeySchema(KeySchema):
    """A new key with its text, which is shown this once."""

    key: str | None = Field(None, description="Absent when an Idempotency-Key was sent again.")


def app_wire(row: Row[Any]) -> dict[str, object]:
    """Put a row of ``apps`` into the shape of ``AppSchema``."""
    return {
        "id": row.id,
        "name": row.name,
        "verified": row.verified,
        "settings": Raw(row.settings),
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
    }


def key_wire(row: Row[Any]) -> dict[str, object]:
    """Put a row of ``keys`` into the shape of ``KeySchema``; times that are not set are absent."""
    wire: dict[str, object] = {"id": row.id, "name": row.name, "read_only": row.read_only}
    for name in ("expires_at", "revoked_at", "last_used_at"):
        if (at := getattr(row, name)) is not None:
            wire[name] = iso(at)
    wire["created_at"] = iso(row.created_at)
    return wire
