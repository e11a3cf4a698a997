"""What is kept of the requests of code: with the end of its unit, and no more than there is room
for."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from tests.engine.stage import code, folded, model, play, step
from tests.fetching import FetchingSandbox, Script, get, gets

from insula.engine import fetched
from insula.engine.events import Event, StepEnded, UnitEnded, decode_events, encode_events
from insula.engine.failures import StepFailure
from insula.engine.fetched import Fetched, Fetches, decode_fetched, digest
from insula.engine.ports import Fetch, HttpRequest, HttpResponse, ModelReply, ModelToolCall
from insula.engine.state import RunState, StepState
from insula.kit.json import Raw
from insula.testing import RecordedHttp, ScriptedModels, ScriptedSandbox

HANDLES = ["insulasecret" + digit * 32 for digit in "12"]


def echo(request: HttpRequest) -> HttpResponse:
    """Answer with the address; one that says so is refused."""
    if "refused" in request.url:
        raise StepFailure("nobody listens there", "refused")
    return HttpResponse(200, (("x-a", "1"),), request.url.encode(), request.url + "#final")


def kept(events: list[Event]) -> list[tuple[Any, ...]]:
    """Return what the events hold of requests: of whom, and the bodies or errors."""
    return [
        (
            event.key,
            event.index if isinstance(event, UnitEnded) else None,
            [one.error or one.body for one in decode_fetched(event.fetched)],
        )
        for event in events
        if isinstance(event, StepEnded | UnitEnded) and event.fetched is not None
    ]


async def played(scripts: Mapping[str, Script], *steps: Any, **ports: Any) -> Any:
    loops = ScriptedSandbox(lambda script, scope: scope["index"] < 2 and 1)
    sandbox = FetchingSandbox(scripts, loops)
    return await play(*steps, sandbox=sandbox, http=RecordedHttp(echo), **ports)


async def test_what_a_step_asked_stands_with_its_end() -> None:
    run = await played({"code_A()": gets("http://a/1", "http://a/2")}, code("A"))
    assert kept(run.events) == [("A", None, ["http://a/1", "http://a/2"])]
    assert decode_events(encode_events(run.events)) == run.events
    one = decode_fetched(run.events[-2].fetched)[0]
    assert one == Fetched(
        digest(get("http://a/1")), 200, "http://a/1#final", (("x-a", "1"),), "http://a/1"
    )
    assert folded(run.events).steps["A"].fetched == len(bytes(run.events[-2].fetched))


async def test_a_step_that_asks_nothing_has_nothing_more_in_its_end() -> None:
    run = await played({"code_A()": gets()}, code("A"))
    assert b"fetched" not in encode_events(run.events)
    requested = await played({}, step("http_request", "W", method="GET", url="http://a/"))
    assert b"fetched" not in encode_events(requested.events)


async def test_of_several_attempts_the_last_is_kept() -> None:
    tries: list[int] = []

    async def second(fetch: Fetch, scope: Mapping[str, Any]) -> None:
        tries.append(1)
        await fetch(get(f"http://a/{len(tries)}"))
        if len(tries) < 2:
            raise StepFailure("again", "script")

    retried = code("A", retry={"max": 2, "backoff": 0})
    run = await played({"code_A()": second}, retried)
    assert kept(run.events) == [("A", None, ["http://a/2"])]


async def test_a_failed_step_keeps_what_it_was_answered() -> None:
    run = await played({"code_A()": gets("http://a/1", "http://refused/")}, code("A"))
    assert run.statuses == {"A": "FAILED"}
    assert kept(run.events) == [("A", None, ["http://a/1", "nobody listens there"])]


async def test_each_iteration_has_its_own_and_the_one_that_fails_too() -> None:
    async def ask(fetch: Fetch, scope: Mapping[str, Any]) -> str:
        url = "http://refused/" if scope["index"] else "http://a/0"
        return (await fetch(get(url))).body.decode()

    looped = code("A", loop="index < 2 && 1", code="ask(index)")
    run = await played({"ask(index)": ask}, looped)
    assert kept(run.events) == [
        ("A", 0, ["http://a/0"]),
        ("A", None, ["nobody listens there"]),
    ]


async def test_a_tools_requests_stand_with_its_call() -> None:
    replies = [
        ModelReply("mock", "m", "", tool_calls=(ModelToolCall("c1", "T", {}),)),
        ModelReply("mock", "m", "done"),
    ]
    run = await played(
        {"code_T()": gets("http://a/1")},
        model("M", tools=["T"]),
        code("T"),
        models=ScriptedModels(replies),
    )
    assert run.outputs["M"]["message"] == "done"
    assert kept(run.events) == [("M", None, ["http://a/1"])]


async def test_what_is_not_awaited_is_kept_as_open() -> None:
    async def impatient(fetch: Fetch, scope: Mapping[str, Any]) -> None:
        asking = asyncio.ensure_future(fetch(get("http://a/never")))
        await asyncio.sleep(0)
        asking.cancel()

    async def never(request: HttpRequest) -> HttpResponse:
        await asyncio.Event().wait()
        raise AssertionError

    sandbox = FetchingSandbox({"code_A()": impatient})
    run = await play(code("A"), sandbox=sandbox, http=RecordedHttp(never))
    (ended,) = [event for event in run.events if isinstance(event, StepEnded)]
    assert ended.fetched is not None
    assert decode_fetched(ended.fetched) == [Fetched(digest(get("http://a/never")), open=True)]


@pytest.mark.parametrize(
    ("body", "headers", "whole"),
    [
        (b"x" * fetched.BODY_MAX, (), True),
        (b"x" * (fetched.BODY_MAX + 1), (), False),
        (b"\xff" * fetched.BODY_MAX, (), True),
        (b"\x00" * fetched.BODY_MAX, (), False),  # as JSON it is six times as long
        (b"x", (("x-a", "\ud800"),), False),
        (b"", (), True),
        ("é\r\n".encode(), (("set-cookie", "a"), ("set-cookie", "b")), True),
    ],
)
async def test_an_answer_comes_back_as_it_was_or_is_left_out(
    body: bytes, headers: tuple[tuple[str, str], ...], whole: bool
) -> None:
    fetches = Fetches(RunState(steps={"A": StepState("A", "code", "RUNNING", 1)}), "A")
    answer = HttpResponse(201, headers, body, "http://a/")

    async def given(request: HttpRequest, name: str) -> HttpResponse:
        return answer

    assert await fetches.through(given)(get("http://a/")) is answer
    taken = fetches.taken()
    assert taken is not None
    (one,) = decode_fetched(taken)
    assert one.omitted is not whole
    if whole:
        assert one.response() == answer


async def test_a_step_keeps_so_much_and_a_run_so_much() -> None:
    state = RunState(steps={"A": StepState("A", "code", "RUNNING", 1)})

    async def large(request: HttpRequest, name: str) -> HttpResponse:
        return HttpResponse(200, (), b"x" * 200_000, request.url)

    sizes = []
    for used, of_run in (
        (0, 0),
        (600_000, 0),
        (0, fetched.RUN_MAX - 300_000),
        (0, fetched.RUN_MAX),
    ):
        state.steps["A"].fetched, state.fetched = used, of_run
        fetches = Fetches(state, "A")
        ask = fetches.through(large)
        for number in range(7):
            await ask(get(f"http://a/{number}"))
        taken = fetches.taken()
        found = [] if taken is None else decode_fetched(taken)
        assert taken is None or len(bytes(taken)) <= fetched.STEP_MAX - used
        sizes.append((len(found), sum(not one.omitted for one in found)))
    assert sizes == [(7, 5), (7, 2), (7, 1), (0, 0)]


async def test_what_others_have_taken_meanwhile_is_room_no_more() -> None:
    state = RunState(steps={"A": StepState("A", "code", "RUNNING", 1)})
    fetches = Fetches(state, "A")

    async def some(request: HttpRequest, name: str) -> HttpResponse:
        return HttpResponse(200, (), b"x" * 1000, request.url)

    for number in range(3):
        await fetches.through(some)(get(f"http://a/{number}"))
    state.steps["A"].fetched = fetched.STEP_MAX - 2_500
    taken = fetches.taken()
    assert taken is not None
    assert len(decode_fetched(taken)) == 2
    state.steps["A"].fetched = fetched.STEP_MAX
    assert fetches.taken() is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (get("http://a/"), get(" http://a/ "), True),
        (get("http://a/"), get("http://a/", "get"), True),
        (get("http://a/"), get("http://a/", "POST"), False),
        (get("http://a/"), get("http://a/?b"), False),
        (get("http://a/", body="x"), get("http://a/", body="y"), False),
        (get("http://a/", body=""), get("http://a/"), True),
        (get(f"http://a/{HANDLES[0]}"), get(f"http://a/{HANDLES[1]}"), True),
        (get("http://a/", body=f"é{HANDLES[0]}"), get("http://a/", body=f"é{HANDLES[1]}"), True),
        (get("http://a/", body=f"é{HANDLES[0]}"), get("http://a/", body=f"e{HANDLES[1]}"), False),
        (get("http://a/", body="insulasecret"), get("http://a/"), False),
    ],
)
def test_requests_are_told_apart_by_method_address_and_body(
    one: HttpRequest, other: HttpRequest, same: bool
) -> None:
    assert (digest(one) == digest(other)) is same


def test_what_older_journals_hold_means_what_it_did() -> None:
    old = b'[{"e":"step","at":1,"key":"A","type":"code","attempt":1},'
    old += b'{"e":"end","at":2,"key":"A","status":"COMPLETED","output":1}]'
    events = decode_events(old)
    assert encode_events(events) == old
    assert folded(events).steps["A"].output == Raw(b"1")
    # An older process passes over what it does not know, as this one does.
    newer = old.replace(b'"output":1', b'"output":1,"fetched":[],"unknown":[]')
    assert folded(decode_events(newer)).steps["A"].output == Raw(b"1")
