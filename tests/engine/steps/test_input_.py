"""*input*: hands the run's input on."""

from tests.engine.stage import play, step

from insula.kit.json import Raw


async def test_every_input_step_gives_the_runs_input() -> None:
    steps = [step("input", "IN", "MORE", input={}), step("input", "MORE", input={})]
    run = await play(*steps, input=Raw(b'{"q":[1,2]}'))
    assert run.outputs == {"IN": {"q": [1, 2]}, "MORE": {"q": [1, 2]}}
    assert run.statuses == {"IN": "COMPLETED", "MORE": "COMPLETED"}
