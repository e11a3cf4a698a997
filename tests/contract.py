"""The public HTTP contract, where its file stands beside the checkout: validates answers."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

_URI = "urn:contract"


class ContractFile:
    """Where the contract is looked for, and whether it is there."""

    path = Path(__file__).resolve().parents[2] / "shared" / "contract" / "openapi.json"
    present = path.is_file()


needs_contract = pytest.mark.skipif(
    not ContractFile.present, reason="the contract file does not stand beside the checkout"
)


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """Return the whole contract; skips the calling test where there is none."""
    if not ContractFile.present:
        pytest.skip("the contract file does not stand beside the checkout")
    loaded: dict[str, Any] = json.loads(ContractFile.path.read_text())
    return loaded


@lru_cache(maxsize=256)
def _validator(name: str) -> Draft202012Validator:
    """Return the validator of a schema, by its name or by its place in the document."""
    registry: Registry[Any] = Registry().with_resource(
        _URI, Resource.from_contents(document(), default_specification=DRAFT202012)
    )
    if not name.startswith("/") and name not in document()["components"]["schemas"]:
        raise KeyError(f"the contract has no schema {name}")
    place = name if name.startswith("/") else f"/components/schemas/{name}"
    schema = {"$ref": f"{_URI}#{place}"}
    return Draft202012Validator(schema, registry=registry, format_checker=FormatChecker())


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

    ``instance`` is decoded JSON. Skips where the contract file is absent. Says every place that is
    wrong, at most twenty.
    """
    problems = [
        f"{'/'.join(map(str, error.absolute_path)) or '(top)'}: {error.message[:300]}"
        for _, error in zip(range(20), _validator(name).iter_errors(instance), strict=False)
    ]
    assert not problems, f"{name}:\n" + "\n".join(problems)
