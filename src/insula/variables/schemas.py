"""Variables on the wire."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy import Row

from insula.kit.clock import iso
from insula.kit.json import Raw
from insula.web.fields import ANY_TEXT

_KEY = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*\Z")
_HOST = re.compile(
    r"(?:(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_-]++)*+|\[[0-9A-Fa-f:.]+\])"
    r"(?::[0-9]{1,5})?\Z"
)


def _identifier(key: str) -> str:
    if not _KEY.match(key) or key == "__proto__":
        raise ValueError("must be an identifier: letters, digits, _ and $, no digit first")
    return key


def _host(text: str) -> str:
    if not _HOST.match(text):
        raise ValueError("must be a host: example.com, *.example.com, or one with its :port")
    return text.lower()


Key = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_identifier)]
Host = Annotated[str, Field(min_length=1, max_length=260), AfterValidator(_host)]
Hosts = Annotated[
    list[Host] | None,
    Field(
        max_length=50,
        description="Of a secret: the hosts that it may be sent to; null or empty: any.",
    ),
]


class AppVariableSchema(BaseModel):
    """A variable. A secret's value is never shown."""

    key: str
    value: str | None = Field(None, description="Absent of a secret.")
    secret: bool
    hosts: list[str] | None = None
    created_at: str
    updated_at: str


class UpdateAppVariableSchema(BaseModel):
    """Changes to a variable; what is absent stays. Another key renames it."""

    key: Key | None = None
    value: Annotated[str | None, ANY_TEXT] = None
    secret: bool | None = None
    hosts: Hosts = None


class CreateAppVariableSchema(UpdateAppVariableSchema):
    """A variable, or in a list, the changes to one."""

    key: Key


def variable_wire(row: Row[Any]) -> dict[str, object]:
    """Put a row of ``variables`` into the shape of ``AppVariableSchema``."""
    wire: dict[str, object] = {"key": row.key}
    if row.value is not None:
        wire["value"] = bytes(row.value).decode()
    wire["secret"] = row.value is None
    if row.hosts is not None:
        wire["hosts"] = Raw(row.hosts)
    wire["created_at"] = iso(row.created_at)
    wire["updated_at"] = iso(row.since)
    return wire
