"""The server against its own description, with generated requests, and against the contract."""

import asyncio
import itertools
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests import contract
from tests.acceptance.conftest import SOAK
from tests.acceptance.harness import Clients, Served, shaped
from tests.acceptance.kinds import first

EXAMPLES = 200 if SOAK else 30
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.timeout(3600 if SOAK else 240),
]


@lru_cache(maxsize=128)
def _promised(method: str, path: str) -> str | None:
    """Return the name of the contract's schema of a successful answer, if it has one.

    A list gives the name of its items with ``[]``.
    """
    if not contract.ContractFile.present:
        return None
    operation = contract.document()["paths"].get(path, {}).get(method.lower())
    if operation is None:
        return None
    content = operation["responses"]["200"].get("content", {}).get("application/json", {})
    schema = content.get("schema", {})
    listed = schema.get("items", {}).get("$ref", "").rpartition("/")[2]
    return schema.get("$ref", "").rpartition("/")[2] or (f"{listed}[]" if listed else None)


def _check_promise(case: Case, response: Any) -> None:
    """Check a success against the contract."""
    name = _promised(case.method, case.operation.path)
    is_json = response.headers.get("content-type", [""])[0].startswith("application/json")
    if response.status_code != 200 or name is None or not is_json:
        return
    value = response.json()
    if name.endswith("[]"):
        for one in value:
            shaped(one, name.removesuffix("[]"))
    elif value is not None:
        shaped(value, name)


def _prober(operation: Any, ids: dict[str, str], key: str) -> Callable[[], None]:
    """Make the test of one operation; half of its requests name things that exist."""
    numbers = itertools.count()

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def probe(case: Case) -> None:
        existing = next(numbers) % 2
        for name in case.path_parameters or {}:
            if name == "app_id":
                case.path_parameters[name] = "c"
            elif existing:
                case.path_parameters[name] = ids.get(name, "x")
        response = case.call(headers={"authorization": f"Bearer {key}"}, timeout=30)
        case.validate_response(response, checks=CHECKS)
        _check_promise(case, response)

    return probe


async def test_every_operation_does_what_it_says(served: Served, callers: Clients) -> None:
    document = (await (await callers.app("Acme")).ask("GET", "/openapi.json")).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=served.url)
    wrong: dict[str, str] = {}
    operations = [found.ok() for found in schema.get_all_operations()]
    for operation in operations:
        caller = await callers.app("Acme")
        # What stands directly below the root is the administrator's.
        key = served.admin_key if operation.path.count("/") == 1 else caller.key
        probe = _prober(operation, await _things(caller), key)
        try:
            await asyncio.to_thread(probe)
        except (FailureGroup, AssertionError) as failure:  # all of them are told at once
            wrong[operation.label] = _told(failure)
    assert len(operations) > 40
    assert not wrong, "\n\n".join(f"{label}: {why}" for label, why in wrong.items())


def _told(failure: BaseException) -> str:
    inner = failure.exceptions if isinstance(failure, FailureGroup) else (failure,)
    return "\n".join(str(one)[:500] for one in inner)


async def _things(caller: Any) -> dict[str, str]:
    workflow_id = await caller.push([first()])
    await caller.publish(workflow_id)
    run = await caller.ok("POST", f"workflows/{workflow_id}/runs", {"input": {"tag": "x"}})
    return {
        "workflow_id": workflow_id,
        "run_id": run["id"],
        "version_id_or_version_number": "1",
        "caller_app_id": "app_" + "1" * 22,
    }
