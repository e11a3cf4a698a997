"""Starting a child run, or going on with one that its parent's journal knows."""

from functools import partial

from sqlalchemy import Connection

from insula.engine.failures import StepFailure
from insula.engine.ports import ChildRequest
from insula.engine.state import fold
from insula.kit import json
from insula.kit.clock import now_ms
from insula.kit.json import Raw
from insula.runs import repository, retention
from insula.runs.children import MAX_DEPTH, MAX_TREE, Ended
from insula.runs.execution import launch, prepare
from insula.runs.live import LiveRun
from insula.runs.recovery import resume_claimed
from insula.runs.rows import RunRow
from insula.runs.services import RunServices
from insula.runs.start import checked_input
from insula.workflows.resolve import Runnable


async def begin_child(
    services: RunServices, parent: RunRow, request: ChildRequest
) -> LiveRun | Ended:
    """Return the child of a *workflow* step, executing here, or as it had ended.

    Raises:
        StepFailure: the tree is too deep or too large, or the step names no workflow.
        InsulaError: the parent's owner may not run that workflow, or the input does not fit it.
    """
    stored = await services.database.read(partial(repository.find, run_id=request.run_id))
    if stored is not None:
        return await _go_on(services, stored)
    if not request.workflow_id:
        raise StepFailure("The step names no workflow; set workflow_id", "input")
    if parent.depth + 1 >= MAX_DEPTH:
        raise StepFailure(f"Child runs are {MAX_DEPTH} levels deep, the limit", "limit_depth")
    runnable = await services.resolver.resolve_child(
        parent.workflow_app_id, request.workflow_id, request.version
    )
    row = await _child_row(services, parent, request, runnable)
    plan = services.plan_of(runnable, row.from_step_key)
    given = await checked_input(
        services, row.app_id, row.id, runnable.document, plan, json.decode(request.input)
    )
    await _create(services, row, given, runnable)
    return launch(services, prepare(services, row, runnable, given))


async def _go_on(services: RunServices, stored: RunRow) -> LiveRun | Ended:
    if stored.is_final:
        events, _ = await services.journal.read(stored.id)
        return Ended(stored, fold(events))
    claimed = await services.database.write(
        partial(
            repository.claim,
            run_id=stored.id,
            from_owner=stored.owner,
            token=services.token,
            now=now_ms(),
        )
    )
    if claimed is None:
        raise StepFailure("The child run is another process's now", "interrupted")
    return await resume_claimed(services, claimed)


async def _child_row(
    services: RunServices, parent: RunRow, request: ChildRequest, runnable: Runnable
) -> RunRow:
    now = now_ms()
    strict = retention.stricter(runnable.retention, parent.retention, services.retention)
    return RunRow(
        id=request.run_id,
        app_id=parent.app_id,
        workflow_app_id=runnable.workflow_app_id,
        workflow_id=runnable.workflow_id,
        version_id=runnable.version_id,
        version=runnable.version,
        root_id=parent.root_id,
        parent_id=parent.id,
        parent_key=request.parent_key,
        depth=parent.depth + 1,
        hidden=not await services.resolver.may_run(
            parent.app_id, runnable.workflow_id, runnable.version_id
        ),
        status="RUNNING",
        origin="WORKFLOW",
        identifier=None,
        from_step_key=request.step_key,
        replay_of=None,
        background=False,
        options=b"{}",
        owner=services.token,
        seq=0,
        error=None,
        credits=0.0,
        retention=strict,
        retention_due_at=None,
        erased_at=None,
        cancel_requested_at=None,
        cancel_requested_by=None,
        started_at=now,
        ended_at=None,
        created_at=now,
        updated_at=now,
    )


async def _create(services: RunServices, row: RunRow, given: Raw, runnable: Runnable) -> None:
    draft = runnable.body if runnable.version_id is None else None

    def unit(connection: Connection) -> None:
        if repository.tree_size(connection, row.root_id) >= MAX_TREE:
            raise StepFailure(f"The run has {MAX_TREE} child runs, the limit", "limit_tree")
        repository.create(connection, row, bytes(given), draft)

    await services.database.write(unit)
