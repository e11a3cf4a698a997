"""Starting a run: resolve the version, check the input, store the run, begin to execute it."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection

from insula.engine.document import Document, InputStep
from insula.engine.graph import Plan
from insula.engine.inputs import check_input, place
from insula.errors import BadInput, Conflict, Unavailable
from insula.kit import json
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.kit.json import Raw
from insula.runs import repository
from insula.runs.execution import launch, prepare
from insula.runs.live import LiveRun
from insula.runs.rows import RunRow
from insula.runs.services import RunServices
from insula.web.auth import Principal
from insula.web.idempotency import Idempotency, claim
from insula.workflows.resolve import Runnable


@dataclass(frozen=True, slots=True)
class Start:
    """What is asked for when a run is started; ``text`` says that its input came as text."""

    input: object = None
    version: str | int | None = None
    from_step_key: str | None = None
    identifier: str | None = None
    background: bool = False
    retention: bytes | None = None
    """As the row holds it; ``None`` leaves it to the workflow."""
    options: dict[str, Any] = field(default_factory=dict)
    origin: str = "ENDPOINT"
    through_catalogue: bool = False
    text: bool = False
    idempotency: Idempotency | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """A run that was created, or that an earlier request with the same key created.

    ``live`` is there if this process executes it now.
    """

    row: RunRow
    live: LiveRun | None
    repeated: bool = False


async def start(
    services: RunServices, principal: Principal, workflow_id: str, asked: Start
) -> Started:
    """Create a run and begin it here, or queue it if it may wait and there is no room.

    Raises:
        NotFound: no such workflow or version for this caller.
        BadInput: the input, the version or the first step cannot be used.
        Conflict: the workflow is disabled.
        TooMany: too many runs are live.
        KeyReused: the idempotency key came with another body before.
    """
    if services.draining:
        raise Unavailable("The server is stopping; try again", retry_after=2)
    runnable = await services.resolver.resolve(
        principal.app_id, workflow_id, asked.version, asked.through_catalogue
    )
    plan = services.plan_of(runnable, asked.from_step_key)
    waits = asked.background and not services.live.has_room(principal.app_id)
    if not waits:
        services.live.admit(principal.app_id, workflow_id, runnable.caller_limit)
    row = _row(services, principal, runnable, asked, waits=waits)
    given = await _input(services, principal.app_id, row.id, runnable.document, plan, asked)
    earlier = await _store(services, principal, row, given, runnable, asked)
    if earlier is not None:
        return await attach(services, earlier)
    if waits:
        services.queue.offer(row.app_id, row.id)
        return Started(row, None)
    live = launch(services, prepare(services, row, runnable, given))
    if not await services.resolver.admits(workflow_id):
        # Deleted since it was resolved: whoever deletes it has not seen this run.
        live.stop("cancel")
    return Started(row, live)


def _row(
    services: RunServices, principal: Principal, runnable: Runnable, asked: Start, *, waits: bool
) -> RunRow:
    now = now_ms()
    run_id = new_id("run")
    return RunRow(
        id=run_id,
        app_id=principal.app_id,
        workflow_app_id=runnable.workflow_app_id,
        workflow_id=runnable.workflow_id,
        version_id=runnable.version_id,
        version=runnable.version,
        root_id=run_id,
        parent_id=None,
        parent_key=None,
        depth=0,
        hidden=False,
        status="PENDING" if waits else "RUNNING",
        origin=asked.origin,
        identifier=asked.identifier,
        from_step_key=asked.from_step_key,
        replay_of=None,
        background=asked.background,
        options=json.encode(asked.options) if asked.options else b"{}",
        owner=None if waits else services.token,
        seq=0,
        error=None,
        credits=0.0,
        retention=runnable.retention if asked.retention is None else asked.retention,
        retention_due_at=None,
        erased_at=None,
        cancel_requested_at=None,
        cancel_requested_by=None,
        started_at=None if waits else now,
        ended_at=None,
        created_at=now,
        updated_at=now,
    )


async def _input(
    services: RunServices, app_id: str, run_id: str, document: Document, plan: Plan, asked: Start
) -> Raw:
    given = {} if asked.input is None else asked.input
    return await checked_input(
        services, app_id, run_id, document, plan, given, from_text=asked.text
    )


async def checked_input(
    services: RunServices,
    app_id: str,
    run_id: str,
    document: Document,
    plan: Plan,
    given: object,
    *,
    from_text: bool = False,
) -> Raw:
    """Check a run's input against its first input step, and store the files in it.

    Raises:
        BadInput: one entry a field that cannot be used.
    """
    if not isinstance(given, dict):
        raise BadInput("input must be an object; send the workflow's fields by their keys")
    definition = _definition(document, plan)
    checked = check_input(definition, given, document.input_default or {}, from_text=from_text)
    if checked.errors:
        raise BadInput("The input cannot be used", checked.errors)
    value: Any = checked.value
    for slot in checked.files:
        stored = await services.files.resolve(app_id, run_id, slot)
        place(value, slot.path, stored)
    try:
        return json.raw(value)
    except json.InvalidJson as error:
        raise BadInput(f"input cannot be stored: {error}") from error


def _definition(document: Document, plan: Plan) -> dict[str, Any]:
    """The fields of the run's input: the document's own, and those of its entry input steps."""
    fields: dict[str, Any] = dict(document.input or {})
    for key in plan.entries:
        step = plan.nodes[key].step
        if isinstance(step, InputStep):
            fields.update(step.input)
    return fields


async def _store(
    services: RunServices,
    principal: Principal,
    row: RunRow,
    given: Raw,
    runnable: Runnable,
    asked: Start,
) -> str | None:
    """Store the run in one unit with its idempotency record; return an earlier run's id if any."""
    draft = runnable.body if runnable.version_id is None else None
    new = repository.NewRun(row, bytes(given), draft)
    if asked.idempotency is None:
        await services.creating.write(new)
        return None

    def unit(connection: Connection) -> str | None:
        earlier = claimed(connection, principal, asked, row.id)
        if earlier is None:
            repository.create_many(connection, [new])
        return earlier

    return await services.database.write(unit)


def claimed(connection: Connection, principal: Principal, asked: Start, run_id: str) -> str | None:
    """In a unit: record the request's idempotency key; return the run it made earlier, if any."""
    if asked.idempotency is None:
        return None
    return claim(connection, principal, asked.idempotency, run_id)


async def attach(services: RunServices, run_id: str) -> Started:
    """Return the run that an earlier request with the same key created."""
    row = await services.database.read(partial(repository.find, run_id=run_id))
    if row is None:
        raise Conflict("The run that this Idempotency-Key created is gone; use a new key")
    return Started(row, services.live.get(run_id), repeated=True)
