"""The public HTTP contract, where its file stands beside the checkout: validates answers."""

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

_URI = "urn:contract"
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_FORMATS = FormatChecker(formats=())

OUTPUTS = {
    "branch": "StepBranchConditionOutputSchema",
    "model": "StepModelOutputSchema",
    "http_request": "StepHttpRequestOutputSchema",
    "browser": "StepBrowserOutputSchema",
    "workflow": "StepWorkflowOutputSchema",
}
"""What a step of a type gives; the contract itself lets every step give anything."""


@_FORMATS.checks("date-time")
def _is_moment(value: object) -> bool:
    return not isinstance(value, str) or _MOMENT.fullmatch(value) is not None


@_FORMATS.checks("uri")
def _is_address(value: object) -> bool:
    return not isinstance(value, str) or bool(urlsplit(value).scheme)


class ContractFile:
    """Where the contract is looked for, and whether it is there."""

    path = Path(__file__).resolve().parents[2] / "shared" / "contract" / "openapi.json"
    present = path.is_file()


ABSENT = "the contract file does not stand beside the checkout"
"""Why a test is skipped without it: the one reason that continuous integration lets pass."""

needs_contract = pytest.mark.skipif(not ContractFile.present, reason=ABSENT)


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """Return the whole contract; skips the calling test where there is none."""
    if not ContractFile.present:
        pytest.skip(ABSENT)
    loaded: dict[str, Any] = json.loads(ContractFile.path.read_text())
    return loaded


@lru_cache(maxsize=4096)
def _validator(name: str) -> Draft202012Validator:
    """Return the validator of a schema, by its name or by its place in the document."""
    registry: Registry[Any] = Registry().with_resource(
        _URI, Resource.from_contents(document(), default_specification=DRAFT202012)
    )
    if not name.startswith("/") and name not in document()["components"]["schemas"]:
        raise KeyError(f"the contract has no schema {name}")
    place = name if name.startswith("/") else f"/components/schemas/{name}"
    schema = {"$ref": f"{_URI}#{place}"}
    return Draft202012Validator(schema, registry=registry, format_checker=_FORMATS)


def operations() -> list[tuple[str, str]]:
    """Return every operation of the contract: its method and its path."""
    return [
        (method.upper(), path)
        for path, methods in document()["paths"].items()
        for method in methods
        if method in ("get", "post", "put", "patch", "delete")
    ]


def validate_request(body: object, method: str, path: str) -> None:
    """Fail the calling test unless a JSON body is one that the contract lets an operation take."""
    validate(body, _place(method, path, "requestBody"))


def validate_answer(answer: object, method: str, path: str) -> None:
    """Fail the calling test unless decoded JSON is what the contract says an operation answers."""
    validate(answer, _place(method, path, "responses", "200"))


def _place(method: str, path: str, *rest: str) -> str:
    parts = ("paths", path, method.lower(), *rest, "content", "application/json", "schema")
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def validate(instance: object, name: str) -> None:
    """Fail the calling test unless ``instance`` has the shape of the contract's schema ``name``.

    ``instance`` is decoded JSON. The outputs of steps in it have to be those of their types. Skips
    where the contract file is absent. Says every place that is wrong, at most twenty.
    """
    told = (*_problems(instance, name), *_outputs(instance, ""))
    problems = [problem for _, problem in zip(range(20), told, strict=False)]
    assert not problems, f"{name}:\n" + "\n".join(problems)


def is_valid(instance: object, name: str) -> bool:
    """Say whether ``instance`` has the shape of a schema, named as ``validate`` takes it."""
    return _validator(name).is_valid(instance)


def _problems(instance: object, name: str, above: str = "") -> Iterator[str]:
    for error in _validator(name).iter_errors(instance):
        place = "/".join((above, *map(str, error.absolute_path))).lstrip("/")
        yield f"{place or '(top)'}: {error.message[:300]}"


def _outputs(value: object, place: str) -> Iterator[str]:
    """Tell of outputs of completed steps, wherever they stand, that are not of their type."""
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield from _outputs(one, f"{place}/{number}")
    if not isinstance(value, dict):
        return
    if {"status", "key", "start", "output"} <= value.keys() and value["status"] == "COMPLETED":
        output, name = value["output"], OUTPUTS.get(value.get("type", ""))
        rounds = output if isinstance(output, list) else [output]
        for one in rounds if name else ():
            yield from _problems(one, name or "", f"{place}/output")
    for key, one in value.items():
        yield from _outputs(one, f"{place}/{key}")
