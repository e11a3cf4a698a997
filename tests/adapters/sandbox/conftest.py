"""One running pool a test, small limits, and an evaluation in one line."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from insula.adapters.sandbox.pool import SandboxPool
from insula.engine.ports import Activity, Evaluation, Fetch, Lane, Limits
from insula.kit.json import Raw

from .pools import open_pool

MIB = 1024 * 1024
SMALL = Limits(cpu=0.15, wall=3.0, memory=32 * MIB, output=64 * 1024, logs=16 * 1024)

MakeEvaluation = Callable[..., Evaluation]


@pytest.fixture(params=["quickjs", "v8"])
def lane(request: pytest.FixtureRequest) -> Lane:
    """Each engine in turn."""
    return "v8" if request.param == "v8" else "quickjs"


@pytest.fixture
async def pool() -> AsyncIterator[SandboxPool]:
    """A started pool; at its end nothing of it may be left."""
    async with open_pool() as pool:
        yield pool


def evaluation(
    *scripts: str,
    lane: Lane = "quickjs",
    app_id: str = "app_a",
    code_app_id: str = "",
    limits: Limits = SMALL,
    waits: bool = False,
    condition: bool = False,
    absent: tuple[str, ...] = (),
    fetch: Fetch | None = None,
    **scope: str,
) -> Evaluation:
    """Make an evaluation; further keywords are names in scope with their JSON text."""
    return Evaluation(
        app_id=app_id,
        scripts=scripts,
        scope={name: Raw(text.encode()) for name, text in scope.items()},
        absent=absent,
        lane=lane,
        waits=waits,
        asked="item" if condition else "value",
        limits=limits,
        fetch=fetch,
        code_app_id=code_app_id,
    )


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until something holds that no event tells of."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # see above
            await asyncio.sleep(0.001)


def is_running(pid: int) -> bool:
    """Say whether a process is neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def activity() -> Activity:
    """Make an activity as the engine does."""
    return Activity("code", 0)


def descriptors() -> int:
    """Count this process's open file descriptors."""
    return len(list(Path("/proc/self/fd").iterdir()))
