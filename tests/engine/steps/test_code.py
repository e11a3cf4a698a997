"""*code*: its return value is the output."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from tests.engine.stage import code, play
from tests.fetching import FetchingSandbox, Script, get

from insula.engine.failures import StepFailure
from insula.engine.ports import Evaluated, Evaluation, Fetch, HttpRequest, HttpResponse
from insula.kit.json import Raw
from insula.testing import UNDEFINED, RecordedHttp


@pytest.mark.parametrize(("value", "output"), [(UNDEFINED, None), (None, None), (0, 0), ({}, {})])
async def test_what_it_returns(value: object, output: object) -> None:
    run = await play(code("A"), table={"code_A()": value})
    assert run.outputs == {"A": output}
    assert run.state.steps["A"].output is not None


async def test_an_empty_one_gives_null_without_a_sandbox() -> None:
    run = await play({**code("A"), "code": " \n"})
    assert (run.statuses, run.outputs, run.scripts) == ({"A": "COMPLETED"}, {"A": None}, [])


async def test_only_what_it_names_is_handed_over() -> None:
    looks = {**code("B"), "code": "look(A, input, GONE, args)"}
    run = await play(code("A", "B"), looks, code("GONE"), input=Raw(b'{"q":1}'))
    place = run.scripts.index("look(A, input, GONE, args)")
    evaluation = run.ports.sandbox.evaluations[place]  # type: ignore[attr-defined]  # the fake's
    assert set(evaluation.scope) == {"A", "input"}
    assert evaluation.absent == ("GONE",)
    assert evaluation.app_id == "app_1"
    assert evaluation.lane == "quickjs"


async def test_what_needs_the_other_engine_gets_it() -> None:
    run = await play({**code("A"), "code": "new Intl.NumberFormat().format(1)"})
    assert run.ports.sandbox.evaluations[0].lane == "v8"  # type: ignore[attr-defined]  # the fake's


class Fetching:
    """A sandbox whose code fetches two pages, and says what it logged."""

    async def evaluate(self, evaluation: Evaluation, activity: Any) -> Evaluated:
        assert evaluation.fetch is not None
        for _ in range(2):
            await evaluation.fetch(HttpRequest("GET", "http://x/"))
        return Evaluated((Raw(b"1"),), Raw(b'["hello"]'))


async def test_each_request_has_a_key_of_its_own_the_same_in_every_attempt() -> None:
    left = [StepFailure("reset", "network")]

    def answer(request: HttpRequest) -> HttpResponse:
        if len(http.requests) == 2 and left:
            raise left.pop()
        return HttpResponse(200, (), b"", request.url)

    http = RecordedHttp(answer)
    again = code("A", retry={"max": 1, "backoff": 0})
    run = await play(again, sandbox=Fetching(), http=http)
    keys = [request.idempotency_key for request in http.requests]
    assert run.statuses == {"A": "COMPLETED"}
    assert keys[:2] == keys[2:]
    assert keys[0] != keys[1]
    assert run.state.steps["A"].all_logs() == Raw(b'["hello"]')


def branches(slow: str) -> Script:
    """Make a script that twice sends two requests at the same time as two others; one of them is
    answered last."""

    async def script(fetch: Fetch, scope: Mapping[str, Any]) -> None:
        first_is_over = asyncio.Event()

        async def branch(name: str) -> None:
            if name == slow:
                await first_is_over.wait()
            for number in range(2):
                await fetch(get(f"http://{name}/{number}", "POST", "x"))
            await fetch(get("http://both/", "POST", "x"))
            first_is_over.set()

        await asyncio.gather(branch("a"), branch("b"))

    return script


async def test_requests_at_the_same_time_have_the_same_keys_in_whatever_order_they_are_sent() -> (
    None
):
    told = []
    for slow in ("a", "b"):
        http = RecordedHttp(lambda request: HttpResponse(200, (), b"", request.url))
        sandbox = FetchingSandbox({"code_A()": branches(slow)})
        await play(code("A"), sandbox=sandbox, http=http)
        told.append([(request.url, request.idempotency_key) for request in http.requests])
    assert told[0] != told[1]
    assert set(told[0]) == set(told[1])
    assert len({key for _, key in told[0]}) == 6
