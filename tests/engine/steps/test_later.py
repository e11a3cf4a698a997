"""*browser* and *service*: not available yet."""

from tests.engine.stage import play, step


async def test_they_say_so() -> None:
    retry = {"max": 5, "backoff": 0}
    page = step("browser", "W", "S", url="http://x/", throw_on_error=False, retry=retry)
    run = await play(page, step("service", "S", service={}))
    assert run.statuses == {"W": "FAILED", "S": "FAILED"}
    assert "browser are not available yet" in (run.state.steps["W"].error or "")
    assert run.ended.code == "not_available"
