"""Plans: made once, and the large ones away from the event loop."""

import asyncio
import threading

import pytest

from insula.engine.document import check
from insula.engine.graph import Plan, plan
from insula.runs import plans
from insula.runs.plans import Plans
from insula.workflows.resolve import Runnable


def runnable(steps: int, version_id: str | None) -> Runnable:
    body = {"steps": [{"type": "code", "key": f"s{i}", "code": "return 1"} for i in range(steps)]}
    document, _ = check(body)
    assert document is not None
    return Runnable(
        workflow_id="work_1",
        workflow_app_id="app_1",
        version_id=version_id,
        version=None if version_id is None else 1,
        body=b"{}",
        document=document,
        retention=None,
        enabled=True,
        open=True,
        caller_limit=None,
        name="",
    )


@pytest.mark.parametrize("version_id", [None, "workv_1"])
@pytest.mark.parametrize(("steps", "away"), [(3, False), (300, True)])
async def test_a_large_run_is_laid_out_once_and_away_from_the_loop(
    monkeypatch: pytest.MonkeyPatch, version_id: str | None, steps: int, away: bool
) -> None:
    threads = []

    def watched(*given: object) -> Plan:
        threads.append(threading.current_thread())
        return plan(*given)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(plans, "plan", watched)
    wanted = runnable(steps, version_id)
    made = Plans()
    laid_out = await made.lay_out(wanted, None)
    assert made.plan_of(wanted, None) is laid_out
    assert await asyncio.create_task(made.lay_out(wanted, None)) is laid_out
    assert [thread is not threading.main_thread() for thread in threads] == [away]
