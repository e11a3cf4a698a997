"""The figures of runs, and when the server is ready."""

from prometheus_client.parser import text_string_to_metric_families
from tests.runs.platform import Platform, code


async def figures(platform: Platform) -> dict[str, float]:
    answer = await platform.client.get("/metrics")
    assert answer.status_code == 200
    return {
        sample.name + "".join(f":{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_runs_are_counted(platform: Platform) -> None:
    flow = await platform.acme.make(code("a", "return 1"))
    await platform.acme.run(flow)
    slow = await platform.acme.make(code("a", "wait(g)"))
    run = await platform.acme.run(slow, background=True)
    await platform.reached("g")
    shown = await figures(platform)
    assert shown["insula_runs_live"] == 1
    assert shown["insula_runs_queued"] == 0
    assert shown["insula_runs_started_total"] == 2
    assert shown["insula_runs_ended_total:COMPLETED"] == 1
    assert shown["insula_sandbox_workers"] == 1
    await platform.acme.ok("POST", f"/workflows/{slow}/runs/{run['id']}/cancel")
    await platform.acme.ok("POST", f"/workflows/{slow}/runs/{run['id']}/cancel")
    shown = await figures(platform)
    assert shown["insula_runs_ended_total:CANCELLED"] == 1
    assert shown["insula_run_cancel_seconds_count"] == 1
    assert shown["insula_runs_live"] == 0


async def test_the_server_says_what_is_not_ready(platform: Platform) -> None:
    answer = await platform.client.get("/readyz")
    assert answer.status_code == 200
    asked = set(answer.json()["checks"]) - {"signals"}  # which are a cluster's alone
    assert asked == {"runs", "database", "sandbox", "queue"}
    platform.sandbox.alive = 0
    platform.services.swept_at -= 60
    answer = await platform.client.get("/readyz")
    assert answer.status_code == 503
    assert {entry["path"][0] for entry in answer.json()["errors"]} == {"sandbox", "queue"}
