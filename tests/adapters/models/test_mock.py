"""The scripted provider: stateless, deterministic, and strict about its script."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insula.adapters.models.mock import Mock, split_tokens
from insula.engine.failures import StepFailure
from insula.engine.ports import ModelDelta, ModelReply, ModelRequest


def _request(*messages: tuple[str, object], **options: object) -> ModelRequest:
    spoken = [{"role": role, "content": content} for role, content in messages]
    return ModelRequest("app", "mock", "m", spoken or [_said("hi")], options=options)


def _said(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


async def _reply(request: ModelRequest, mock: Mock | None = None) -> ModelReply:
    events = [event async for event in (mock or Mock()).stream(request)]
    assert isinstance(events[-1], ModelReply)
    return events[-1]


async def test_without_a_script_it_says_the_last_user_message_back() -> None:
    reply = await _reply(_request(("user", "one"), ("assistant", "x"), ("user", "two words")))
    assert reply.text == "two words"
    parts = [{"type": "text", "text": "see "}, {"type": "image", "url": "http://x"}]
    assert (await _reply(_request(("user", parts)))).text == "see [image]"
    assert (await _reply(_request(("system", "s")))).text == ""


async def test_an_echo_in_json_is_json() -> None:
    request = ModelRequest("app", "mock", "m", [_said('a "b"')], response_format="json")
    assert json.loads((await _reply(request)).text) == {"echo": 'a "b"'}


async def test_the_number_of_assistant_messages_chooses_and_the_last_repeats() -> None:
    script = {"replies": [{"text": "one"}, {"json": {"n": 2}}]}
    said = [("user", "a"), ("assistant", "b"), ("tool", []), ("assistant", "c"), ("user", "d")]
    texts = [(await _reply(_request(*said[:n], mock=script))).text for n in (1, 2, 5)]
    assert texts == ["one", '{"n":2}', '{"n":2}']


async def test_credits() -> None:
    usage = {"input_tokens": 1500, "output_tokens": 500}
    assert (await _reply(_request(mock={"replies": [{"usage": usage}]}))).credits == 2.0
    both = {"replies": [{"usage": usage, "credits": 0.25}]}
    reply = await _reply(_request(mock=both))
    assert reply.credits == 0.25
    assert reply.raw == {"reply": 0, "usage": usage}


async def test_a_restart_makes_what_came_before_count_no_longer() -> None:
    request = _request(mock={"replies": [{"text": "a b c", "restart_after": 2}]})
    events = [event async for event in Mock().stream(request)]
    assert [(e.text, e.restart) for e in events if isinstance(e, ModelDelta)] == [
        ("a", False),
        (" b", False),
        ("", True),
        ("a", False),
        (" b", False),
        (" c", False),
    ]


async def test_tool_calls_without_ids_get_the_same_ones_each_time() -> None:
    script = {"replies": [{"tool_calls": [{"name": "a"}, {"name": "b", "input": 1}]}]}
    first, second = [await _reply(_request(mock=script)) for _ in range(2)]
    assert first == second
    assert [(c.id, c.input) for c in first.tool_calls] == [("call_0_0", {}), ("call_0_1", 1)]


@pytest.mark.parametrize("after", range(4))
async def test_errors_come_after_so_many_tokens(after: int) -> None:
    error = {"status": 503, "message": "busy", "after_tokens": after}
    request = _request(mock={"replies": [{"text": "a b", "error": error}]})
    texts: list[str] = []

    async def consume() -> None:
        async for event in Mock().stream(request):
            texts.append(event.text)

    with pytest.raises(StepFailure, match="503: busy"):
        await consume()
    assert texts == ["a", " b"][:after]


@pytest.mark.parametrize(
    ("script", "named"),
    [
        ([], "object"),
        ({"replies": []}, "length"),
        ({"replies": [{"txt": "x"}]}, "txt"),
        ({"replies": [{"delay_ms": -1}]}, "delay_ms"),
        ({"replies": [{"tokens": "3"}]}, "tokens"),
        ({"replies": [{"tokens": 10**9}]}, "tokens"),
    ],
)
async def test_what_is_no_script_is_named(script: object, named: str) -> None:
    with pytest.raises(StepFailure, match=named) as caught:
        await _reply(_request(mock=script))
    assert caught.value.code == "input"


async def test_a_file_of_scripts_is_read_again_when_it_changes(tmp_path) -> None:
    path = tmp_path / "mock.yaml"
    path.write_text("replies: [{text: any}]\nmodels: {m: {replies: [{text: mine}]}}\n")
    mock = Mock(path)
    assert (await _reply(_request(), mock)).text == "mine"
    other = ModelRequest("app", "mock", "other", [_said("hi")])
    assert (await _reply(other, mock)).text == "any"
    path.write_text("models: {}\n# longer than before\n")
    assert (await _reply(other, mock)).text == "hi"
    script = {"replies": [{"text": "step's own"}]}
    assert (await _reply(_request(mock=script), mock)).text == "step's own"


@pytest.mark.parametrize("text", ["{", "replies: 3", "- a", None])
async def test_a_bad_file_is_named(tmp_path, text: str | None) -> None:
    path = tmp_path / "mock.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(StepFailure, match="INSULA_MOCK_FILE"):
        await _reply(_request(), Mock(path))


@given(st.text(max_size=200), st.none() | st.integers(0, 50))
def test_tokens_are_the_text(text: str, count: int | None) -> None:
    pieces = split_tokens(text, count)
    assert "".join(pieces) == text
    assert all(pieces)
    if count:
        assert len(pieces) == min(count, len(text))
