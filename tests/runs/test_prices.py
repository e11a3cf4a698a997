"""What steps cost that no provider has a price for: so much a result, by their type."""

from pathlib import Path

from tests.runs.platform import child, code, model, open_platform

from insula.engine.credits import MOST
from insula.engine.events import RunEnded, RunStarted, StepEnded, StepStarted, encode_events
from insula.kit.json import raw
from insula.runs.reclaim import remove_old_rows

PRICES = "code=2,http_request=0.5,workflow=10"


async def test_every_result_has_its_step_s_price(tmp_path: Path) -> None:
    async with open_platform(tmp_path, step_prices=PRICES) as platform:
        acme = platform.acme
        inner = await acme.make(code("z", "return 1"))
        asked = {"name": "tool", "input": {}, "id": "call_1"}
        replies = [{"tool_calls": [asked], "credits": 3}, {"text": "done", "credits": 4}]
        flow = await acme.make(
            {"type": "http_request", "key": "h", "method": "GET", "url": "http://a.test"},
            code("loop", "return 1", loop="index < 3 ? 1 : null"),
            child("down", inner),
            child("each", inner, loop="index < 2 ? 1 : null"),
            code("fails", "fail(words)", throw_on_error=False),
            code("skipped", "return 1", conditional="false"),
            model("m", replies, provider={"tools": ["tool"]}),
            code("tool", "return 1"),
        )
        run = await acme.run(flow)
        assert run["status"] == "COMPLETED"
        totals = {key: step["total"] for key, step in run["usage"]["steps"].items()}
        assert totals == {"h": 0.5, "loop": 6, "down": 12, "each": 24, "m": 9}
        assert run["usage"]["steps"]["m"]["calls"] == [{"id": "call_1", "total": 2}]
        assert run["usage"]["total"] == sum(totals.values())
        # What is kept of it costs nothing again, nor does what a test plays.
        path = f"/workflows/{flow}/runs/{run['id']}/replay"
        again = await acme.ok("POST", path, {"stepKey": "h"})
        assert again["usage"]["total"] == 0.5
        test = await acme.ok("POST", f"/runs/{run['id']}/test", {})
        done = await acme.ok("POST", f"/workflows/{flow}/tests/{test['id']}/runs", {})
        assert (done["status"], done["run"]["usage"]["total"]) == ("PASSED", 0)


async def test_what_costs_too_much_costs_the_most_there_is(tmp_path: Path) -> None:
    """Two steps of the most: their sum is no more, in whatever shows or stores it."""
    async with open_platform(tmp_path) as platform:
        acme = platform.acme
        dear = [{"text": "x", "credits": MOST}]
        inner = await acme.make(model("m", dear, "n"), model("n", dear))
        outer = await acme.make(child("c", inner))
        run = await acme.run(outer)
        assert (run["status"], run["usage"]["total"]) == ("COMPLETED", MOST)
        assert [row.credits for row in await platform.rows("SELECT credits FROM runs")] == [
            MOST
        ] * 2
        refused = await acme.run(await acme.make(model("m", [{"credits": MOST * 2}])))
        assert (refused["status"], refused["error_code"]) == ("FAILED", "input")
        assert "credits" in refused["error"]


async def test_a_run_whose_price_was_stored_as_infinity_is_shown(tmp_path: Path) -> None:
    async with open_platform(tmp_path) as platform:
        acme = platform.acme
        flow = await acme.make(model("m", [{"text": "x", "credits": 7}]))
        run = await acme.run(flow)
        events = encode_events(
            [
                RunStarted(1),
                StepStarted(1, "m", "model"),
                StepEnded(2, "m", "COMPLETED", raw({"message": "x"}), credits=7.0),
                RunEnded(2, "COMPLETED", "m"),
            ]
        ).replace(b'"credits":7.0', b'"credits":null')
        await platform.change("UPDATE runs SET credits = 9e999, seq = 4")
        await platform.change("UPDATE run_data SET events = :events", events=events)
        path = f"/workflows/{flow}/runs"
        shown = await acme.ok("GET", f"{path}/{run['id']}")
        assert (shown["status"], shown["usage"]["total"]) == ("COMPLETED", 0)
        assert [one["id"] for one in await acme.ok("GET", path)] == [run["id"]]
        assert (await acme.stream(f"{path}/{run['id']}/stream"))[-1].event == "run"
        # Erased, the row alone tells what it has cost; then the total of its day.
        await acme.ok("DELETE", f"{path}/{run['id']}")
        assert (await acme.ok("GET", f"{path}/{run['id']}"))["usage"]["total"] == MOST
        await platform.change("UPDATE runs SET id = 'run_1111' || substr(id, 9), created_at = 1")
        await remove_old_rows(platform.services)
        assert await platform.rows("SELECT credits FROM daily_totals") == [(MOST,)]
