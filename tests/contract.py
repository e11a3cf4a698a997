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


@lru_cache(maxsize=64)
def _validator(name: str) -> Draft202012Validator:
    registry: Registry[Any] = Registry().with_resource(
        _URI, Resource.from_contents(document(), default_specification=DRAFT202012)
    )
    if name not in document()["components"]["schemas"]:
        raise KeyError(f"the contract has no schema {name}")
    schema = {"$ref": f"{_URI}#/components/schemas/{name}"}
    return Draft202012Validator(schema, registry=registry, format_checker=FormatChecker())


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
