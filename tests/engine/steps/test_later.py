"""*browser*: not available yet."""

from tests.engine.stage import play, step


async def test_it_says_so() -> None:
    retry = {"max": 5, "backoff": 0}
    run = await play(step("browser", "W", url="http://x/", retry=retry))
    assert run.statuses == {"W": "FAILED"}
    assert "browser are not available yet" in (run.state.steps["W"].error or "")
    assert run.ended.code == "not_available"
