"""A sandbox whose server is gone is found, whoever its parent is."""

import asyncio
import subprocess
import sys

from tests.acceptance.processes import sandboxes

_SERVER = 4_000_000_001
"""No process has this number."""


async def test_a_sandbox_of_a_dead_server_is_found() -> None:
    command = ["-c", "input()", "insula.adapters.sandbox.zygote", "quickjs", str(_SERVER)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        assert sandboxes({_SERVER}) == {process.pid}
        assert sandboxes({_SERVER + 1}) == set()
    finally:
        process.kill()
        await process.wait()
    assert sandboxes({_SERVER}) == set()
