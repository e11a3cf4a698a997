"""Cancels: from the request to the answer, when everything has stopped; idle and beside 16 runs.

The kinds are those of ``tests/acceptance/kinds.py``, which proves what is only timed here. The
clock is the client's: it includes the client and its connection.
"""

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import uvloop
from tests.acceptance.harness import Caller, Served, clients
from tests.acceptance.kinds import FAMILY, KINDS, MANY_WORDS, Kind, code, http, model, push_family
from tests.acceptance.loopback import Loopback, reserve, serving, url_of

from benchmarks import databases
from benchmarks.client import percentile

BESIDE = 16
PENDING = "pending"


@dataclass(slots=True)
class Times:
    """Milliseconds of one kind, and how many requests came after an answer: there may be none."""

    times: list[float] = field(default_factory=list)
    late: int = 0

    def figures(self) -> dict[str, float]:
        ordered = sorted(self.times)
        shares = {"p50_ms": 0.50, "p95_ms": 0.95, "p99_ms": 0.99}
        found = {name: percentile(ordered, share) for name, share in shares.items()}
        return {"samples": len(ordered), **found, "max_ms": ordered[-1], "late": self.late}


@dataclass(slots=True)
class Bench:
    """A server, an owner's workflows, and the loopback that they call."""

    caller: Caller
    loopback: Loopback
    number: int = 0

    async def kind(self, kind: Kind, samples: int) -> Times:
        """Cancel runs of one kind, one after another."""
        url, times = self.loopback.url, Times()
        if kind is FAMILY:
            workflow_id = await push_family(self.caller, url)
        else:
            workflow_id = await self.caller.push(kind.steps(url))
        path = f"workflows/{workflow_id}/runs"
        for _ in range(samples):
            async with AsyncExitStack() as stack:
                run_id, tag = await self._reached(stack, path, kind)
                await self._cancel(times, f"{path}/{run_id}/cancel", tag)
        return times

    async def _reached(self, stack: AsyncExitStack, path: str, kind: Kind) -> tuple[str, str]:
        self.number += 1
        tag = f"bench-{self.number}"
        body = {"input": {"tag": tag}, "stream": True}
        stream = await stack.enter_async_context(self.caller.stream(path, body))
        run_id = await stream.run_id()
        await kind.reached(stream, self.loopback, tag)
        return run_id, tag

    async def _cancel(self, times: Times, path: str, tag: str) -> None:
        began = time.monotonic()
        answer = await self.caller.ask("POST", path)
        times.times.append((answer.at - began) * 1000)
        if answer.status != 200 or answer.json()["status"] != "CANCELLED":
            raise RuntimeError(f"not cancelled: {answer.status} {answer.body[:500]!r}")
        seen = await self.loopback.barrier()
        times.late += sum(a.tag == tag for a in self.loopback.arrivals[seen:])

    async def pending(self, samples: int) -> Times:
        """Cancel runs that wait in the queue of a house that is full already."""
        hangs = [http("busy", f"{self.loopback.url}/hang/{{{{input.tag}}}}")]
        path = f"workflows/{await self.caller.push(hangs)}/runs"
        times = Times()
        for number in range(samples):
            body = {"input": {"tag": f"queued-{number}"}, "background": True}
            run = await self.caller.ok("POST", path, body)
            if run["status"] != "PENDING":
                raise RuntimeError("the house is not full")
            await self._cancel(times, f"{path}/{run['id']}/cancel", f"queued-{number}")
        return times

    @asynccontextmanager
    async def company(self, count: int, asleep: bool = False) -> AsyncIterator[None]:
        """Keep so many other runs live: streaming, asking, sleeping and waiting ones."""
        url = self.loopback.url
        words = {"replies": [{"text": MANY_WORDS, "token_delay_ms": 20}]}
        alive = (
            model(provider="mock", mock=words),
            code(f"for (;;) {{ await fetch('{url}/ok/c'); await util.sleep(20) }}"),
            code("await util.sleep(3600000)"),
            http("busy", f"{url}/hang/company"),
        )
        alive = alive[2:] if asleep else alive
        ids = [await self.caller.push([{**step, "destinations": []}]) for step in alive]
        body = {"input": {"tag": "company"}, "background": True}
        for number in range(count):
            await self.caller.ok("POST", f"workflows/{ids[number % len(ids)]}/runs", body)
        yield
        await self.caller.ok("POST", "runs/cancel")


async def measure(
    samples: int, kinds: str = "", on: databases.Kind = "sqlite"
) -> dict[str, dict[str, float]]:
    """Return the figures of each kind, of so many samples, idle and beside 16 live runs."""
    found: dict[str, dict[str, float]] = {}
    wanted = [kind for kind in (*KINDS, FAMILY) if kinds in kind.name]
    async with _bench({"INSULA_SANDBOX_MAX": "48"}, on) as bench:
        for beside in (0, BESIDE):
            async with bench.company(beside):
                for kind in wanted:
                    found[_label(kind.name, beside)] = (await bench.kind(kind, samples)).figures()
    for beside in (0, BESIDE) if kinds in PENDING else ():
        # As many runs as there is room for: sleeping ones where the row is the idle one.
        count = beside or 2
        room = {"INSULA_RUNS_MAX": str(count), "INSULA_RUNS_SHARE": "1"}
        async with _bench(room, on) as bench, bench.company(count, asleep=not beside):
            found[_label(PENDING, beside)] = (await bench.pending(samples)).figures()
    return found


def _label(name: str, beside: int) -> str:
    return f"{name}, beside {beside} runs" if beside else name


@asynccontextmanager
async def _bench(settings: dict[str, str], on: databases.Kind) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        reserved = stack.enter_context(reserve())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for name, value in (await stack.enter_async_context(databases.database(on))).items():
            settings = {**settings, f"INSULA_{name.upper()}": value}
        settings = {**settings, "INSULA_PROVIDER_DRIP_URL": f"{url_of(reserved)}/v1"}
        served = Served(Path(folder) / "data", settings)
        await asyncio.to_thread(served.start)
        try:
            async with serving(reserved) as loopback, clients(served) as made:
                yield Bench(await made.app("Acme"), loopback)
        finally:
            await asyncio.to_thread(served.stop)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=200, help="of each kind")
    parser.add_argument("--kinds", default="", metavar="TEXT", help="only those so named")
    parser.add_argument("--on", default="sqlite", choices=databases.KINDS, help="the database")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    gc.freeze()  # the client's own pauses are not what is measured
    gc.disable()
    found = uvloop.run(measure(given.samples, given.kinds, given.on))
    if given.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'kind':<40}{'samples':>8}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'late':>6}")
    for label, figures in found.items():
        columns = "".join(f"{figures[name]:>9.2f}" for name in ("p50_ms", "p95_ms", "p99_ms"))
        print(f"{label:<40}{figures['samples']:>8.0f}{columns}{figures['late']:>6.0f}")


if __name__ == "__main__":
    main()
