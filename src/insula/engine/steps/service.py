"""*service*: one action of a service, done by whoever stands behind the port."""

from typing import Any

from insula.engine.context import Result, StepContext
from insula.engine.document import ServiceStep
from insula.engine.failures import StepFailure, plain
from insula.engine.ports import ServiceCall
from insula.engine.steps import trigger
from insula.engine.steps.workflow import filled_object
from insula.kit import json


async def run(context: StepContext) -> Result:
    """Fill the action's input in, do it, and return what it gives.

    Called as a tool, the model's arguments are ``args`` in the templates of the input.
    """
    step = context.step
    assert isinstance(step, ServiceStep)
    service = step.service
    named, action = _named(service, "type"), _named(service, "action")
    if action.startswith("ON_"):
        return trigger.run(context)
    given = await filled_object(context, service.get("input"), "The input of the service")
    connection = service.get("connection_id")
    part = context.begin_effect(f"service {plain(named, 40)}.{plain(action, 60)}")
    call = ServiceCall(
        app_id=context.ports.app_id,
        workflow_app_id=context.ports.workflow_app_id or context.ports.app_id,
        run_id=context.ports.run_id,
        type=named,
        action=action,
        input=json.decode(given),
        connection_id=connection if isinstance(connection, str) else None,
        idempotency_key=context.effect_key(),
    )
    try:
        await context.ports.recorder.stored()
        context.crew.check()
        output = await context.ports.services.call(call, part)
    except StepFailure:
        context.end_effect(part)
        raise
    context.end_effect(part)
    return Result(output)


def _named(service: dict[str, Any], name: str) -> str:
    value = service.get(name)
    if not isinstance(value, str) or not value.strip():
        raise StepFailure(f"service.{name} is missing: choose a service and an action", "input")
    return value.strip().upper()
