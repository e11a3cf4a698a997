"""Workflows as files: YAML or JSON in, YAML or JSON out, with nothing reinterpreted on the way."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from insula.cli.failures import CommandFailed, usage
from insula.kit.json import InvalidJson, decode

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


class _Loader(yaml.SafeLoader):
    """YAML as JSON's superset: ``on`` and ``yes`` are words, a date is text, no aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read in workflow files; write the value out")
        return super().compose_node(parent, index)


_WORDS = (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    (
        "float",
        r"^[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$",
        list("-+.0123456789"),
    ),
)


class _Dumper(yaml.SafeDumper):
    """Long texts as blocks, so that scripts stay readable."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
_Loader.yaml_implicit_resolvers = {}
for _word, _pattern, _first in _WORDS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_word}", re.compile(_pattern), _first)


def read_workflow(path: Path) -> dict[str, Any]:
    """Read a workflow's file.

    Raises:
        CommandFailed: it cannot be read, or is not an object.
    """
    try:
        if path.stat().st_size > FILE_LIMIT:
            raise usage(f"{path} is larger than {FILE_LIMIT} bytes.")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"{path} cannot be read: {error}") from error
    document = _parsed(path, text)
    if not isinstance(document, dict) or not all(isinstance(name, str) for name in document):
        raise usage(f"{path} does not hold a workflow: an object with name, key and steps.")
    return document


def _parsed(path: Path, text: str) -> Any:
    try:
        if path.suffix == ".json":
            return decode(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506  # derived from the safe loader
    except (yaml.YAMLError, InvalidJson, ValueError, RecursionError) as error:
        raise CommandFailed(f"{path} is not well formed: {error}", usage("").code) from error


def write_workflow(workflow: dict[str, Any], as_json: bool) -> str:
    """Write what can be pushed again: the draft and its id, without what the server keeps."""
    kept = {name: workflow[name] for name in _PROPERTIES if name in workflow}
    if as_json:
        return json.dumps(kept, indent=2, ensure_ascii=False) + "\n"
    return yaml.dump(kept, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
