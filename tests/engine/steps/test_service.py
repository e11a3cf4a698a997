"""*service*: an action, its input filled in, done through the port."""

import asyncio
from typing import Any

import pytest
from tests.engine.stage import code, model, play, step

from insula.engine.failures import StepFailure
from insula.engine.ports import ModelReply, ModelToolCall, ServiceCall
from insula.kit.json import Raw
from insula.testing import ScriptedModels, ScriptedServices


def action(key: str = "S", *, service: Any = None, **more: Any) -> dict[str, Any]:
    made = {"type": "FILES", "action": "DELETE_FILE", "input": {}, **(service or {})}
    return step("service", key, service=made, **more)


async def test_its_answer_is_the_output() -> None:
    services = ScriptedServices(lambda call: {"gone": call.input["file_id"]})
    given = {"file_id": "{{input.id}}", "count": "{{A.output}}", "list": ["x{{A.output}}"]}
    run = await play(
        code("A", "S"),
        action(service={"input": given, "connection_id": "con_1"}),
        start="A",
        table={"code_A()": 7},
        input=Raw(b'{"id":"file_1"}'),
        services=services,
    )
    assert run.outputs["S"] == {"gone": "file_1"}
    (call,) = services.calls
    assert (call.type, call.action, call.connection_id) == ("FILES", "DELETE_FILE", "con_1")
    assert call.input == {"file_id": "file_1", "count": 7, "list": ["x7"]}
    assert (call.app_id, call.workflow_app_id) == ("app_1", "app_1")


async def test_the_input_may_be_one_template() -> None:
    services = ScriptedServices(lambda call: dict(call.input))
    given = Raw(b'{"all":{"a":1}}')
    run = await play(action(service={"input": "{{input.all}}"}), input=given, services=services)
    assert run.outputs["S"] == {"a": 1}
    run = await play(action(service={"input": "[1]"}), services=services)
    assert run.ended.error == "The input of the service must be an object"


@pytest.mark.parametrize("missing", ["type", "action"])
async def test_what_names_no_action_says_so(missing: str) -> None:
    run = await play(action(service={missing: ""}))
    assert f"service.{missing} is missing" in (run.ended.error or "")


async def test_without_services_there_is_none() -> None:
    run = await play(action())
    assert (run.ended.status, run.ended.code) == ("FAILED", "not_available")


async def test_every_attempt_has_the_same_key() -> None:
    def answer(call: ServiceCall) -> Any:
        if len(services.calls) == 1:
            raise StepFailure("not now", "network")
        return True

    services = ScriptedServices(answer)
    run = await play(action(retry={"max": 1, "backoff": 0}), services=services)
    assert run.statuses == {"S": "COMPLETED"}
    assert len({call.idempotency_key for call in services.calls}) == 1


async def test_it_has_a_time_limit() -> None:
    async def never(_: ServiceCall) -> Any:
        await asyncio.Event().wait()

    run = await play(action(timeout=0.05), services=ScriptedServices(never))
    assert run.ended.code == "timeout"


async def test_a_model_calls_it_with_its_arguments() -> None:
    services = ScriptedServices(lambda call: {"did": call.input["file_id"]})
    asked = ModelReply("mock", "m", "", (ModelToolCall("1", "S", {"id": "file_2"}),))
    run = await play(
        model("M", tools=["S"]),
        action(service={"input": {"file_id": "{{args.id}}"}}),
        models=ScriptedModels([asked, ModelReply("mock", "m", "done")]),
        services=services,
    )
    assert run.statuses == {"M": "COMPLETED"}
    assert services.calls[0].input == {"file_id": "file_2"}
