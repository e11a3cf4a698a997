"""Judges a run: evaluates what its test expects, in the sandbox, with the run in scope."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from insula.engine.events import Event, Interruption
from insula.engine.failures import StepFailure
from insula.engine.ports import (
    Activity,
    ChildOutcome,
    ChildRequest,
    Evaluation,
    Limits,
    Ports,
)
from insula.engine.scope import VARIABLE_NAMES, as_seen
from insula.engine.scripts import CANNOT_WAIT, analyse
from insula.engine.state import RunState
from insula.errors import Conflict, NotFound
from insula.kit import json
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.kit.json import NULL, Raw
from insula.runs import repository as runs_repository
from insula.runs.options import options_of
from insula.runs.reading import Look, look_at, read_stored
from insula.runs.rows import RunRow
from insula.runs.services import RunServices
from insula.workflow_tests import expectations
from insula.workflow_tests.rows import CANCELLED, FAILED, PASSED, Verdict, WorkflowTest, as_written
from insula.workflows.deploy import digest

_CPU = 5.0
_WALL = 10.0
_OUTPUT = 64 * 1024
_LOGS = 64 * 1024
_NO_SCRIPT = "There is no script: write one, or choose a shared expectation"
_GONE = "The shared expectation is gone: choose another, or write a script"


async def judge(services: RunServices, test: WorkflowTest) -> Verdict:
    """Judge the run of a test, which has ended."""
    assert test.run_id is not None
    try:
        stored = await read_stored(services, partial(runs_repository.find, run_id=test.run_id))
    except NotFound:
        return Verdict(FAILED, error="Its run is gone: run the test again")
    row = stored.row
    if row.status == "CANCELLED":
        return Verdict(CANCELLED)
    if row.erased_at is not None:
        return Verdict(FAILED, error="The data of its run was erased: run the test again")
    look = await look_at(services, stored, test.app_id)
    try:
        runnable = await services.resolver.stored(row.workflow_id, row.version_id, stored.draft)
    except (NotFound, Conflict) as error:
        return Verdict(FAILED, error=error.message)
    try:
        ports = await _ports(services, row)
    except StepFailure as failure:  # a secret cannot be read; so it was with the run, or is now
        return Verdict(FAILED, error=failure.message)
    keys = frozenset(step.key for step in runnable.document.steps)
    items = await _judged(services, test, ports, _scope(look, ports), keys)
    failing = sum(item["status"] == FAILED for item in items)
    passed = row.status != "FAILED" and not failing
    return Verdict(
        PASSED if passed else FAILED,
        json.encode(items),
        len(items) - failing,
        failing,
        ran=digest(runnable.body),
    )


async def _judged(
    services: RunServices,
    test: WorkflowTest,
    ports: Ports,
    scope: Mapping[str, Raw],
    keys: frozenset[str],
) -> list[dict[str, Any]]:
    items = test.items()
    shared = [item["expectation_id"] for item in items if item.get("expectation_id")]
    query = partial(expectations.scripts_of, workflow_id=test.workflow_id, ids=shared)
    scripts = await services.database.read(query)
    judged = []
    for item in items:
        script, missing = item.get("script"), _NO_SCRIPT
        if item.get("expectation_id"):
            script, missing = scripts.get(item["expectation_id"]), _GONE
        kept = as_written(item)
        if script is None or not script.strip():
            judged.append({**kept, "logs": _told(missing), "status": FAILED})
        else:
            judged.append({**kept, **await _evaluated(services, ports, script, scope, keys)})
    return judged


async def _evaluated(
    services: RunServices,
    ports: Ports,
    source: str,
    scope: Mapping[str, Raw],
    keys: frozenset[str],
) -> dict[str, Any]:
    """Return ``{status, output?, logs?}`` of one script."""
    script = analyse(source)
    error = CANNOT_WAIT if script.awaits else script.error
    if error is not None:
        return {"logs": _told(f"The script cannot be read: {error}"), "status": FAILED}
    evaluation = Evaluation(
        app_id=ports.app_id,
        scripts=(source,),
        scope={name: scope[name] for name in script.names if name in scope},
        absent=tuple(sorted(keys & script.names - scope.keys())),
        lane=script.lane,
        limits=_limits(services.limits),
        code_app_id=ports.workflow_app_id,
        asked="judged",
    )
    activity = Activity("expectation", now_ms())
    try:
        done = await ports.sandbox.evaluate(evaluation, activity)
    except StepFailure as failure:
        logs = [] if failure.logs is None else json.decode(failure.logs)
        return {"logs": [*logs, *_told(failure.message)], "status": FAILED}
    holds, value = json.decode(done.outputs[0] or b"[false,null]")
    judged: dict[str, Any] = {"output": value}
    if done.logs is not None:
        judged["logs"] = done.logs
    return {**judged, "status": PASSED if holds else FAILED}


def _told(words: str) -> list[dict[str, Any]]:
    return [{"level": "error", "time": now_ms(), "args": [words]}]


def _limits(installed: Limits) -> Limits:
    return Limits(
        cpu=min(installed.cpu, _CPU),
        wall=min(installed.wall, _WALL),
        memory=installed.memory,
        output=min(installed.output, _OUTPUT),
        logs=min(installed.logs, _LOGS),
    )


def _scope(look: Look, ports: Ports) -> dict[str, Raw]:
    """Return all that an expectation sees, by its name: the run and its result go before steps of
    these names."""
    state: RunState = look.state
    scope = {
        key: as_seen(step)
        for key, step in state.steps.items()
        if step.end is not None and step.status != "SKIPPED"
    }
    for name in VARIABLE_NAMES:
        scope[name] = ports.variables
    scope["input"] = NULL if look.input is None else look.input
    scope["run"] = Raw(look.encoded())
    scope["result"] = NULL if state.result is None else state.result
    return scope


async def _ports(services: RunServices, row: RunRow) -> Ports:
    """Return ports whose sandbox keeps the app's secrets, and which lead nowhere else."""
    ports = Ports(
        run_id=row.id,
        app_id=row.app_id,
        recorder=_Nowhere(),
        sandbox=services.sandbox,
        http=services.http,
        models=services.models,
        children=_Nowhere(),
        clock=now_ms,
        new_id=new_id,
        workflow_app_id=row.workflow_app_id,
    )
    seed = options_of(row).handles or row.root_id
    return await services.equip(ports, row.workflow_app_id, seed, row.started_at)


class _Nowhere:
    """Records nothing, and has no children: expectations have no effects."""

    def record(self, event: Event) -> None:
        return

    async def stored(self) -> None:
        return

    async def run(self, request: ChildRequest, activity: Activity) -> ChildOutcome:
        raise StepFailure("An expectation starts no runs", "not_available")

    def interruptions(self, run_id: str) -> tuple[Interruption, ...]:
        return ()

    def credits(self, run_id: str) -> float:
        return 0.0

    def output(self, run_id: str) -> Raw | None:
        return None
