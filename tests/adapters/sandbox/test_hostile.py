"""Every hostile program ends in its own failure, and nothing beside it notices."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from insula.adapters.sandbox.pool import SandboxPool
from insula.engine.failures import StepFailure
from insula.engine.ports import Lane

from .conftest import SMALL, activity, descriptors, evaluation
from .hostile import ATTACKS, WEBASSEMBLY, Hostile
from .pools import open_pool

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[SandboxPool]:
    """One for all, so that each attack is also one upon those that follow."""
    async with open_pool() as pool:
        yield pool


async def end_of(pool: SandboxPool, attack: Hostile, lane: Lane) -> tuple[str, bytes | None]:
    limits = replace(SMALL, wall=attack.wall, cpu=attack.cpu)
    try:
        done = await pool.evaluate(
            evaluation(attack.script, lane=lane, limits=limits, waits=attack.waits, input="5"),
            activity(),
        )
    except StepFailure as failure:
        return (failure.code if 0 < len(failure.message) < 5_000 else "no message"), None
    (output,) = done.outputs
    return "ok", None if output is None else bytes(output)


async def still_serves(pool: SandboxPool, lane: Lane) -> None:
    done = await pool.evaluate(
        evaluation("input + 1", lane=lane, app_id="app_b", input="1"), activity()
    )
    assert bytes(done.outputs[0] or b"") == b"2"
    stats = pool.stats()
    assert (stats.busy, stats.waiting) == (0, 0)
    assert stats.alive <= 5


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_attack(pool: SandboxPool, lane: Lane, attack: Hostile) -> None:
    before = descriptors()
    code, output = await end_of(pool, attack, lane)
    assert code in attack.codes, (code, output)
    if attack.value is not None:
        assert output == attack.value
    await still_serves(pool, lane)
    assert descriptors() < before + 20


@pytest.mark.parametrize("attack", WEBASSEMBLY, ids=lambda attack: attack.name)
async def test_attack_on_v8(pool: SandboxPool, attack: Hostile) -> None:
    code, _ = await end_of(pool, attack, "v8")
    assert code in attack.codes
    await still_serves(pool, "v8")
