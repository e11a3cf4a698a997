"""A real server process for the benchmarks, and what can be seen of it from outside."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

HERE = Path(__file__).parent
ADMIN = "insadm_of_the_benchmarks"
_STARTING = 30.0


@dataclass
class Server:
    """A server that listens on ``port``, in a process group of its own."""

    process: asyncio.subprocess.Process
    port: int
    folder: Path
    http: httpx.AsyncClient

    async def app(self, name: str) -> str:
        """Make an app; return its key."""
        headers = {"authorization": f"Bearer {ADMIN}"}
        answer = await self.http.post("/apps", json={"name": name}, headers=headers)
        answer.raise_for_status()
        return str(answer.json()["key"])

    async def call(self, key: str, method: str, path: str, body: Any = None) -> Any:
        """Call an operation below the key's app."""
        headers = {"authorization": f"Bearer {key}"}
        answer = await self.http.request(method, f"/apps/c{path}", json=body, headers=headers)
        if answer.status_code != 200:
            raise ValueError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json()

    async def deploy(self, key: str, workflow: dict[str, Any], publish: bool = False) -> str:
        """Create and deploy a workflow; return its id."""
        made = await self.call(key, "POST", "/workflows", workflow)
        await self.call(key, "POST", f"/workflows/{made['id']}/versions", {})
        if publish:
            await self.call(key, "PATCH", f"/workflows/{made['id']}", {"discoverable": True})
        return str(made["id"])

    def rss(self) -> float:
        """Return the memory of the whole process group in MiB, shared pages counted once (PSS)."""
        return sum(_pss(pid) for pid in group_of(self.process.pid)) / 1024

    def cpu(self) -> float:
        """Return the CPU seconds that the process group has used so far, dead members aside."""
        ticks = os.sysconf("SC_CLK_TCK")
        return sum(_ticks(pid) for pid in group_of(self.process.pid)) / ticks

    def kill(self) -> None:
        """Kill the server itself, as a crash would."""
        self.process.send_signal(signal.SIGKILL)


def group_of(leader: int) -> list[int]:
    """Return the processes of a group, by its leader."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ProcessLookupError):
                if os.getpgid(int(entry)) == leader:
                    found.append(int(entry))
    return found


def _pss(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def _ticks(pid: int) -> int:
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    return 0


@contextlib.asynccontextmanager
async def serving(folder: Path, **settings: str) -> AsyncIterator[Server]:
    """Run ``insula serve`` on a free port until the block is left."""
    environment = {
        **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
        "INSULA_ADMIN_KEY": ADMIN,
        "INSULA_EGRESS_ALLOW": "127.0.0.1",
        **{f"INSULA_{name.upper()}": value for name, value in settings.items()},
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "insula", "serve", "--data", str(folder), "--port", "0"),
        env=environment,
        start_new_session=True,
        stdout=asyncio.subprocess.DEVNULL if "QUIET" in os.environ else None,
    )
    try:
        async with asyncio.timeout(_STARTING):
            port = await _port(process, folder)
        base = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=base, timeout=120, trust_env=False) as http:
            yield Server(process, port, folder, http)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _port(process: asyncio.subprocess.Process, folder: Path) -> int:
    """Wait until the server has written where it listens."""
    told = folder / "insula.lock"
    while True:
        if process.returncode is not None:
            raise ValueError(f"the server ended with {process.returncode}")
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            found = json.loads(told.read_text())
            if found["pid"] == process.pid and found["address"]:
                return int(found["address"].rpartition(":")[2])
        await asyncio.sleep(0.02)


def light() -> dict[str, Any]:
    """Return the light workflow."""
    loaded: dict[str, Any] = yaml.safe_load((HERE / "light.yaml").read_text())
    return loaded


LIGHT_INPUT = {"input": {"text": "x" * 1000}}


async def drive_apart(port: int, data: bytes, callers: int, warm_up: float, seconds: float) -> Any:
    """Drive a request from a client process of its own; return its figures."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HERE / "client.py"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    asked = {
        "port": port,
        "request": data.decode("latin-1"),
        "callers": callers,
        "warm_up": warm_up,
        "seconds": seconds,
    }
    out, _ = await process.communicate(json.dumps(asked).encode())
    if process.returncode:
        raise ValueError("the client failed")
    return json.loads(out)
