"""Display blocks of a run: delivered with its result, to its parent too."""

from tests.runs.platform import Platform, code


async def test_display_blocks_come_with_the_run(platform: Platform) -> None:
    acme = platform.acme
    flow = await acme.make(code("a", '{"result": 7, "display": ["**x**", 3], "n": 1}'))
    ran = await acme.run(flow)
    assert (ran["result"], ran["display"]) == (7, {"display": ["**x**"]})
    above = await acme.make({"type": "workflow", "key": "w", "workflow_id": flow})
    output = (await acme.run(above))["output"]["w"]["output"]
    assert (output["result"], output["display"]) == (7, {"display": ["**x**"]})
