"""*http_request*: one request; any answer completes the step."""

import asyncio
import threading
import tracemalloc
from typing import Any

import pytest
from tests.engine.stage import code, play, step

from insula.engine.failures import StepFailure
from insula.engine.ports import HttpRequest, HttpResponse
from insula.engine.steps import http_request
from insula.engine.steps.http_request import answer
from insula.kit.json import Raw
from insula.testing import ListRecorder, RecordedHttp


def request(**more: Any) -> dict[str, Any]:
    return step("http_request", "H", **{"url": "http://x/", **more})


DEEP = b"[" * 201 + b"]" * 201


def answering(status: int = 200, body: bytes = b"", kind: str = "", **headers: str) -> RecordedHttp:
    told = [*headers.items(), *([("Content-Type", kind)] if kind else [])]
    return RecordedHttp(lambda asked: HttpResponse(status, tuple(told), body, asked.url))


async def sent(step: dict[str, Any], **more: Any) -> HttpRequest:
    http = answering()
    run = await play(step, http=http, **more)
    assert run.statuses == {"H": "COMPLETED"}, run.ended.error
    return http.requests[0]


async def output(http: RecordedHttp) -> Any:
    return (await play(request(), http=http)).outputs["H"]


async def test_any_answer_completes_it() -> None:
    assert await output(answering(404, b"gone", "text/plain", ETag="x")) == {
        "ok": False,
        "status": 404,
        "headers": {"etag": "x", "content-type": "text/plain"},
        "body": "gone",
    }
    assert (await output(answering(204)))["ok"] is True


@pytest.mark.parametrize(
    ("body", "kind", "parsed"),
    [
        (b' {"a": [1]}\n', "application/json; charset=utf-8", {"a": [1]}),
        (b"\xef\xbb\xbf[1]", "application/problem+json", [1]),
        (b"{oops", "application/json", "{oops"),
        (b"[1e999]", "application/json", "[1e999]"),
        (DEEP, "application/json", DEEP.decode()),
        (b'"' + b"x" * 300_000 + b'"', "application/json", "x" * 300_000),
        (b"", "application/json", ""),
        (b'{"a":1}', "text/plain", '{"a":1}'),
        ("é".encode(), "", "é"),
        ("é".encode("latin-1"), "text/html; charset=ISO-8859-1", "é"),
        (b"\xff", "text/plain", "\ufffd"),
        (b"x", "text/plain; charset=zlib_codec", "x"),
    ],
)
async def test_bodies(body: bytes, kind: str, parsed: object) -> None:
    assert (await output(answering(200, body, kind)))["body"] == parsed


async def test_headers_of_one_name_are_joined() -> None:
    http = RecordedHttp(lambda asked: HttpResponse(200, (("A", "1"), ("a", "2")), b"", asked.url))
    assert (await output(http))["headers"] == {"a": "1, 2"}


async def test_it_takes_of_the_callers_share() -> None:
    assert (await sent(request())).app_id == "app_1"


async def test_no_answer_fails_it() -> None:
    def refused(asked: HttpRequest) -> HttpResponse:
        raise StepFailure("Nobody listens at 127.0.0.1:9", "refused")

    run = await play(request(), http=RecordedHttp(refused))
    assert (run.ended.status, run.ended.code) == ("FAILED", "refused")


async def test_its_settings_are_filled_in() -> None:
    asked = await sent(
        request(
            method="POST",
            url=" http://x/{{input.path}}?q={{input.q}} ",
            headers={"X-A": "{{input.q}}!"},
            body='{"q": "{{input.q}}", "n": {{input.n}}}',
        ),
        input=Raw(b'{"path":"a/b","q":"\\"&","n":[1]}'),
    )
    assert asked.method == "POST"
    assert asked.url == "http://x/a%2Fb?q=%22%26"
    assert asked.headers == (("X-A", '"&!'), ("content-type", "application/json"))
    assert asked.body == b'{"q": "\\"&", "n": [1]}'
    assert asked.timeout == 60


@pytest.mark.parametrize("given", [b"{}", b'{"note":null}', b'{"note":""}'])
async def test_a_body_that_is_one_hole_of_nothing_is_empty(given: bytes) -> None:
    asked = await sent(request(method="POST", body="{{input.note}}"), input=Raw(given))
    assert (asked.body, asked.headers) == (b"", ())


async def test_expressions_are_evaluated_at_once() -> None:
    step = request(url="http://x/{{a()}}", headers={"X": "{{b()}}"}, body="{{c()}}")
    http = answering()
    run = await play(step, http=http, table={"c()": {"deep": True}})
    assert len(run.ports.sandbox.evaluations) == 1  # type: ignore[attr-defined]  # the fake's
    assert http.requests[0].url == "http://x/a%28%29"
    assert http.requests[0].headers[0] == ("X", "b()")
    assert http.requests[0].body == b'{"deep":true}'


async def test_a_whole_url_may_be_one_value() -> None:
    asked = await sent(request(url="{{input.u}}"), input=Raw(b'{"u":"https://y/?a=b c"}'))
    assert asked.url == "https://y/?a=b c"


async def test_headers_may_be_a_template_that_yields_an_object() -> None:
    asked = await sent(request(headers="{{input.h}}"), input=Raw(b'{"h":{"A":"x","B":1}}'))
    assert asked.headers == (("A", "x"), ("B", "1"))
    assert (await sent(request(headers="{{input.none}}"))).headers == ()


@pytest.mark.parametrize("given", ['"text"', "[1]", '{"A": {"deep": 1}}', '{"A": null}'])
async def test_other_headers_are_refused(given: str) -> None:
    run = await play(request(headers="{{input.h}}"), input=Raw(f'{{"h":{given}}}'.encode()))
    assert (run.ended.status, run.ended.code) == ("FAILED", "input")


async def test_a_header_with_a_line_break_is_refused() -> None:
    run = await play(request(headers={"A": "{{input.a}}"}), input=Raw(b'{"a":"x\\r\\nB: y"}'))
    assert (run.ended.status, run.ended.code) == ("FAILED", "input")


async def test_a_content_type_of_ones_own_stays() -> None:
    asked = await sent(request(headers={"CONTENT-TYPE": "text/x"}, body="{}"))
    assert asked.headers == (("CONTENT-TYPE", "text/x"),)


async def test_the_request_goes_out_after_its_start_is_stored() -> None:
    class Slow(ListRecorder):
        async def stored(self) -> None:
            assert type(self.events[-1]).__name__ == "StepStarted"
            assert not http.requests
            checked.append(True)

    http, checked = answering(), []
    await play(request(), http=http, recorder=Slow())
    assert checked == [True]


async def test_a_template_that_does_not_parse_fails_it() -> None:
    run = await play(request(url="http://x/{{"))
    assert (run.ended.code, "template" in (run.ended.error or "")) == ("script", True)


async def test_what_it_answered_is_seen_by_the_next() -> None:
    seen: dict[str, Any] = {}
    steps = [request(destinations=["A"]), {**code("A"), "code": "look(H)"}]
    await play(*steps, http=answering(201), table={"look(H)": seen.update})
    assert seen["H"]["output"]["status"] == 201


def test_nothing_is_built_of_an_answer() -> None:
    response = HttpResponse(
        200,
        (("content-type", "application/json"),),
        b"[" + b"[]," * 900_000 + b"[]]",
        "http://x/",
    )
    tracemalloc.start()
    try:
        answered = answer(response)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(answered["body"], Raw)
    assert peak < len(response.body) + 30 * 1024 * 1024


@pytest.mark.parametrize("sending", [True, False])
async def test_the_loop_goes_on_beside_a_large_body(
    monkeypatch: pytest.MonkeyPatch, sending: bool
) -> None:
    """It is looked at in a thread, which here waits for the loop."""
    loop, gate = asyncio.get_running_loop(), threading.Event()

    def after_the_loop(body: bytes) -> None:
        loop.call_soon_threadsafe(gate.set)
        assert gate.wait(30)

    monkeypatch.setattr(http_request, "check", after_the_loop)
    body = b"[" + b"1," * 200_000 + b"1]"
    if sending:
        asked = await sent(request(body="{{input.list}}"), input=Raw(b'{"list":%b}' % body))
        assert (asked.body, asked.headers) == (body, (("content-type", "application/json"),))
    else:
        found = await output(answering(200, body, "application/json"))
        assert len(found["body"]) == 200_001
