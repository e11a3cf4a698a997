"""Writes a workflow as a file, and reads one; what was written reads back exactly."""

import asyncio
from typing import Any, Literal

from pydantic import ValidationError
from starlette.requests import Request

from insula.errors import BadInput
from insula.kit.json import Raw, decode, encode
from insula.web.body import invalid, payload, read_body
from insula.workflows import yaml_text
from insula.workflows.render import body_members
from insula.workflows.repository import Workflow
from insula.workflows.schemas import CreateWorkflow

Format = Literal["json", "yaml"]

JSON_TYPE = "application/json"
YAML_TYPE = "application/yaml"
_YAML_TYPES = (YAML_TYPE, "application/x-yaml", "text/yaml", "text/x-yaml")


def exported(workflow: Workflow) -> bytes:
    """Encode a workflow's draft and settings as ``import`` and ``POST`` take them."""
    retention = None if workflow.retention is None else Raw(workflow.retention)
    return encode(
        {
            "name": workflow.name,
            "description": workflow.description,
            "retention": retention,
            "enabled": workflow.enabled,
            **body_members(workflow.body),
        }
    )


async def write(workflow: Workflow, form: Format) -> bytes:
    """Write a workflow as JSON, or as YAML for people."""
    text = exported(workflow)
    if form == "json":
        return text
    return (await asyncio.to_thread(yaml_text.dump, decode(text))).encode()


def filename(workflow: Workflow, form: Format) -> str:
    """Name the file after the workflow's key, if that is plain ASCII."""
    key = decode(workflow.body).get("key")
    name = key if isinstance(key, str) and key.isascii() and key.isidentifier() else workflow.id
    return f"{name}.{form}"


async def read(request: Request) -> CreateWorkflow:
    """Read an exported workflow from a request: YAML by its content type, else as ``payload``.

    Raises:
        BadInput, TooLarge, UnsupportedMedia.
    """
    content_type = request.headers.get("content-type", "").split(";", 1)[0].strip().lower()
    if content_type not in _YAML_TYPES:
        return await payload(request, CreateWorkflow)
    limit = min(yaml_text.LIMIT, request.app.state.settings.body_max)
    data: Any = await asyncio.to_thread(yaml_text.load, await read_body(request, limit))
    if not isinstance(data, dict):
        raise BadInput("The YAML must hold one workflow: an object with name and steps")
    try:
        return CreateWorkflow.model_validate_json(encode(data), strict=True)
    except ValidationError as error:
        raise invalid(error) from None
