"""The actions of services that start runs: a trigger completes where its run begins, and says when
it was due.
"""

from insula.engine.context import Result, StepContext
from insula.engine.document import ServiceStep
from insula.engine.failures import StepFailure
from insula.engine.triggers import is_schedule
from insula.kit import json
from insula.kit.clock import iso


def run(context: StepContext) -> Result:
    """Complete with what the run was started with; one that somebody starts by hand is due now.

    Raises:
        StepFailure: the run does not begin at it, or it is another trigger than the scheduler's.
    """
    step = context.step
    assert isinstance(step, ServiceStep)
    if not _is_entry(context):
        words = "is a trigger: it starts runs, and is not called. Let the run begin at it"
        raise StepFailure(f"{step.service.get('action')} {words}", "input")
    if not is_schedule(step.service):
        raise StepFailure("This trigger is not available yet", "not_available")
    return Result(context.ports.trigger or _now(context, step))


def _is_entry(context: StepContext) -> bool:
    node = context.scope.plan.nodes.get(context.step.key)
    return context.tool is None and node is not None and node.entry


def _now(context: StepContext, step: ServiceStep) -> json.Raw:
    shown = iso(context.ports.clock())
    given = step.service.get("input")
    zone = given.get("timezone") if isinstance(given, dict) else None
    zone = zone if isinstance(zone, str) and zone else "UTC"
    return json.raw({"scheduled_at": shown, "fired_at": shown, "timezone": zone, "missed": 0})
