"""What is done with shared expectations."""

from functools import partial

from sqlalchemy import Connection

from insula.errors import Conflict
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.runs.services import RunServices
from insula.web.auth import Principal, unknown
from insula.web.idempotency import Idempotency, claim
from insula.workflow_tests import expectations, repository
from insula.workflow_tests.rows import Expectation
from insula.workflow_tests.schemas import CreateExpectation, UpdateExpectation


async def create_expectation(
    services: RunServices,
    principal: Principal,
    workflow_id: str,
    fields: CreateExpectation,
    key: Idempotency | None,
) -> Expectation:
    """Make a shared expectation, once for each idempotency key."""
    now = now_ms()
    made = Expectation(
        new_id("exp"),
        principal.app_id,
        workflow_id,
        fields.name,
        fields.script.encode(),
        now,
        now,
    )

    def unit(connection: Connection) -> Expectation | None:
        earlier = None if key is None else claim(connection, principal, key, made.id)
        if earlier is None:
            expectations.store(connection, made)
            return made
        return expectations.find(connection, principal.app_id, workflow_id, earlier)

    stored = await services.database.write(unit)
    if stored is None:
        raise Conflict("The expectation that this Idempotency-Key created is gone; use a new key")
    return stored


async def update_expectation(
    services: RunServices,
    principal: Principal,
    workflow_id: str,
    expectation_id: str,
    fields: UpdateExpectation,
) -> Expectation:
    """Change a shared expectation; with another script, no test that has it has been tried.

    Raises:
        NotFound: there is none.
    """
    values: dict[str, object] = {}
    if fields.name is not None:
        values["name"] = fields.name
    if fields.script is not None:
        values["script"] = fields.script.encode()
    find = partial(
        expectations.find,
        app_id=principal.app_id,
        workflow_id=workflow_id,
        expectation_id=expectation_id,
    )

    def unit(connection: Connection) -> Expectation | None:
        found = find(connection)
        if found is not None and values:
            expectations.change(connection, found, values)
        if found is not None and values.get("script", found.script) != found.script:
            repository.untry(connection, workflow_id, expectation_id)
        return find(connection)

    changed = await services.database.write(unit)
    if changed is None:
        raise unknown()
    return changed


async def delete_expectation(
    services: RunServices, principal: Principal, workflow_id: str, expectation_id: str
) -> None:
    """Delete a shared expectation.

    Raises:
        NotFound: there is none.
    """

    def unit(connection: Connection) -> bool:
        found = expectations.find(connection, principal.app_id, workflow_id, expectation_id)
        if found is not None:
            expectations.remove(connection, found.id)
            repository.untry(connection, workflow_id, expectation_id)
        return found is not None

    if not await services.database.write(unit):
        raise unknown()
