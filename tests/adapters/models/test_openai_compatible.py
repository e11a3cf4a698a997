"""What goes over the wire to a provider, and what becomes of what comes back."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from tests.listening import listening

from insula.adapters.http.egress import EgressPolicy
from insula.adapters.models import transport
from insula.adapters.models.providers import ModelProviders
from insula.adapters.models.rehearsal import RehearsalServer, Scene, rehearsal
from insula.engine.failures import StepFailure
from insula.engine.ports import Activity, ModelDelta, ModelReply, ModelRequest, ToolDefinition

KEY = "sk-secret-0123456789"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
async def server() -> AsyncIterator[RehearsalServer]:
    async with rehearsal() as served:
        yield served


@pytest.fixture
async def models(server: RehearsalServer) -> AsyncIterator[ModelProviders]:
    async def download(app_id: str, url: str) -> tuple[bytes, str]:
        assert (app_id, url) == ("app", "http://files/a.pdf")
        return b"%PDF-1.7\n", "text/html"

    environ = {
        "INSULA_PROVIDER_OPENAI_URL": server.url,
        "INSULA_PROVIDER_OPENAI_KEY": KEY,
        "INSULA_PROVIDER_LOCAL_URL": server.url,
        "OPENAI_ORG_ID": "org",
    }
    made = ModelProviders(EgressPolicy(), environ, download)
    yield made
    await made.close()


def _request(provider: str = "local", **changes: Any) -> ModelRequest:
    messages = [{"role": "user", "content": "hi"}]
    return replace(ModelRequest("app", provider, "gpt-4o", messages), **changes)


async def _ask(models: ModelProviders, request: ModelRequest) -> ModelReply:
    activity = Activity("x", 0)
    events = [event async for event in models.stream(request, activity)]
    assert not activity.effect_possible
    assert isinstance(events[-1], ModelReply)
    return events[-1]


async def _failure(models: ModelProviders, request: ModelRequest) -> StepFailure:
    with pytest.raises(StepFailure) as caught:
        await _ask(models, request)
    return caught.value


async def test_a_conversation_on_the_wire(server, models) -> None:
    data = "data:image/png;base64," + base64.b64encode(PNG).decode()
    messages = [
        {"role": "system", "content": "be kind"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image", "url": "https://x/y.png"},
                {"type": "image", "url": data},
                {"type": "file", "url": "http://files/a.pdf"},
                {"type": "file", "url": "data:text/plain,a%20b"},
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "I call"}],
            "tools": [{"id": "c1", "name": "find", "input": {"q": 1}}],
        },
        {
            "role": "tool",
            "content": [{"type": "tool_result", "id": "c1", "name": "find", "output": {"n": 2}}],
        },
    ]
    await _ask(models, _request(messages=messages))
    sent = server.bodies[0]["messages"]
    assert [m["role"] for m in sent] == ["system", "user", "assistant", "tool"]
    assert sent[0]["content"] == "be kind"
    parts = sent[1]["content"]
    assert parts[0] == {"type": "text", "text": "look"}
    assert parts[1]["image_url"]["url"] == "https://x/y.png"
    assert parts[2]["image_url"]["url"] == data
    assert parts[3]["file"]["file_data"].startswith("data:application/pdf;base64,")
    assert "a b" in parts[4]["text"]
    assert sent[2]["tool_calls"][0]["function"] == {"name": "find", "arguments": '{"q":1}'}
    assert sent[3] == {"role": "tool", "tool_call_id": "c1", "content": '{"n":2}'}


async def test_settings_on_the_wire(server, models) -> None:
    tools = (ToolDefinition("find", "finds", {"type": "object", "properties": {}}),)
    request = _request(
        temperature=0.5,
        max_tokens=7,
        tools=tools,
        tools_mode="required",
        tools_parallel=False,
        response_format="json",
        idempotency_key="run/step",
    )
    await _ask(models, request)
    body = server.bodies[0]
    assert (body["temperature"], body["max_tokens"], body["stream"]) == (0.5, 7, True)
    assert (body["tool_choice"], body["parallel_tool_calls"]) == ("required", False)
    assert body["tools"][0]["function"]["name"] == "find"
    assert body["response_format"] == {"type": "json_object"}
    assert "JSON" in body["messages"][0]["content"]
    assert "idempotency-key: run/step" in server.heads[0].lower()
    await _ask(models, _request("openai", max_tokens=7))
    assert server.bodies[1]["max_completion_tokens"] == 7


async def test_the_key_goes_to_its_provider_and_nothing_about_us_does(server, models) -> None:
    await _ask(models, _request("openai"))
    await _ask(models, _request("local"))
    assert f"Bearer {KEY}" in server.heads[0]
    assert "authorization" not in server.heads[1].lower()
    for head in server.heads:
        names = {line.split(":")[0].lower() for line in head.split("\r\n")[1:] if line}
        assert names <= {
            "host",
            "user-agent",
            "accept",
            "accept-encoding",
            "authorization",
            "content-type",
            "content-length",
        }


async def test_connections_are_kept_between_rounds(server, models) -> None:
    for _ in range(3):
        await _ask(models, _request())
    assert len(server._tasks) == 1


async def test_credits_are_the_price_of_the_usage(server, models) -> None:
    server.scenes = [Scene(usage=(1_000_000, 100_000))]
    assert (await _ask(models, _request("openai"))).credits == pytest.approx(3500)
    assert (await _ask(models, _request("local"))).credits == 0
    assert (await _ask(models, _request("openai", model="nobody-knows"))).credits == 0


async def test_counts_that_no_call_can_have_are_not_believed(server, models) -> None:
    for much in (10**10, 2**63, 10**310, 10**400):
        server.scenes = [Scene(usage=(much, 5))]
        reply = await _ask(models, _request("openai"))
        assert reply.credits == 0
        assert reply.raw["usage"] == {"input_tokens": 0, "output_tokens": 0}


async def test_arguments_that_are_not_json_stay_text(server, models) -> None:
    tools = (ToolDefinition("f", "", {"type": "object"}),)
    server.scenes = [Scene(pieces=(), tool_calls=(("a", "f", "{broken"), ("b", "f", "")))]
    reply = await _ask(models, _request(tools=tools))
    assert [call.input for call in reply.tool_calls] == ["{broken", {}]


@pytest.mark.parametrize(
    ("pieces", "call", "told"),
    [
        ((), (5, "f", "{}"), "under an id that is no text"),
        ((), ("a\ud800", "f", "{}"), "under an id that is no text"),
        ((), ("a", 5, "{}"), "whose name is no text"),
        ((), ("a", "f\ud800", "{}"), "whose name is no text"),
        ((), ("a", None, "{}"), "asked for a tool and named none"),
        (("a", None), None, None),
        (("a", "b\ud800c"), None, "not Unicode"),
    ],
)
async def test_what_is_no_answer_is_the_providers_failure(
    server, models, monkeypatch, pieces: Any, call: Any, told: str | None
) -> None:
    """It is found before anything is made of it: a name is looked up, a text is stored."""
    monkeypatch.setattr(
        "insula.adapters.models.rehearsal.encode", lambda value: json.dumps(value).encode()
    )
    calls = () if call is None else (call,)
    server.scenes = [Scene(pieces=pieces, tool_calls=calls, usage=(1_000_000, 0))]
    request = _request("openai", tools=(ToolDefinition("f", "", {"type": "object"}),))
    if told is None:
        assert (await _ask(models, request)).text == "a"
        return
    failure = await _failure(models, request)
    assert (failure.code, failure.message.partition(" ")[0]) == ("provider", "openai")
    assert told in failure.message
    assert failure.credits == (pytest.approx(2500) if call else 0)


@pytest.mark.parametrize("depth", [201, 5000])
async def test_arguments_that_nest_too_deeply_are_a_failure(server, models, depth: int) -> None:
    deep = '{"a":' * depth + "1" + "}" * depth
    server.scenes = [Scene(pieces=(), tool_calls=(("a", "f", deep),), usage=(1_000_000, 0))]
    tools = (ToolDefinition("f", "", {"type": "object"}),)
    failure = await _failure(models, _request("openai", tools=tools))
    assert (failure.code, failure.credits) == ("provider", pytest.approx(2500))
    assert "200 levels" in failure.message


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": f"bad key {KEY}"}},
        {"error": f"bad key {KEY}"},
        {"detail": f"bad key {KEY}"},
        f"bad key {KEY}",
    ],
)
async def test_the_key_is_in_no_error(server, models, body: object) -> None:
    server.scenes = [Scene(status=401, error=body)]
    failure = await _failure(models, _request("openai"))
    assert "openai answered 401: bad key •••" in failure.message
    assert KEY not in failure.message


async def test_a_long_error_is_shortened(server, models) -> None:
    server.scenes = [Scene(status=400, error={"error": {"message": "x" * 10_000}})]
    assert len((await _failure(models, _request())).message) < 600


async def test_no_request_is_repeated_behind_our_back(server, models) -> None:
    server.scenes = [Scene(status=500, error={"error": {"message": "no"}})]
    await _failure(models, _request())
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "scene",
    [
        Scene(cut_after=1),
        Scene(cut_after=1, abrupt=False),
        Scene(garbage_after=1),
        Scene(finish=None, done=False, usage=None),
        Scene(pieces=(), finish=None, usage=None),
    ],
)
async def test_an_answer_that_was_not_finished_is_a_failure(server, models, scene: Scene) -> None:
    server.scenes = [scene]
    failure = await _failure(models, _request())
    assert failure.code in ("network", "provider")


async def test_an_end_without_its_marker_is_an_end(server, models) -> None:
    server.scenes = [Scene(done=False)]
    assert (await _ask(models, _request())).text == "Hello, world"


async def test_deltas_arrive_one_by_one(server, models) -> None:
    """The second piece is not sent before the first was received."""
    server.scenes = [Scene(pieces=("a", "b"), stall_after=1)]
    async for event in models.stream(_request(), Activity("x", 0)):
        assert event == ModelDelta("a")
        break


async def test_a_provider_that_is_not_there(models) -> None:
    other = ModelProviders(EgressPolicy(), {"INSULA_PROVIDER_GONE_URL": "http://127.0.0.1:1/v1"})
    failure = await _failure(other, _request("gone"))
    await other.close()
    assert failure.code == "refused"


async def test_a_known_provider_obeys_the_egress_policy(server, monkeypatch) -> None:
    """Only URLs that the operator wrote down are exempt."""
    monkeypatch.setattr(
        "insula.adapters.models.configured._KNOWN", {"groq": (server.url, "GROQ_API_KEY")}
    )
    models = ModelProviders(EgressPolicy(), {"GROQ_API_KEY": "k"})
    failure = await _failure(models, _request("groq"))
    await models.close()
    assert (failure.code, server.bodies) == ("egress", [])


async def test_file_urls_are_fetched_under_the_policy(server) -> None:
    models = ModelProviders(EgressPolicy(), {"INSULA_PROVIDER_LOCAL_URL": server.url})
    content = [{"type": "file", "url": f"http://127.0.0.1:{server.port}/secret"}]
    failure = await _failure(models, _request(messages=[{"role": "user", "content": content}]))
    await models.close()
    assert (failure.code, server.bodies) == ("egress", [])


@pytest.mark.parametrize(
    "message",
    [
        {"role": "robot", "content": "x"},
        {"role": "user", "content": [{"type": "video", "url": "x"}]},
        {"role": "user", "content": [{"type": "file", "url": "data:x;base64"}]},
        {"role": "user", "content": [{"type": "file", "url": "data:x;base64,%%%"}]},
        {"role": "user", "content": ["x"]},
        {"role": "tool", "content": "x"},
    ],
)
async def test_what_is_no_message_is_named(server, models, message: dict[str, Any]) -> None:
    failure = await _failure(models, _request(messages=[message]))
    assert failure.code == "input"
    assert "messages[0]" in failure.message
    assert server.bodies == []


async def test_features_are_not_available_yet(models) -> None:
    failure = await _failure(models, _request(options={"features": {"web_search": {}}}))
    assert failure.code == "not_available"


async def test_loading_the_library_leaves_the_loop_running(models, monkeypatch) -> None:
    """The library is imported on a thread: here, one that waits until the loop has turned."""
    turned = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow() -> Any:
        asyncio.run_coroutine_threadsafe(turned.wait(), loop).result(5)
        raise StepFailure("loaded")

    monkeypatch.setattr("insula.adapters.models.providers._load", slow)
    task = asyncio.create_task(_failure(models, _request()))
    await asyncio.sleep(0)
    turned.set()
    assert (await task).message == "loaded"


# Providers that mean harm


SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
ENDING = (
    b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)


@asynccontextmanager
async def _raw(answer: bytes) -> AsyncIterator[ModelProviders]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with listening(serve) as port:
        url = f"http://127.0.0.1:{port}/v1"
        made = ModelProviders(EgressPolicy(), {"INSULA_PROVIDER_LOCAL_URL": url})
        yield made
        await made.close()


async def test_a_flood_of_comments_leaves_the_loop_its_turns() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with _raw(SSE + b":\n" * 100_000 + ENDING) as models:
        await models._provider("local")
        counting = asyncio.create_task(count())
        assert (await _ask(models, _request())).text == "hi"
        counting.cancel()
    assert turns >= 100_000 / 8 / 50


ANSWERS = {
    "an event of lists": SSE + b'data: {"x":[' + b"[]," * 110_000 + b"[]]}\n\n" + ENDING,
    "an event of objects": SSE + b'data: {"x":[' + b"{}," * 110_000 + b"{}]}\n\n" + ENDING,
    "a long event": SSE + b'data: {"x":"' + b"a" * (4 << 20) + b'"}\n\n' + ENDING,
    "an event of comments": SSE + b":\n" * (2 << 20) + ENDING,
    "no event": b"HTTP/1.1 400 No\r\nConnection: close\r\n\r\n[" + b"[]," * 110_000 + b"[]]",
    "a long error": b"HTTP/1.1 400 No\r\nConnection: close\r\n\r\n" + b"\n" * (4 << 20) + b"[]",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
async def test_what_the_library_builds_at_a_time_is_bounded(answer: bytes) -> None:
    async with _raw(answer) as models:
        failure = await _failure(models, _request(timeout=60.0))
    assert (failure.code, "holds an event of more than" in failure.message) == ("provider", True)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
async def test_many_events_are_no_large_one(end: bytes) -> None:
    event = b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}' % (b"[" * 60_000)
    async with _raw(SSE + (event + end) * 4 + ENDING) as models:
        assert (await _ask(models, _request())).text == "[" * 240_000 + "hi"


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n"])
def test_an_event_weighs_the_same_however_its_lines_end(end: bytes) -> None:
    """What the library makes of it does."""
    assert transport._work((b"data: {}" + end) * 100) >= 800
