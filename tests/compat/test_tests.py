"""Byte for byte what clients get of tests, expectations, their runs and their counts."""

from tests.compat.golden import compare
from tests.runs.platform import Platform, code

START = {"type": "input", "key": "i", "input": {"n": {"type": "number"}}, "destinations": ["a"]}


async def test_a_test_is_made_and_judged(platform: Platform) -> None:
    acme = platform.acme
    body = {"name": "W", "steps": [START, code("a", "return input")]}
    flow = (await acme.ok("POST", "/workflows", body))["id"]
    base = f"/workflows/{flow}/tests"
    compare("tests_stats_none.json", (await acme.ask("GET", f"{base}/stats")).content)
    shared = await acme.ask("POST", f"{base}/expectations", {"name": "n", "script": "result.n"})
    compare("expectation.json", shared.content)
    items = [
        {"key": "own", "name": "Own", "script": "a.output.n"},
        {"key": "shared", "name": "S", "expectation_id": shared.json()["id"]},
        {"key": "not", "name": "Not", "script": "false"},
        {"key": "breaks", "name": "Breaks", "script": "fail(words)"},
    ]
    made = await acme.ask("POST", base, {"name": "T", "input": {"n": 7}, "expectations": items})
    compare("test_draft.json", made.content)
    one = f"{base}/{made.json()['id']}"
    compare("test_failed.json", (await acme.ask("POST", f"{one}/runs", {})).content)
    await acme.ok("PATCH", one, {"expectations": items[:2]})
    compare("test_passed.json", (await acme.ask("POST", f"{one}/runs", {})).content)
    compare("test_list.json", (await acme.ask("GET", base)).content)
    compare("tests_stats.json", (await acme.ask("GET", f"{base}/stats")).content)
    compare("test_stream.txt", (await acme.ask("GET", f"{base}/stream")).content)
    compare("test_cancelled_not_running.json", (await acme.ask("POST", f"{one}/cancel")).content)
    begun = await acme.ask("POST", f"{base}/runs", {"execute_failed_only": True})
    compare("tests_started_none.json", begun.content)
    compare("tests_cancelled_none.json", (await acme.ask("POST", f"{base}/cancel")).content)


async def test_a_test_that_runs_is_cancelled(platform: Platform) -> None:
    acme = platform.acme
    body = {"name": "W", "steps": [code("a", "wait(g)")]}
    flow = (await acme.ok("POST", "/workflows", body))["id"]
    base = f"/workflows/{flow}/tests"
    one = f"{base}/{(await acme.ok('POST', base, {'name': 'T'}))['id']}"
    await acme.ok("POST", f"{one}/runs", {"execute_async": True})
    await platform.reached("g")
    compare("test_cancelled.json", (await acme.ask("POST", f"{one}/cancel")).content)


async def test_a_run_becomes_a_test(platform: Platform) -> None:
    acme = platform.acme
    flow = await acme.make(START, code("a", "return input"))
    run = await acme.run(flow, input={"n": 1})
    made = await acme.ask("POST", f"/runs/{run['id']}/test", {"name": "From a run"})
    compare("test_recorded.json", made.content)
