"""Clients that live through the chaos: they ask again until they are answered, and write
down whatever they are told.

What they do follows from a seed; when they do it, from how the nodes answer.
"""

import asyncio
import hashlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from tests.acceptance.harness import Answer, Caller
from tests.acceptance.loopback import Loopback
from tests.chaos.asking import Asking, Listener
from tests.chaos.history import FINAL, Claimed, History, Kept, Stopped, Told

_MANY = 8

Run = dict[str, Any]
Deed = Callable[[], Awaitable[None]]


class Known(NamedTuple):
    """A run that this client started."""

    kind: str
    path: str
    run_id: str


class Lane:
    """What a client does one after another. ``callers`` are the same app at each node."""

    def __init__(
        self,
        name: str,
        history: History,
        seed: int,
        callers: Sequence[Caller],
        paths: dict[str, str],
        loopback: Loopback,
    ) -> None:
        self.history = history
        self._choice = random.Random(f"{seed}/{name}/what")
        self._asking = Asking(callers, random.Random(f"{seed}/{name}/where"), history)
        self._prefix = name
        self._paths = paths
        self._loopback = loopback
        self._serial = 0
        self._known: list[Known] = []

    async def live(self, until: asyncio.Event) -> None:
        """Do one thing after another until told to stop."""
        deeds: list[tuple[int, Deed]] = [
            (30, self._plain),
            (26, self._many),
            (8, self._background),
            (8, self._streamed),
            (8, self._cancelled),
            (4, self._hanging),
            (4, self._replayed),
            (4, self._repeated),
            (6, self._look_back),
            (2, self._upload),
        ]
        weights = [weight for weight, _ in deeds]
        while not until.is_set():
            ((_, deed),) = self._choice.choices(deeds, weights)
            await deed()

    @property
    def waits(self) -> str:
        """What was asked for last, and how that went."""
        return self._asking.waits

    async def finish(self) -> None:
        """Read every run once more, now that they have ended."""
        last: dict[str, Run] = {}
        for known in dict.fromkeys(self._known):
            last[known.run_id] = await self._read(known)
        for stream in self.history.streams:
            stream.read = last.get(stream.run_id, stream.read)

    # What it does

    async def _plain(self) -> None:
        kind = self._choice.choices(("light", "chain", "fetch", "family"), (30, 3, 2, 1))[0]
        run = await self._start(kind)
        if kind == "light" and run["status"] == "COMPLETED":
            given = run["input"]["n"]
            if run["result"] != {"n": given}:
                self.history.odd.append(f"{run['id']}: {given} gave {run['result']}")

    async def _many(self) -> None:
        """Some light ones at the same time."""
        await asyncio.gather(*(self._start("light") for _ in range(_MANY)))

    async def _background(self) -> None:
        kind = self._choice.choice(("loop", "chain", "words", "family"))
        await self._start(kind, background=True)

    async def _streamed(self) -> None:
        kind = self._choice.choice(("words", "chain", "loop", "family", "light"))
        path = self._paths[kind]
        listener = Listener(self._asking, path, {"n": self._name()}, self._name())
        stream = await listener.hear()
        self._known.append(Known(kind, path, stream.run_id))

    async def _cancelled(self) -> None:
        kind = self._choice.choice(("patient", "patient", "family", "words"))
        wait = self._choice.random() * 0.4
        run = await self._start(kind, background=True)
        await asyncio.sleep(wait)
        await self._cancel(self._paths[kind], run["id"])

    async def _hanging(self) -> None:
        wait = self._choice.random() * 0.2
        run = await self._start("hang", background=True)
        await asyncio.sleep(wait)
        await self._cancel(self._paths["hang"], run["id"])

    async def _replayed(self) -> None:
        done = [known for known in self._known if known.kind == "chain"]
        if not done:
            return
        known = self._choice.choice(done)
        step = self._choice.choice("abc")
        if (await self._read(known))["status"] not in FINAL:
            return
        answer = await self._keyed(f"{known.path}/{known.run_id}/replay", {"stepKey": step})
        self._known.append(Known("replay", known.path, answer.json()["id"]))

    async def _repeated(self) -> None:
        """Send a request twice at the same time, and once afterwards: it is one run."""
        body, key = {"input": {"n": self._name()}}, self._name()
        path = self._paths["light"]
        both = await asyncio.gather(*(self._keyed(path, body, key) for _ in range(2)))
        again = await self._keyed(path, body, key)
        answers = [answer.json() for answer in (*both, again)]
        if any(answer != answers[0] for answer in answers):
            self.history.odd.append(f"{key}: the answers to one request differ: {answers}")
        self._known.append(Known("light", path, answers[0]["id"]))

    async def _look_back(self) -> None:
        if self._known:
            await self._read(self._choice.choice(self._known))

    async def _upload(self) -> None:
        content = f"{self._name()} " * 2_000
        file = {"data": content, "type": "text/plain", "name": "x.txt", "encoding": "raw"}
        headers = {"idempotency-key": self._name()}
        _, answer = await self._asking.insist("POST", "files", {"file": file}, headers=headers)
        digest = hashlib.sha256(content.encode()).hexdigest()
        self.history.kept.append(Kept(answer.at, answer.json()["id"], digest))

    # How it asks

    def _name(self) -> str:
        self._serial += 1
        return f"{self._prefix}-{self._serial}"

    async def _start(self, kind: str, **more: Any) -> Run:
        path = self._paths[kind]
        answer = await self._keyed(path, {"input": {"n": self._name()}, **more})
        run: Run = answer.json()
        self._known.append(Known(kind, path, run["id"]))
        return run

    async def _keyed(self, path: str, body: Any, key: str | None = None) -> Answer:
        """Start what must be started once, however often it is asked for."""
        key = key or self._name()
        headers = {"idempotency-key": key}
        asked, answer = await self._asking.insist("POST", path, body, headers=headers)
        run_id = self._tell(asked, answer)["id"]
        self.history.claimed.append(Claimed(answer.at, f"{path} {key}", run_id))
        return answer

    async def _read(self, known: Known) -> Run:
        return self._tell(*await self._asking.insist("GET", f"{known.path}/{known.run_id}"))

    async def _cancel(self, path: str, run_id: str) -> None:
        asked, answer = await self._asking.insist("POST", f"{path}/{run_id}/cancel?verbose=all")
        run = self._tell(asked, answer)
        if run["status"] not in FINAL:
            self.history.odd.append(f"{run_id}: a cancel was answered with {run['status']}")
        if run["status"] == "CANCELLED":
            await self._loopback.barrier()
            told = (run.get("cancellation") or {}).get("interrupted", [])
            uncertain = frozenset(entry["key"] for entry in told if entry["effect_possible"])
            self.history.stopped.append(Stopped(time.monotonic(), run_id, uncertain))

    def _tell(self, asked: float, answer: Answer) -> Run:
        run: Run = answer.json()
        self.history.told.append(Told(asked, answer.at, run["id"], run["status"]))
        return run


class Client:
    """A client with some lanes, which do not wait for each other."""

    def __init__(
        self,
        number: int,
        seed: int,
        callers: Sequence[Caller],
        paths: dict[str, str],
        loopback: Loopback,
    ) -> None:
        self.history = History(number)
        self._lanes = [
            Lane(f"c{number}{lane}", self.history, seed, callers, paths, loopback)
            for lane in "abcd"
        ]

    async def live(self, until: asyncio.Event) -> None:
        """Do one thing after another, in each lane, until told to stop."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(lane.live(until))

    def waits(self) -> list[str]:
        """Return what each lane asked for last."""
        return [lane.waits for lane in self._lanes]

    async def finish(self) -> None:
        """Read every run once more, now that they have ended."""
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(lane.finish())
