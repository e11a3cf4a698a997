"""What a step has in its hands while it runs: scope, units, and the world through ports."""

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from insula.engine.crew import Crew
from insula.engine.document import AnyStep
from insula.engine.events import Event
from insula.engine.failures import StepFailure, timed_out
from insula.engine.ports import (
    Activity,
    Asked,
    Aspect,
    Evaluated,
    Evaluation,
    Fetch,
    HttpRequest,
    HttpResponse,
    Limits,
    Ports,
)
from insula.engine.render import Renderer
from insula.engine.scope import Scope
from insula.engine.scripts import CANNOT_WAIT, Script, analyse
from insula.engine.state import Address, joined_logs
from insula.kit.json import Raw


@dataclass(frozen=True, slots=True)
class Result:
    """What a unit gave: its output, logs and price, and what its code was answered."""

    output: Raw
    logs: Raw | None = None
    credits: float = 0.0
    fetched: Raw | None = None


@dataclass(slots=True)
class StepContext:
    """One step, or one iteration of it, or one call of it as a tool.

    ``key`` is the step that the events are about: of a tool call, the model step. ``address`` names
    the unit, ``emit`` folds and records an event.
    """

    key: str
    step: AnyStep
    scope: Scope
    ports: Ports
    crew: Crew
    emit: Callable[[Event], None]
    activity: Activity
    kinds: "Mapping[str, Callable[[StepContext], Awaitable[Result]]]"
    address: Address = (None, None, None)
    tool: str | None = None
    """The name under which a model calls the step."""
    effects: Counter[str] = field(default_factory=Counter)
    """How many effects of each name this attempt has had: the last part of their idempotency
    keys."""
    told: list[Raw] = field(default_factory=list)
    """Logs of conditionals, loops and templates, until they are stored with a result."""

    def at(self, address: Address, scope: Scope | None = None) -> "StepContext":
        """Return the same step's context at another of its units."""
        return replace(self, address=address, scope=scope or self.scope, effects=Counter())

    def begin_attempt(self) -> None:
        """Forget what the last attempt did: the same effects have the same keys in every one."""
        self.effects = Counter()
        self.activity.parts.clear()
        self.activity.since = self.ports.clock()

    async def condition(self, source: str) -> bool:
        """Evaluate a conditional; say whether it holds."""
        (value,) = await self._values((source,), "truth")
        return holds(value)

    async def item(self, source: str) -> Raw | None:
        """Evaluate a loop's script; return the next item, ``None`` if there is none."""
        (value,) = await self._values((source,), "item")
        return value

    async def scripts(
        self, sources: Sequence[str], *, asked: Asked = "value", fetch: Fetch | None = None
    ) -> Evaluated:
        """Evaluate scripts one after another in one context; with ``fetch`` they may wait."""
        waits = fetch is not None
        analysed = [analyse(source) for source in sources]
        if not waits and any(script.awaits for script in analysed):
            raise StepFailure(CANNOT_WAIT, "script")
        part = self.begin_effect("evaluating")
        found, absent = self.scope.names(_names(analysed))
        v8 = any(script.lane == "v8" for script in analysed)
        limits = lowered(self.ports.limits, self.step)
        timeout = self.timeout(self.ports.timeouts.code if waits else limits.wall)
        evaluation = Evaluation(
            app_id=self.ports.app_id,
            scripts=tuple(sources),
            scope=found,
            absent=absent,
            lane="v8" if v8 else "quickjs",
            waits=waits,
            asked=asked,
            limits=replace(limits, wall=min(limits.wall, timeout)),
            fetch=fetch,
            read_file=self.read_file if waits else None,
            code_app_id=self.ports.workflow_app_id,
        )
        try:
            evaluated = await self.ports.sandbox.evaluate(evaluation, part)
        except StepFailure as failure:
            self.end_effect(part)
            if failure.code == "limit_wall" and timeout < limits.wall:
                raise timed_out(timeout, failure.logs) from failure
            raise
        self.end_effect(part)
        return evaluated

    def renderer(self) -> Renderer:
        """Return what fills in this step's settings."""
        return Renderer(self.scope, self._values)

    async def fetch(self, request: HttpRequest, name: str = "") -> HttpResponse:
        """Send a request; it begins only after everything before it is stored.

        ``name`` tells it apart from those that may be sent at the same time.
        """
        part = self.begin_effect(f"{request.method} {shortened(request.url)}")
        try:
            keyed = replace(
                request, idempotency_key=self.effect_key(name), app_id=self.ports.app_id
            )
            await self.ports.recorder.stored()
            self.crew.check()
            response = await self.ports.http.send(keyed, part)
        except StepFailure:
            self.end_effect(part)
            raise
        self.end_effect(part)
        return response

    async def read_file(self, aspect: Aspect, file: Any, room: int) -> Any:
        """Read files of the run's app, where there is so much room; a document is waited for."""
        part = self.begin_effect(f"reading the {aspect} of a file")
        try:
            found = await self.ports.files.read(self.ports.app_id, aspect, file, room, part)
        except StepFailure:
            self.end_effect(part)
            raise
        self.end_effect(part)
        return found

    def begin_effect(self, doing: str) -> Activity:
        """Note what begins now, maybe at the same time as other things."""
        self.crew.check()
        part = Activity(doing, self.ports.clock())
        self.activity.parts.append(part)
        return part

    def end_effect(self, part: Activity) -> None:
        """Note that it is over.

        Not for a finally: of what was cancelled, the receipt still has to tell. Of an attempt that
        is over, it has been forgotten already.
        """
        if part in self.activity.parts:
            self.activity.parts.remove(part)

    def effect_key(self, name: str = "") -> str:
        """Return the key of this unit's next effect of that name: the same in every attempt at it.

        Effects are counted in the order in which they begin. Where that is not the same every time,
        the name has to be.
        """
        self.effects[name] += 1
        return effect_key(self.ports.run_id, self.key, self.address, self.effects[name], name)

    def timeout(self, default: float) -> float:
        """Seconds that one attempt may take."""
        return default if self.step.timeout is None else self.step.timeout

    def all_logs(self, logs: Raw | None) -> Raw | None:
        """Take what conditionals, loops and templates logged, and then these."""
        if not self.told:
            return logs
        parts = self.told if logs is None else [*self.told, logs]
        joined = joined_logs(parts)
        self.told.clear()
        return joined

    async def _values(self, sources: Sequence[str], asked: Asked = "value") -> Sequence[Raw | None]:
        done = await self.scripts(sources, asked=asked)
        if done.logs is not None:
            self.told.append(done.logs)
        return done.outputs


def effect_key(run_id: str, key: str, address: Address, number: int, name: str = "") -> str:
    """Return the key of the effect that has this number among those of its name in one attempt at
    a unit."""
    parts = (run_id, key, *address, number, *((name,) if name else ()))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:40]


def lowered(limits: Limits, step: AnyStep) -> Limits:
    """Lower the installation's limits to those that the step asks for."""
    own = step.limits
    if own is None:
        return limits
    return Limits(
        cpu=_lower(limits.cpu, own.cpu),
        wall=_lower(limits.wall, own.wall),
        memory=int(_lower(limits.memory, own.memory)),
        output=int(_lower(limits.output, own.output)),
        logs=int(_lower(limits.logs, own.logs)),
    )


def holds(value: Raw | None) -> bool:
    """Say whether a condition holds, by the answer to a script whose truth was asked for."""
    return value is not None and bytes(value) == b"true"


def shortened(url: str) -> str:
    """Return a URL without what may be secret in it: no user, query or fragment, and not long."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        scheme, rest = "", url
    address, slash, path = rest.split("?")[0].split("#")[0].partition("/")
    return f"{scheme}{mark}{address.rpartition('@')[2]}{slash}{path}"[:200]


def _names(analysed: Sequence[Script]) -> frozenset[str]:
    if len(analysed) == 1:
        return analysed[0].names
    return frozenset[str]().union(*(script.names for script in analysed))


def _lower(limit: float, asked: float | None) -> float:
    return limit if asked is None else min(limit, asked)
