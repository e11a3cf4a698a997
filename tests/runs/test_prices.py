"""What steps cost that no provider has a price for: so much a result, by their type."""

from pathlib import Path

from tests.runs.platform import child, code, model, open_platform

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
