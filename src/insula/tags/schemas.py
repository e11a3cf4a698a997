"""What callers send about tags, and what they are shown."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import Row

from insula.kit.clock import iso
from insula.web.fields import Name, storable

Color = Annotated[str, Field(max_length=40), AfterValidator(storable)]


class CreateTag(BaseModel):
    """A new tag."""

    model_config = ConfigDict(extra="ignore")

    name: Name
    color: Color | None = Field(None, description="As the studio shows it, such as `#2f9e44`.")


class UpdateTag(BaseModel):
    """Changes of a tag; what is left out stays as it is."""

    model_config = ConfigDict(extra="ignore")

    name: Name | None = None
    color: Color | None = None


class TagSchema(BaseModel):
    """A tag."""

    id: str
    name: str
    color: str | None
    app_id: str
    created_at: str
    updated_at: str


def tag_wire(tag: Row[Any]) -> dict[str, Any]:
    """Return a tag as ``TagSchema`` says."""
    return {
        "id": tag.id,
        "name": tag.name,
        "color": tag.color,
        "app_id": tag.app_id,
        "created_at": iso(tag.created_at),
        "updated_at": iso(tag.updated_at),
    }
