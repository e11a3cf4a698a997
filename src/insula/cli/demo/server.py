"""A server for the demo: ``insula serve`` as a process of its own, ended whatever happens."""

import asyncio
import os
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from insula.cli.failures import CommandFailed, ExitCode
from insula.cli.kept_keys import read_server

_START_DEADLINE = 30.0
_STOP_DEADLINE = 10.0
_LOOK_AGAIN = 0.02
_TAIL = 20


@dataclass(frozen=True, slots=True)
class Server:
    """Where the demo's server listens, its process, and the key that makes apps there."""

    url: str
    pid: int
    admin_key: str
    folder: Path


@asynccontextmanager
async def serving(allowed: str) -> AsyncIterator[Server]:
    """Run a server in a temporary folder whose steps may call ``allowed`` and nothing else here.

    Raises:
        CommandFailed: it does not start; or the block failed. The end of its log is in the words.
    """
    with tempfile.TemporaryDirectory(prefix="insula-demo-") as name:
        folder = Path(name)
        log = folder / "server.log"
        admin_key = f"insadm_{secrets.token_urlsafe(32)}"
        process = await _start(folder / "data", log, admin_key, allowed)
        try:
            url = await _ready(process, folder / "data")
            yield Server(url, process.pid, admin_key, folder)
        except CommandFailed as failure:
            message = f"{failure.message}\n\nThe end of the server's log:\n{_tail(log)}"
            raise CommandFailed(message, failure.code, failure.hint) from failure
        finally:
            await _stop(process)


async def _start(
    data: Path, log: Path, admin_key: str, allowed: str
) -> "asyncio.subprocess.Process":
    # The settings of whoever runs the demo are for another server.
    environment = {n: v for n, v in os.environ.items() if not n.startswith("INSULA_")}
    environment |= {"INSULA_ADMIN_KEY": admin_key, "INSULA_EGRESS_ALLOW": allowed}
    arguments = ("serve", "--host", "127.0.0.1", "--port", "0", "--data", str(data))
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "insula.cli.demo.bound", str(os.getpid()), *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the demo, which then stops it in order
        )


async def _ready(process: "asyncio.subprocess.Process", data: Path) -> str:
    """Wait until the server has written down where it listens."""
    try:
        async with asyncio.timeout(_START_DEADLINE):
            while (server := read_server(data)) is None:
                if process.returncode is not None:
                    raise CommandFailed(
                        f"The server ended at once, with exit code {process.returncode}.",
                        ExitCode.FAILED,
                        "`insula doctor` says what this machine lacks.",
                    )
                await asyncio.sleep(_LOOK_AGAIN)
    except TimeoutError as error:
        raise CommandFailed(
            f"The server did not start within {_START_DEADLINE:.0f} s.", ExitCode.UNREACHABLE
        ) from error
    return server.address


async def _stop(process: "asyncio.subprocess.Process") -> None:
    """Ask it to end; kill it if it does not."""
    if process.returncode is None:
        process.terminate()
    ending = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait({ending}, timeout=_STOP_DEADLINE)
    finally:
        if process.returncode is None:
            process.kill()
            await ending


def _tail(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines()[-_TAIL:]
    return "\n".join(f"  {line}" for line in lines) or "  (empty)"
