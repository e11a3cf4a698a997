import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from insula.adapters.guarded import GuardedHttp, GuardedModels, GuardedSandbox, GuardedServices
from insula.engine.failures import StepFailure
from insula.engine.masking import MASK
from insula.engine.ports import (
    Activity,
    Evaluation,
    HttpRequest,
    HttpResponse,
    ModelDelta,
    ModelReply,
    ModelRequest,
    ModelToolCall,
    ServiceCall,
)
from insula.engine.secrets import Secret, Secrets
from insula.kit import json
from insula.kit.json import Raw
from insula.testing import RecordedHttp, ScriptedModels, ScriptedSandbox

VALUE = 'plan"ted 123'
SECRETS = Secrets([Secret("KEY", "insulasecret" + "1" * 32, VALUE)])
DOING = Activity("test", 0)


def answered(body: bytes, *headers: tuple[str, str], url: str = "https://a.test/") -> HttpResponse:
    return HttpResponse(200, headers, body, url)


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        (b'{"a":"plan\\"ted 123"}', b'{"a":"\xe2\x80\xa2\xe2\x80\xa2\xe2\x80\xa2"}'),
        (b'{"a":"\\u0070lan\\u0022ted 123"}', b'{"a":"\xe2\x80\xa2\xe2\x80\xa2\xe2\x80\xa2"}'),
        (b'a=plan"ted 123', "a=•••".encode()),
        (b"a=plan%22ted+123", "a=•••".encode()),
        (b'\xff=plan"ted 123', b"\xff=***"),
        (b'{"n": 1.50}', b'{"n": 1.50}'),
    ],
)
async def test_answers_are_masked(body: bytes, seen: bytes) -> None:
    response = answered(body, ("X-Echo", f"is {VALUE}"), url="https://a.test/plan%22ted%20123")
    http = RecordedHttp(lambda _: response)
    got = await GuardedHttp(http, SECRETS).send(HttpRequest("GET", "https://a.test/"), DOING)
    assert got == HttpResponse(200, (("X-Echo", f"is {MASK}"),), seen, f"https://a.test/{MASK}")
    assert http.requests[0].secrets is SECRETS


async def test_large_answers_are_masked_beside_the_event_loop() -> None:
    body = b"x" * 200_000 + VALUE.encode()
    http = GuardedHttp(RecordedHttp(lambda _: answered(body)), SECRETS)
    got = await http.send(HttpRequest("GET", "https://a.test/"), DOING)
    assert got.body.endswith("x•••".encode())


@pytest.mark.parametrize("error", [StepFailure(f"no {VALUE}", "tls"), ValueError(VALUE)])
async def test_errors_are_masked(error: Exception) -> None:
    async def failing(_: HttpRequest) -> HttpResponse:
        raise error

    with pytest.raises((StepFailure, RuntimeError)) as raised:
        await GuardedHttp(RecordedHttp(failing), SECRETS).send(
            HttpRequest("GET", "https://a.test/"), DOING
        )
    assert VALUE not in str(raised.getrepr(style="native"))
    assert MASK in str(raised.value)


async def test_errors_without_a_value_stay_what_they_are() -> None:
    async def failing(_: HttpRequest) -> HttpResponse:
        raise KeyError("other")

    with pytest.raises(KeyError):
        await GuardedHttp(RecordedHttp(failing), SECRETS).send(
            HttpRequest("GET", "https://a.test/"), DOING
        )


async def test_what_code_returns_is_masked() -> None:
    sandbox = GuardedSandbox(ScriptedSandbox(lambda script, scope: {"got": VALUE}), SECRETS)
    done = await sandbox.evaluate(Evaluation("app", ("x",), {}), DOING)
    assert done.outputs[0] is not None
    assert json.decode(done.outputs[0]) == {"got": MASK}
    failing = ScriptedSandbox(lambda script, scope: (_ for _ in ()).throw(StepFailure(VALUE)))
    with pytest.raises(StepFailure, match=MASK):
        await GuardedSandbox(failing, SECRETS).evaluate(Evaluation("app", ("x",), {}), DOING)


async def test_what_a_service_gives_is_masked() -> None:
    class Echo:
        async def call(self, call: ServiceCall, activity: Activity) -> Raw:
            if call.action == "FAIL":
                raise StepFailure(f"no {VALUE}", "input")
            return json.raw({"said": VALUE})

    guarded = GuardedServices(Echo(), SECRETS)
    call = ServiceCall("app", "app", "run", "FILES", "SAY", {})
    assert json.decode(await guarded.call(call, DOING)) == {"said": MASK}
    with pytest.raises(StepFailure, match=MASK):
        await guarded.call(replace(call, action="FAIL"), DOING)


async def said(*pieces: Any, **request: Any) -> list[Any]:
    class Model(ScriptedModels):
        async def stream(
            self, request: ModelRequest, activity: Activity
        ) -> AsyncGenerator[ModelDelta | ModelReply, None]:
            for piece in pieces:
                await asyncio.sleep(0)
                if isinstance(piece, Exception):
                    raise piece
                yield piece

    asked = ModelRequest("app", "p", "m", (), **request)
    guarded = GuardedModels(Model([]), SECRETS)
    assert guarded.identify("p", "m") == ("p", "m")
    async with aclosing(guarded.stream(asked, DOING)) as stream:
        return [piece async for piece in stream]


async def test_a_models_words_are_masked_wherever_they_are_cut() -> None:
    reply = ModelReply("p", "m", f"I say {VALUE}, {VALUE[:4]}")
    for cut in range(len(reply.text) + 1):
        pieces = [ModelDelta(reply.text[:cut]), ModelDelta(reply.text[cut:]), reply]
        *deltas, last = await said(*pieces)
        assert "".join(piece.text for piece in deltas) == last.text == f"I say {MASK}, plan"


async def test_a_restart_forgets_what_was_held_back() -> None:
    got = await said(
        ModelDelta("plan"),
        ModelDelta("", restart=True),
        ModelDelta("ted"),
        ModelReply("p", "m", ""),
    )
    assert [(piece.text, piece.restart) for piece in got[:-1]] == [("", True), ("ted", False)]


async def test_calls_and_raw_answers_are_masked() -> None:
    reply = ModelReply(
        "p",
        "m",
        json.encode({"a": VALUE}).decode(),
        (ModelToolCall("1", "TOOL", {"x": [VALUE]}),),
        refusal=VALUE,
        raw={"said": VALUE},
    )
    (got,) = await said(reply, response_format="json")
    assert json.decode(got.text) == {"a": MASK}
    assert got.tool_calls[0].input == {"x": [MASK]}
    assert (got.refusal, got.raw) == (MASK, {"said": MASK})


async def test_a_models_failure_is_masked() -> None:
    with pytest.raises(StepFailure, match=MASK) as failed:
        await said(ModelDelta("x"), StepFailure(f"401: {VALUE}", "provider"))
    assert failed.value.code == "provider"
