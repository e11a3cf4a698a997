"""Workflows as files: YAML or JSON in, YAML or JSON out, with nothing reinterpreted on the way."""

from pathlib import Path
from typing import Any

import msgspec

from insula.cli.failures import unreadable, usage
from insula.errors import BadInput
from insula.kit.json import InvalidJson, decode, encode
from insula.workflows import yaml_text

FILE_LIMIT = 32 * 1024 * 1024
_PROPERTIES = (
    "id",
    "name",
    "description",
    "key",
    "input",
    "input_default",
    "input_options",
    "retention",
    "enabled",
    "steps",
)


def read_workflow(path: Path) -> dict[str, Any]:
    """Read a workflow's file.

    Raises:
        CommandFailed: it cannot be read, or is not an object.
    """
    try:
        if path.stat().st_size > FILE_LIMIT:
            raise usage(f"{path} is larger than {FILE_LIMIT} bytes.")
        content = path.read_bytes()
        document = decode(content) if path.suffix == ".json" else yaml_text.load(content)
    except OSError as error:
        raise unreadable(path, error) from error
    except (BadInput, InvalidJson) as error:
        raise usage(f"{path} is not well formed: {error}") from error
    if not isinstance(document, dict):
        raise usage(f"{path} does not hold a workflow: an object with name, key and steps.")
    return document


def write_workflow(workflow: dict[str, Any], as_json: bool) -> str:
    """Write what can be pushed again: the draft and its id, without what the server keeps."""
    kept = {name: workflow[name] for name in _PROPERTIES if name in workflow}
    if as_json:
        return msgspec.json.format(encode(kept), indent=2).decode() + "\n"
    return yaml_text.dump(kept)
