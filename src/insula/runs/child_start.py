"""Starting a child run, or going on with one that its parent's journal knows."""

import asyncio
from functools import partial

from sqlalchemy import Connection

from insula.engine.failures import StepFailure
from insula.engine.ports import ChildRequest, Fenced, Stop
from insula.engine.state import fold
from insula.kit import json
from insula.kit.clock import now_ms
from insula.runs import repository, retention
from insula.runs.children import MAX_DEPTH, MAX_TREE, Ended, stop_child
from insula.runs.creation import create
from insula.runs.execution import prepare
from insula.runs.live import LiveRun
from insula.runs.options import RunOptions, options_of
from insula.runs.recovery import take_over
from insula.runs.render import closed_to
from insula.runs.rows import RunRow
from insula.runs.services import RunServices
from insula.runs.start import check_seen, checked_input
from insula.workflows.resolve import Runnable


async def begin_child(
    services: RunServices, parent: RunRow, request: ChildRequest, stop: Stop
) -> LiveRun | Ended:
    """Return the child of a *workflow* step, executing here, or as it had ended.

    Cancelled, it comes out when there is no child, or when it has ended.

    Raises:
        StepFailure: the tree is too deep or too large, or the step names no workflow.
        InsulaError: the parent's owner may not run that workflow, or the input does not fit it.
    """
    stored = await services.database.read(partial(repository.find, run_id=request.run_id))
    if stored is not None:
        return await _go_on(services, stored, stop)
    if not request.workflow_id:
        raise StepFailure("The step names no workflow; set workflow_id", "input")
    if parent.depth + 1 >= MAX_DEPTH:
        raise StepFailure(f"Child runs are {MAX_DEPTH} levels deep, the limit", "limit_depth")
    runnable = await services.resolver.resolve_child(
        parent.workflow_app_id, request.workflow_id, request.version
    )
    if request.step_key is not None:
        check_seen(runnable, parent.workflow_app_id, request.step_key)
    row = await _child_row(services, parent, request, runnable)
    plan = await services.plans.lay_out(runnable, row.from_step_key)
    given = await checked_input(
        services,
        row,
        runnable,
        plan,
        json.decode(request.input),
        caller_app_id=parent.workflow_app_id,
    )
    return await _create(services, prepare(services, row, runnable, given), stop)


async def _create(services: RunServices, live: LiveRun, stop: Stop) -> LiveRun:
    draft = live.runnable.body if live.row.version_id is None else None
    new = repository.NewRun(live.row, bytes(live.input), draft)
    try:
        await create(services, live, new, partial(_check_tree, root_id=live.row.root_id))
        if not await services.resolver.admits(live.row.workflow_id):
            # Deleted since it was resolved: whoever deletes it has not seen this run.
            live.stop("cancel")
    except BaseException:  # nobody would follow it
        await stop_child(live, stop)
        raise
    return live


def _check_tree(connection: Connection, root_id: str) -> None:
    if repository.tree_size(connection, root_id) + 1 >= MAX_TREE:
        raise StepFailure(f"The run and its children are {MAX_TREE}, the limit", "limit_tree")


async def _go_on(services: RunServices, stored: RunRow, stop: Stop) -> LiveRun | Ended:
    """Go on with a child that is stored; what is begun of that is not left half done."""
    going = asyncio.ensure_future(_resumed(services, stored.id))
    try:
        return await asyncio.shield(going)
    except asyncio.CancelledError:
        await asyncio.wait([going])
        child = going.result()
        if isinstance(child, LiveRun):
            await stop_child(child, stop)
        raise


async def _resumed(services: RunServices, run_id: str) -> LiveRun | Ended:
    live = await take_over(services, run_id)
    if live is not None:
        return live
    row = await services.database.read(partial(repository.find, run_id=run_id))
    if row is None or not row.is_final:
        raise Fenced(run_id)
    _, draft = await services.database.read(partial(repository.data_of, run_id=run_id))
    runnable = await services.resolver.stored(row.workflow_id, row.version_id, draft)
    events, _ = await services.journal.read(run_id)
    return Ended(row, fold(events), runnable)


def _options(parent: RunRow) -> bytes:
    """Hand on what holds for the whole tree: the limits of its scripts, and its handles of secrets,
    whatever the root took them from."""
    options = options_of(parent)
    return RunOptions(handles=options.handles, limits=options.limits).encoded()


def _is_told(services: RunServices, parent: RunRow, parent_key: str) -> bool:
    """Say whether the run's app sees the step that starts a child: else the child's input would
    tell it what hidden steps have made."""
    if parent.hidden:
        return False
    live = services.live.get(parent.id)
    visible = None if live is None else closed_to(live.runnable, parent.app_id)
    if live is None or visible is None:
        return live is not None
    # As a model's tool it is one of the calls, which nobody outside sees.
    return parent_key in visible and live.plan.nodes[parent_key].step.type == "workflow"


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
        hidden=not _is_told(services, parent, request.parent_key)
        or not await services.resolver.may_run(
            parent.app_id, runnable.workflow_id, runnable.version_id
        ),
        status="RUNNING",
        origin="WORKFLOW",
        identifier=None,
        from_step_key=request.step_key,
        replay_of=None,
        background=False,
        options=_options(parent),
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
