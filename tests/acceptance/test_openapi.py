"""The server against its own description, with generated requests, and against the contract."""

import asyncio
import itertools
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests import contract
from tests.acceptance.conftest import SOAK
from tests.acceptance.harness import Clients, Served
from tests.acceptance.things import Things

EXAMPLES = {
    GenerationMode.POSITIVE: 200 if SOAK else 6,
    GenerationMode.NEGATIVE: 100 if SOAK else 4,
}
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


@lru_cache(maxsize=256)
def _promised(method: str, path: str) -> bool:
    """Say whether the contract has an operation whose success is JSON."""
    if not contract.ContractFile.present:
        return False
    operation = contract.document()["paths"].get(path, {}).get(method.lower())
    return operation is not None and "content" in operation["responses"]["200"]


def _check_promise(case: Case, response: Any) -> None:
    """Check a success against the contract."""
    is_json = response.headers.get("content-type", [""])[0].startswith("application/json")
    if response.status_code == 200 and is_json and _promised(case.method, case.operation.path):
        contract.validate_answer(response.json(), case.method, case.operation.path)


def _prober(
    operation: Any, ids: dict[str, str], key: str, mode: GenerationMode
) -> Callable[[], None]:
    """Make the test of one operation; half of its requests name things that exist."""
    numbers = itertools.count()

    @settings(
        max_examples=EXAMPLES[mode],
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def probe(case: Case) -> None:
        if next(numbers) % 2:
            _name_things(case, ids)
        elif "app_id" in (case.path_parameters or {}):
            case.path_parameters["app_id"] = "c"
        response = case.call(headers={"authorization": f"Bearer {key}"}, timeout=30)
        case.validate_response(response, checks=CHECKS)
        _check_promise(case, response)

    return probe


def _name_things(case: Case, ids: dict[str, str]) -> None:
    for name in case.path_parameters or {}:
        case.path_parameters[name] = "c" if name == "app_id" else ids.get(name, "x")
    if isinstance(case.body, dict):
        case.body.update({name: ids[name] for name in case.body.keys() & ids.keys()})


@pytest.mark.parametrize("mode", EXAMPLES, ids=lambda mode: mode.value)
async def test_every_operation_does_what_it_says(
    served: Served, callers: Clients, mode: GenerationMode
) -> None:
    document = (await (await callers.app("Acme")).ask("GET", "/openapi.json")).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=served.url)
    wrong: dict[str, str] = {}
    operations = [found.ok() for found in schema.get_all_operations()]
    # What takes things away comes last, and each time to things of its own.
    operations.sort(key=lambda operation: operation.method.lower() == "delete")
    things = await Things(await callers.app("Acme")).make()
    for operation in operations:
        if operation.method.lower() == "delete":
            things = await Things(await callers.app("Acme")).make()
        # What stands directly below the root is the administrator's.
        admins = operation.path.count("/") == 1
        key = served.admin_key if admins else things.caller.key
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.query):
            continue  # any path is a path
        try:
            await asyncio.to_thread(_prober(operation, things.ids, key, mode))
        except (FailureGroup, AssertionError) as failure:  # all of them are told at once
            wrong[operation.label] = _told(failure)
    assert len(operations) > 120
    assert not wrong, "\n\n".join(f"{label}: {why}" for label, why in wrong.items())


def _told(failure: BaseException) -> str:
    inner = failure.exceptions if isinstance(failure, FailureGroup) else (failure,)
    return "\n".join(str(one)[:700] for one in inner)
