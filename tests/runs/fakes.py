"""A sandbox in this process, for tests of runs: scripts of a few words, which wait for the test."""

import asyncio
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from insula.adapters.sandbox.pool import Stats
from insula.engine.failures import StepFailure
from insula.engine.ports import Activity, Evaluated, Evaluation, HttpRequest, HttpResponse
from insula.kit import json
from insula.testing import UNDEFINED, answered

_CALL = re.compile(r"(wait|stubborn|fail)\((\w*)\)")
_PATH = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_SAME = re.compile(r"index < (\d+) \? (.+) : null")


@dataclass(slots=True)
class Gate:
    """Where a script waits: ``reached`` is set by it, ``opened`` by the test."""

    reached: asyncio.Event
    opened: asyncio.Event


class FakeSandbox:
    """Evaluates: JSON; a path (``input.a``, ``step.output``, ``index``); ``wait(GATE)``, which can
    be cancelled; ``stubborn(GATE)``, which cannot; ``fail(words)``; ``index < 3 ? JSON : null``.

    Stands in the place of ``SandboxPool`` and takes what that takes.
    """

    def __init__(self, **_: Any) -> None:
        self.gates: defaultdict[str, Gate] = defaultdict(
            lambda: Gate(asyncio.Event(), asyncio.Event())
        )
        self.evaluated: list[str] = []
        self.limits: list[Any] = []
        self.logs: json.Raw | None = None
        """What every script tells its console."""
        self.alive = 1

    async def start(self) -> None:
        return

    async def close(self) -> None:
        return

    def stats(self) -> Stats:
        return Stats(alive=self.alive, busy=0, waiting=0, killed=0, missing=())

    async def evaluate(self, evaluation: Evaluation, activity: Activity) -> Evaluated:
        self.limits.append(evaluation.limits)
        outputs = []
        for script in evaluation.scripts:
            text = script.strip().removeprefix("return ").rstrip("; ")
            self.evaluated.append(text)
            value = await self._value(text, evaluation.scope)
            outputs.append(answered(evaluation, value))
        return Evaluated(tuple(outputs), self.logs)

    async def _value(self, text: str, scope: Mapping[str, Any]) -> Any:
        if (same := _SAME.fullmatch(text)) is not None:
            return json.decode(same[2]) if json.decode(scope["index"]) < int(same[1]) else None
        if (call := _CALL.fullmatch(text)) is not None:
            return await self._call(*call.groups())
        if _PATH.fullmatch(text) and text not in ("true", "false", "null"):
            return _looked_up(text.split("."), scope)
        return json.decode(text)

    async def _call(self, name: str, word: str) -> Any:
        if name == "fail":
            raise StepFailure(f"It failed: {word}", "script")
        gate = self.gates[word]
        gate.reached.set()
        while True:
            try:
                await gate.opened.wait()
            except asyncio.CancelledError:
                if name == "stubborn" and not gate.opened.is_set():
                    continue
                raise
            return word


def _looked_up(path: list[str], scope: Mapping[str, Any]) -> Any:
    if path[0] not in scope:
        return UNDEFINED
    value = json.decode(scope[path[0]])
    for name in path[1:]:
        value = value.get(name)
    return value


class FakeHttp:
    """Counts requests; those to ``…/wait/GATE`` never get an answer."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []
        self.arrived = asyncio.Event()

    async def send(self, request: HttpRequest, activity: Activity) -> HttpResponse:
        self.requests.append(request)
        self.arrived.set()
        activity.effect_possible = True
        if "/wait" in request.url:
            await asyncio.Event().wait()
        activity.effect_possible = False
        return HttpResponse(200, (("content-type", "application/json"),), b'{"n":1}', request.url)

    async def close(self) -> None:
        return
