"""Streams: contiguous ids, exact resumption, and readers who come early, late, or go away."""

import asyncio
import gc
from typing import Any

import pytest
from starlette.types import Message
from tests.runs.platform import Caller, Platform, code, model, open_platform, parse

from insula.kit.json import encode

ASKING = [
    {"tool_calls": [{"name": "ask", "input": {}}], "credits": 2},
    {"text": "hello", "tokens": 1, "credits": 3},
]
ASKED = [
    {"tool_calls": [{"name": "add", "input": {"n": 1}}], "credits": 2},
    {"text": "inside", "tokens": 1, "credits": 3},
]


async def rich(platform: Platform) -> str:
    """Make a workflow of code, a model whose tool is another with a tool, a loop and a branch."""
    branch = {
        "type": "branch",
        "key": "choose",
        "conditions": {"yes": {"condition": "true", "destinations": ["end"], "order": 0}},
        "else": ["other"],
    }
    return await platform.acme.publish(
        code("first", 'return {"x": 1}', "say"),
        model("say", ASKING, "again", provider={"tools": ["ask"]}),
        model("ask", ASKED, provider={"tools": ["add"]}),
        code("add", "return args"),
        model(
            "again", [{"text": "word", "tokens": 1}], "choose", loop='index < 2 ? {"i": 1} : null'
        ),
        branch,
        code("end", 'return {"result": "done"}'),
        code("other", "return 0"),
    )


class Wire:
    """A client of the application that may go away; ``sent`` are the bodies it was sent."""

    def __init__(
        self, caller: Caller, method: str, path: str, body: object = None, key: str | None = None
    ) -> None:
        self._key = key
        self._caller = caller
        self._method = method
        self._path = path
        self._body = b"" if body is None else encode(body)
        self._asked = False
        self._gone = asyncio.Event()
        self.sent: list[bytes] = []
        self.status = 0
        self.blocked = asyncio.Event()
        self.blocked.set()
        self.heard = asyncio.Event()
        self.told = asyncio.Event()

    async def hears(self, number: int) -> None:
        """Wait until so many events were sent."""
        async with asyncio.timeout(5):
            while b"".join(self.sent).count(b"\nevent: ") < number:
                self.heard.clear()
                await self.heard.wait()

    def leave(self) -> None:
        self._gone.set()

    async def serve(self, asgi: Any) -> None:
        path, _, query = f"/apps/c{self._path}".partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self._method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [
                (b"authorization", f"Bearer {self._caller.key}".encode()),
                (b"content-type", b"application/json"),
                *([] if self._key is None else [(b"idempotency-key", self._key.encode())]),
            ],
            "client": ("127.0.0.1", 1),
            "server": ("test", 80),
            "state": {},
        }
        await asgi(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.told.set()
        await self.blocked.wait()
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message.get("body"):
            self.sent.append(message["body"])
            self.heard.set()


async def listening(platform: Platform) -> None:
    """Wait until somebody listens to the journal, which is a few turns of the loop away."""
    async with asyncio.timeout(5):
        while not platform.services.journal._heard:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.001)


async def test_the_transcript_of_a_run(platform: Platform) -> None:
    flow = await rich(platform)
    told = await platform.acme.stream(f"/workflows/{flow}/runs", {"stream": True})
    assert [one.id for one in told] == list(range(1, len(told) + 1))
    assert [one.event for one in told].count("run") == 2
    first, last = told[0], told[-1]
    assert (first.event, first.data["status"], first.data["output"]) == ("run", "RUNNING", {})
    assert (last.event, last.data["status"], last.data["result"]) == ("run", "COMPLETED", "done")
    path = f"/workflows/{flow}/runs/{last.data['id']}"
    assert last.data == await platform.acme.ok("GET", path)
    chunks = [one.data for one in told if one.event == "chunk"]
    texts = [chunk for chunk in chunks if "calls" not in chunk]
    assert {key for chunk in texts for key in chunk} == {"key", "status", "output"}
    assert texts[0]["output"] == {"model": "m", "provider": "mock", "message": "hello"}
    assert [chunk["output"].get("index") for chunk in texts[1:]] == [0, 1]
    assert all(chunk["output"]["model"] == "m" for chunk in chunks)
    assert {chunk["output"]["message"] for chunk in chunks if "calls" in chunk} == {""}
    calls = [chunk["calls"][0] for chunk in chunks if "calls" in chunk]
    assert [(call["key"], call["status"]) for call in calls] == [
        ("ask", "RUNNING"),
        ("add", "RUNNING"),
        ("add", "COMPLETED"),
        ("ask", "COMPLETED"),
    ]
    for key in ("first", "say", "again", "choose", "end", "other"):
        steps = [
            (at, one.data["status"])
            for at, one in enumerate(told)
            if one.event in ("step", "chunk") and one.data["key"] == key
        ]
        assert steps[0][1] in ("RUNNING", "SKIPPED")
        assert steps[-1][1] in ("COMPLETED", "SKIPPED")
        assert all(status == "RUNNING" for _, status in steps[:-1])


async def test_every_split_of_a_stream_is_exact(platform: Platform) -> None:
    flow = await rich(platform)
    whole = await platform.acme.stream(f"/workflows/{flow}/runs", {"stream": True})
    path = f"/workflows/{flow}/runs/{whole[-1].data['id']}/stream"
    for number in range(len(whole)):
        rest = await platform.acme.stream(path, headers={"last-event-id": str(number)})
        assert [one.text for one in rest] == [one.text for one in whole[number:]]
    rest = await platform.acme.stream(f"{path}?from=3")
    assert [one.text for one in rest] == [one.text for one in whole[3:]]
    assert [one.text for one in await platform.acme.stream(path)] == [one.text for one in whole]
    for number in (len(whole), len(whole) + 5):
        over = await platform.acme.ask("GET", path, headers={"last-event-id": str(number)})
        assert (over.status_code, over.content) == (204, b"")
    for wrong in ("x", "-1", "1" * 30):
        named = ("header", "last-event-id"), ("query", "from")
        in_header = await platform.acme.ask("GET", path, headers={"last-event-id": wrong})
        in_query = await platform.acme.ask("GET", path, params={"from": wrong})
        for (where, name), refused in zip(named, (in_header, in_query), strict=True):
            assert refused.status_code == 400
            (error,) = refused.json()["errors"]
            assert (error["validation"], error["path"]) == (where, [name])


async def test_a_live_stream_and_its_two_parts_agree(platform: Platform) -> None:
    flow = await platform.acme.make(
        code("a", "return 1", "b"), code("b", "wait(g)", "c"), code("c", "return 3")
    )
    live = Wire(platform.acme, "POST", f"/workflows/{flow}/runs", {"stream": True})
    serving = asyncio.ensure_future(live.serve(platform.insula.asgi))
    await live.hears(4)
    (row,) = await platform.rows("SELECT id FROM runs")
    path = f"/workflows/{flow}/runs/{row.id}/stream"
    joined = Wire(platform.acme, "GET", f"{path}?from=2")
    fold = Wire(platform.acme, "GET", path)
    others = [asyncio.ensure_future(one.serve(platform.insula.asgi)) for one in (joined, fold)]
    await asyncio.gather(joined.hears(1), fold.hears(1))
    platform.gate("g").opened.set()
    await asyncio.gather(serving, *others)
    whole = b"".join(live.sent).split(b"\n\n")
    assert b"".join(joined.sent).split(b"\n\n")[1:] == whole[3:]
    folded = b"".join(fold.sent).split(b"\n\n")
    assert folded[1].startswith(b"id: 4\nevent: run\n")
    assert b'"b":{"status":"RUNNING"' in folded[1]
    assert folded[2:] == whole[5:]


async def test_a_closed_workflow_s_stream_is_contiguous_too(platform: Platform) -> None:
    flow = await rich(platform)
    await platform.acme.ok("PATCH", f"/workflows/{flow}", {"open": False})
    path = f"/workflows/discover/{flow}/runs"
    whole = await platform.globex.stream(path, {"stream": True})
    assert [one.id for one in whole] == list(range(1, len(whole) + 1))
    assert {one.data["key"] for one in whole if one.event == "step"} == {"end", "other"}
    assert "say" not in str([one.data for one in whole])
    resume = f"{path}/{whole[-1].data['id']}/stream?from=2"
    assert [one.text for one in await platform.globex.stream(resume)] == [
        one.text for one in whole[2:]
    ]


@pytest.mark.parametrize("opened", [True, False])
async def test_ids_stay_as_they_were_where_the_workflow_is_closed_or_opened(
    platform: Platform, opened: bool
) -> None:
    flow = await platform.acme.publish(
        code("a", "return 1", "b", "out"),
        code("out", "return 0"),
        code("b", "wait(g)", "c"),
        code("c", "return 3"),
        open=not opened,
    )
    path = f"/workflows/discover/{flow}/runs"
    whole = Wire(platform.globex, "POST", path, {"stream": True})
    serving = asyncio.ensure_future(whole.serve(platform.insula.asgi))
    await whole.hears(3 if opened else 6)
    (row,) = await platform.rows("SELECT id FROM runs")
    await platform.acme.ok("PATCH", f"/workflows/{flow}", {"open": opened})
    platform.gate("g").opened.set()
    async with asyncio.timeout(5):
        await serving
    told = parse(b"".join(whole.sent).decode().partition("\n\n")[2])
    for one in told:
        rest = await platform.globex.stream(
            f"{path}/{row.id}/stream", headers={"last-event-id": str(one.id - 1)}
        )
        assert [(each.id, each.event, each.data.get("key")) for each in rest] == [
            (each.id, each.event, each.data.get("key"))
            for each in told[one.id - 1 :]
            if opened or each.event == "run" or each.data["key"] in ("out", "c")
        ]
        assert (rest[-1].event, rest[-1].data["status"]) == ("run", "COMPLETED")
        assert ("b" in rest[-1].data["output"]) == opened
    over = await platform.globex.ask("GET", f"{path}/{row.id}/stream?from={told[-1].id}")
    assert over.status_code == 204


async def test_a_run_that_waits_is_followed_to_its_end(tmp_path: Any) -> None:
    async with open_platform(tmp_path, runs_max=1) as platform:
        flow = await platform.acme.make(code("a", "wait(g)"))
        await platform.acme.run(flow, background=True)
        waiting = await platform.acme.run(flow, background=True)
        reader = Wire(platform.acme, "GET", f"/workflows/{flow}/runs/{waiting['id']}/stream")
        serving = asyncio.ensure_future(reader.serve(platform.insula.asgi))
        await reader.heard.wait()
        await platform.reached("g")
        platform.gate("g").opened.set()
        async with asyncio.timeout(5):
            await serving
        blocks = b"".join(reader.sent).split(b"\n\n")[1:-1]
        assert blocks[0].startswith(b"id: 0\nevent: run\n")
        assert b'"status":"PENDING"' in blocks[0]
        assert [block.split(b"\n")[0] for block in blocks[1:]] == [
            b"id: %d" % number for number in range(1, 5)
        ]
        path = f"/workflows/{flow}/runs/{waiting['id']}"
        again = await platform.acme.stream(f"{path}/stream?from=0")
        assert [one.text.encode() for one in again] == blocks[1:]
        assert again[-1].data == await platform.acme.ok("GET", path)


@pytest.mark.parametrize("query", ["", "?from=0"])
@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_replay_that_waits_is_not_told_as_running(
    tmp_path: Any, query: str, cancelled: bool
) -> None:
    async with open_platform(tmp_path, runs_max=1) as platform:
        flow = await platform.acme.make(code("a", "return 1", "b"), code("b", "return 2"))
        first = await platform.acme.run(flow)
        busy = await platform.acme.make(code("a", "wait(g)"))
        await platform.acme.run(busy, background=True)
        await platform.reached("g")
        path = f"/workflows/{flow}/runs/{first['id']}/replay"
        waiting = await platform.acme.ok("POST", path, {"stepKey": "b", "background": True})
        path = f"/workflows/{flow}/runs/{waiting['id']}"
        reader = Wire(platform.acme, "GET", f"{path}/stream{query}")
        serving = asyncio.ensure_future(reader.serve(platform.insula.asgi))
        await listening(platform)
        if cancelled:
            await platform.acme.ok("POST", f"{path}/cancel")
        platform.gate("g").opened.set()
        async with asyncio.timeout(5):
            await serving
        await platform.idle()
        told = parse(b"".join(reader.sent).decode().partition("\n\n")[2])
        if not query:
            fold = told.pop(0)
            assert (fold.id, fold.data["status"]) == (0, "PENDING")
            assert fold.data["output"] == waiting["output"]
        assert [one.id for one in told] == list(range(1, len(told) + 1))
        assert told[0].data["status"] == ("PENDING" if cancelled else "RUNNING")
        assert (told[0].data["started_at"] is None) == cancelled
        assert told[-1].data["status"] == ("CANCELLED" if cancelled else "COMPLETED")
        again = await platform.acme.stream(f"{path}/stream?from=0")
        assert [one.text for one in again] == [one.text for one in told]


async def test_a_reader_who_goes_away_leaves_nothing(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    reader = Wire(platform.acme, "POST", f"/workflows/{flow}/runs", {"stream": True})
    serving = asyncio.ensure_future(reader.serve(platform.insula.asgi))
    await platform.reached("g")
    await listening(platform)
    reader.leave()
    async with asyncio.timeout(5):
        await serving
    assert not platform.services.journal._heard
    assert len(platform.services.live) == 1
    platform.gate("g").opened.set()
    await platform.idle()
    assert await platform.rows("SELECT status FROM runs") == [("COMPLETED",)]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_caller_who_goes_away_cancels_if_it_said_so(
    platform: Platform, stream: bool
) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    body = {"stream": stream, "on_disconnect": "cancel"}
    caller = Wire(platform.acme, "POST", f"/workflows/{flow}/runs", body)
    serving = asyncio.ensure_future(caller.serve(platform.insula.asgi))
    await platform.reached("g")
    caller.leave()
    async with asyncio.timeout(5):
        await serving
    await platform.idle()
    rows = await platform.rows("SELECT status, cancel_requested_by FROM runs")
    assert rows == [("CANCELLED", "disconnect")]
    assert not platform.services.journal._heard


async def test_a_caller_who_goes_away_before_the_first_byte_cancels_too(
    platform: Platform,
) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    body = {"stream": True, "on_disconnect": "cancel"}
    caller = Wire(platform.acme, "POST", f"/workflows/{flow}/runs", body)
    caller.blocked.clear()  # nothing of the answer is ever taken
    serving = asyncio.ensure_future(caller.serve(platform.insula.asgi))
    await asyncio.gather(platform.reached("g"), caller.told.wait())
    serving.cancel()
    await asyncio.wait([serving])
    await platform.idle()
    assert await platform.rows("SELECT status FROM runs") == [("CANCELLED",)]


async def test_a_waiting_caller_who_goes_away_is_noticed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insula.runs.requests._PATIENCE", 0.01)
    flow = await platform.acme.make(code("a", "wait(g)"))
    caller = Wire(platform.acme, "POST", f"/workflows/{flow}/runs", {})
    serving = asyncio.ensure_future(caller.serve(platform.insula.asgi))
    await platform.reached("g")
    caller.leave()
    async with asyncio.timeout(5):
        await serving
    assert await platform.rows("SELECT status FROM runs") == [("RUNNING",)]
    platform.gate("g").opened.set()
    await platform.idle()


async def test_a_reader_who_is_too_slow_is_closed_and_may_resume(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insula.journal.subscription.EVENTS_MAX", 4)
    steps = [code(f"s{n}", f"wait(g{n})", f"s{n + 1}") for n in range(4)]
    flow = await platform.acme.make(code("a", "wait(g)", "s0"), *steps, code("s4", "return 1"))
    body = {"stream": True, "on_disconnect": "cancel"}
    reader = Wire(platform.acme, "POST", f"/workflows/{flow}/runs", body)
    serving = asyncio.ensure_future(reader.serve(platform.insula.asgi))
    await platform.reached("g")
    await reader.heard.wait()
    reader.blocked.clear()
    platform.gate("g").opened.set()
    (live,) = platform.services.live
    for n in range(4):
        await platform.reached(f"g{n}")
        await live.log.stored()  # each in a batch of its own
        platform.gate(f"g{n}").opened.set()
    await platform.idle()
    reader.blocked.set()
    await serving
    blocks = b"".join(reader.sent).split(b"\n\n")[1:-1]
    (row,) = await platform.rows("SELECT id, status FROM runs")
    assert row.status == "COMPLETED"
    path = f"/workflows/{flow}/runs/{row.id}/stream"
    rest = await platform.acme.stream(f"{path}?from={len(blocks)}")
    told = [*blocks, *(one.text.encode() for one in rest)]
    assert told == [one.text.encode() for one in await platform.acme.stream(path)]
    assert rest


async def test_a_step_larger_than_what_is_kept_for_a_reader_is_streamed(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insula.journal.subscription.BYTES_MAX", 1000)
    large = {"x": {"type": "string", "order": 0}}
    flow = await platform.acme.make(
        {"type": "input", "key": "form", "input": large, "destinations": ["b"]},
        code("b", "wait(g)"),
    )
    body = {"stream": True, "input": {"x": "y" * 5000}}
    reader = Wire(platform.acme, "POST", f"/workflows/{flow}/runs", body)
    serving = asyncio.ensure_future(reader.serve(platform.insula.asgi))
    await reader.hears(4)
    platform.gate("g").opened.set()
    async with asyncio.timeout(5):
        await serving
    told = parse(b"".join(reader.sent).decode())
    assert (told[-1].event, told[-1].data["status"]) == ("run", "COMPLETED")
    assert [one.id for one in told] == [1, 2, 3, 4, 5, 6]


async def test_a_reader_who_takes_nothing_any_more_is_let_go_and_has_not_gone_away(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("insula.web.sse.STALLED", 0.05)
    flow = await platform.acme.make(code("a", "wait(g)", "b"), code("b", "wait(h)"))
    body = {"stream": True, "on_disconnect": "cancel"}
    reader = Wire(platform.acme, "POST", f"/workflows/{flow}/runs", body)
    serving = asyncio.ensure_future(reader.serve(platform.insula.asgi))
    await platform.reached("g")
    await reader.heard.wait()
    reader.blocked.clear()
    platform.gate("g").opened.set()
    async with asyncio.timeout(5):
        await asyncio.wait([serving])
    platform.gate("h").opened.set()
    await platform.idle()
    assert await platform.rows("SELECT status FROM runs") == [("COMPLETED",)]


async def test_an_erased_run_has_its_end_left(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    run = await platform.acme.run(flow, retention=0)
    path = f"/workflows/{flow}/runs/{run['id']}"
    (told,) = await platform.acme.stream(f"{path}/stream")
    assert told.data == await platform.acme.ok("GET", path)
    (late,) = await platform.acme.stream(f"{path}/stream?from=2")
    assert late.text == told.text
    over = await platform.acme.ask("GET", f"{path}/stream?from={told.id}")
    assert over.status_code == 204


async def test_the_stream_of_a_run_that_is_erased_with_its_end_is_whole(
    platform: Platform,
) -> None:
    flow = await platform.acme.make(code("a", "return 7"))
    told = await platform.acme.stream(
        f"/workflows/{flow}/runs", {"stream": True, "retention": 0, "input": {"x": 1}}
    )
    assert [one.event for one in told] == ["run", "step", "step", "run"]
    assert (told[-1].data["result"], told[-1].data["input"]) == (7, {"x": 1})


async def test_strangers_find_no_stream(platform: Platform) -> None:
    flow = await platform.acme.publish(code("a", "return 1"))
    run = await platform.acme.run(flow)
    for path in (
        f"/workflows/{flow}/runs/{run['id']}/stream",
        f"/workflows/discover/{flow}/runs/{run['id']}/stream",
    ):
        assert (await platform.globex.ask("GET", path)).status_code == 404


async def test_generators_are_closed_and_not_left_to_be_collected(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "wait(g)"))
    run = await platform.acme.run(flow, background=True)
    path = f"/workflows/{flow}/runs/{run['id']}/stream"
    reader = Wire(platform.acme, "GET", path)
    gc.disable()
    try:
        serving = asyncio.ensure_future(reader.serve(platform.insula.asgi))
        await reader.heard.wait()
        await platform.reached("g")
        await listening(platform)
        reader.leave()
        await serving
        assert not platform.services.journal._heard
    finally:
        gc.enable()
    platform.gate("g").opened.set()
    await platform.idle()
