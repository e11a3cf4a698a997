"""An installation with every kind of run in it, made by real runs, for the commands of ``db``."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from tests.collections.stage import collection, rested, rule
from tests.runs.platform import Caller, child, code, open_platform


@dataclass(frozen=True)
class Installation:
    """A data folder that nobody uses; one run in it was under way when its server stopped."""

    folder: Path
    callers: tuple[Caller, Caller]
    workflow_id: str
    waiting_id: str
    runs: int


def make(folder: Path) -> Installation:
    """Make one: runs that completed, failed, were cancelled, skipped, children, files, a draft."""
    return asyncio.run(_make(folder))


async def _make(folder: Path) -> Installation:
    async with open_platform(folder) as platform:
        acme, globex = platform.acme, platform.globex
        plain = await acme.publish(code("one", "return input", "two"), code("two", "return 2"))
        failing = await acme.make(code("one", "fail(badly)"))
        skipping = await acme.make(code("one", "return 1", conditional="return false"))
        parent = await acme.make(child("below", plain))
        waiting = await acme.make(code("one", "return 1", "two"), code("two", "wait(gate)"))
        for number in range(3):
            await acme.run(
                plain, input={"n": number, "text": "ä\u2028✓"}, identifier=f"id {number}"
            )
        await globex.discover(plain, input={"from": "globex"})
        await acme.run(plain, workflow_version_id="draft")
        await acme.run(failing)
        await acme.run(skipping)
        await acme.run(parent)
        cancelled = await acme.run(waiting, background=True)
        await platform.reached("gate")
        await acme.ok("POST", f"/workflows/{waiting}/runs/{cancelled['id']}/cancel")
        await acme.ok(
            "POST",
            "/files",
            {"file": {"type": "base64", "data": "aGVsbG8=", "name": "hello.txt"}},
        )
        await _collect(acme)
        platform.gate("gate").reached.clear()
        left = await acme.run(waiting, background=True)
        await platform.reached("gate")
        runs = (await platform.rows("SELECT count(*) FROM runs"))[0][0]
        return Installation(folder, (acme, globex), waiting, left["id"], runs)


async def _collect(caller: Caller) -> None:
    """Make collections, one of them empty, one deleted; with records that rest, and one that was
    deleted."""
    path = await collection(caller, await rule(caller, "fine"))
    made = [(await caller.ok("POST", f"{path}/records", {"name": str(n)}))["id"] for n in range(3)]
    await caller.ok("DELETE", f"{path}/records/{made[0]}")
    given = {"rules": {"fine": {"text": "yes"}}, "run": "all"}
    judged = await caller.ok("POST", f"{path}/records", given)
    await rested(caller, f"{path}/records/{judged['id']}")
    await collection(caller)
    await caller.ok("DELETE", await collection(caller))


def goes_on(made: Installation, folder: Path, url: str | None = None) -> str:
    """Start a server in a folder, let what was under way end, and return its status."""
    return asyncio.run(_goes_on(made, folder, url))


async def _goes_on(made: Installation, folder: Path, url: str | None) -> str:
    given = {} if url is None else {"database_url": url}
    async with open_platform(folder, made.callers, **given) as platform:
        platform.gate("gate").opened.set()
        await platform.idle()
        path = f"/workflows/{made.workflow_id}/runs/{made.waiting_id}"
        run = await platform.acme.ok("GET", path)
        return str(run["status"])
