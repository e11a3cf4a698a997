"""The state of a run: the fold of its events. Only ``RunState.apply`` changes it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from insula.engine.credits import total
from insula.engine.events import (
    Chunk,
    Event,
    Interruption,
    RunEnded,
    RunLeft,
    RunStarted,
    StepEnded,
    StepReset,
    StepSkipped,
    StepStarted,
    UnitEnded,
    UnitStarted,
)
from insula.kit import json
from insula.kit.json import Raw

Address = tuple[int | None, int | None, str | None]
"""Which unit of a step: loop index, model round, tool call.

What a model does that is called as a tool lies below that call: its rounds at ``CALL/ROUND``, the
calls that it makes at ``CALL/ROUND/CALL``.
"""


@dataclass(slots=True)
class UnitState:
    """The attempts at a unit. ``interrupted`` counts those that died with their process, ``failed``
    those that failed and were tried again; ``open``: one has not ended yet; ``left``: its process
    stopped in good order before it had; ``ended``: the result stands."""

    started_at: int
    attempts: int = 0
    interrupted: int = 0
    failed: int = 0
    open: bool = False
    left: bool = False
    ended: bool = False
    output: Raw | None = None
    error: str | None = None
    credits: float = 0.0
    child: str | None = None


@dataclass(slots=True)
class CallState:
    """One execution of a tool step, an entry in the model step's ``calls``.

    ``id`` is the only one of that name in the step, whatever models call theirs.
    """

    id: str
    key: str
    type: str
    index: int | None
    start: int
    status: str = "RUNNING"
    end: int | None = None
    output: Raw | None = None
    error: str | None = None
    logs: Raw | None = None
    credits: float = 0.0


@dataclass(slots=True)
class StepState:
    """A step that was started or skipped."""

    key: str
    type: str
    status: str
    start: int
    end: int | None = None
    output: Raw | None = None
    error: str | None = None
    code: str | None = None
    logs: list[Raw] = field(default_factory=list)
    items: list[Raw] = field(default_factory=list)
    looped: bool = False
    calls: dict[Address, CallState] = field(default_factory=dict)
    call_ids: set[str] = field(default_factory=set)
    units: dict[Address, UnitState] = field(default_factory=dict)
    partial: list[str] = field(default_factory=list)
    answering: tuple[str, str, int | None] | None = None
    """Provider, model and loop index of the answer that ``partial`` is a part of."""
    credits: float = 0.0
    conditional: bool = False
    attempts: int = 1
    """Attempts at the unit that was tried most often."""
    fetched: int = 0
    """Bytes that are kept of what its code was answered."""
    shown: Raw | None = field(default=None, compare=False)
    """How later steps see it; kept by the scope once the step has ended."""

    def produced(self) -> Raw | None:
        """Return the output; of a step that has not ended, what it has produced so far."""
        if self.output is not None:
            return self.output
        if self.looped:
            return Raw(b"[" + b",".join(self.items) + b"]")
        if self.partial and self.answering is not None:
            provider, model, index = self.answering
            answer = {"provider": provider, "model": model, "message": "".join(self.partial)}
            return json.raw(answer if index is None else {**answer, "index": index})
        return None

    def all_logs(self) -> Raw | None:
        """Return the logs of every attempt and iteration as one JSON list."""
        return joined_logs(self.logs)


@dataclass(slots=True)
class RunState:
    """A run as its events tell it. ``steps`` stand in the order in which they were decided."""

    status: str = "PENDING"
    started_at: int | None = None
    ended_at: int | None = None
    error: str | None = None
    code: str | None = None
    result_key: str | None = None
    steps: dict[str, StepState] = field(default_factory=dict)
    interruptions: tuple[Interruption, ...] = ()
    size: int = 0
    """Bytes of all outputs and logs, of finished iterations and calls too."""
    fetched: int = 0
    """Bytes that are kept of what code was answered."""

    @property
    def credits(self) -> float:
        """What all steps have cost so far."""
        return total(step.credits for step in self.steps.values())

    @property
    def result(self) -> Raw | None:
        """The run's result: the output of the code step that completed last, or its ``result``."""
        if self.result_key is None:
            return None
        step = self.steps[self.result_key]
        output = step.output
        if output is None or step.type != "code" or step.looped or not output_is_object(output):
            return output
        return json.members(output).get("result", output)

    def apply(self, event: Event) -> None:
        """Take one event in. Events come in the order in which they were recorded."""
        match event:
            case StepEnded() | StepStarted() | StepSkipped() | StepReset():
                self._apply_step(event)
            case UnitStarted() | UnitEnded():
                self._apply_unit(event)
            case Chunk():
                step = self.steps[event.key]
                step.partial.append(event.text)
                step.answering = (event.provider, event.model, event.index)
            case RunStarted():
                if self.started_at is None:
                    self.started_at = event.at
                self.status = "RUNNING"
            case RunLeft():
                for unit in self._open_units():
                    unit.left = True
            case RunEnded():
                self.status = event.status
                self.ended_at = event.at
                self.error = event.error
                self.code = event.code
                self.result_key = event.result_key
                self.interruptions = event.interruptions

    def _open_units(self) -> Iterator[UnitState]:
        for step in self.steps.values():
            yield from (unit for unit in step.units.values() if unit.open)

    def _apply_step(self, event: StepEnded | StepStarted | StepSkipped | StepReset) -> None:
        match event:
            case StepStarted():
                step = StepState(event.key, event.type, "RUNNING", event.at)
                step.looped = event.looped
                if event.attempt:
                    step.units[(None, None, None)] = UnitState(event.at, event.attempt, open=True)
                self.steps[event.key] = step
            case StepSkipped():
                step = StepState(event.key, event.type, "SKIPPED", event.at, event.at)
                step.conditional = event.conditional
                self._keep_logs(step, event.logs)
                self.steps[event.key] = step
            case StepReset():
                self.steps[event.key].partial.clear()
            case StepEnded():
                self._end_step(self.steps[event.key], event)

    def _keep_logs(self, step: StepState, logs: Raw | None) -> None:
        if logs is not None:
            step.logs.append(logs)
            self.size += size_of(logs)

    def _keep_fetched(self, step: StepState, fetched: Raw | None) -> None:
        size = size_of(fetched)
        step.fetched += size
        self.fetched += size

    def _end_step(self, step: StepState, event: StepEnded) -> None:
        step.status = event.status
        step.end = event.at
        # Half an answer is what a cancelled step produced; a failed one must not pass it on.
        if event.output is not None:
            self.size += size_of(event.output)
            step.output = event.output
        elif step.looped or event.status == "CANCELLED":
            step.output = step.produced()
        step.error = event.error
        step.code = event.code
        step.credits = total((step.credits, event.credits))
        self._keep_logs(step, event.logs)
        if event.fetched is not None:
            self._keep_fetched(step, event.fetched)
        for call in step.calls.values():
            if call.end is None:
                call.end, call.status = event.at, "CANCELLED"
        step.partial.clear()
        step.items.clear()
        step.units.clear()

    def _apply_unit(self, event: UnitStarted | UnitEnded) -> None:
        step = self.steps[event.key]
        address = (event.index, event.round, event.call)
        if isinstance(event, UnitStarted):
            unit = step.units.get(address)
            if unit is None:
                unit = step.units[address] = UnitState(event.at)
            elif unit.open and not unit.left:
                unit.interrupted += 1
            unit.attempts = event.attempt
            unit.open, unit.left = True, False
            step.attempts = max(step.attempts, event.attempt)
            unit.child = event.child or unit.child
            if event.tool is not None:
                _start_call(step, address, event)
            return
        self._end_unit(step, address, event)

    def _end_unit(self, step: StepState, address: Address, event: UnitEnded) -> None:
        step.credits = total((step.credits, event.credits))
        if event.fetched is not None:
            self._keep_fetched(step, event.fetched)
        is_iteration = event.index is not None and event.round is None
        call = step.calls.get(address)
        if is_iteration or call is not None:
            self.size += size_of(event.output)
        if call is None:
            self._keep_logs(step, event.logs)
        else:
            _end_call(call, event)
            self.size += size_of(event.logs)
        if call is None and event.call is not None:
            around = event.call.rpartition("/")[0]
            outer = step.calls[event.index, event.round, around]
            outer.credits = total((outer.credits, event.credits))
        if is_iteration and event.error is None:
            # The iteration is over: its units have served their purpose.
            step.items.append(event.output or json.NULL)
            step.partial.clear()
            step.answering = None
            for done in [a for a in step.units if a[0] == event.index]:
                del step.units[done]
            return
        unit = step.units.setdefault(address, UnitState(event.at, attempts=1))
        unit.open = False
        unit.failed += event.again
        # A call that failed for good is a result, too: the model is told.
        unit.ended = event.error is None or (call is not None and not event.again)
        unit.output, unit.error, unit.credits = event.output, event.error, event.credits


def _start_call(step: StepState, address: Address, event: UnitStarted) -> None:
    assert event.call is not None
    call = step.calls.get(address)
    if call is None:
        step.calls[address] = CallState(
            id=_new_call_id(step, address),
            key=event.tool or "",
            type=event.tool_type or "",
            index=event.index,
            start=event.at,
        )
    else:
        call.status, call.end, call.error = "RUNNING", None, None


def _new_call_id(step: StepState, address: Address) -> str:
    """Return the name of a call; with the round, and in a loop the index, if one has it already.

    Names are unique in a round only. No name in the journal holds the sign that is put in between.
    """
    index, round_number, name = address
    assert name is not None
    if name in step.call_ids:
        place = f"{round_number}" if index is None else f"{index}.{round_number}"
        name = f"{name}@{place}"
    step.call_ids.add(name)
    return name


def _end_call(call: CallState, event: UnitEnded) -> None:
    call.end = event.at
    call.status = "FAILED" if event.error is not None else "COMPLETED"
    call.output, call.error = event.output, event.error
    call.logs = joined_logs([part for part in (call.logs, event.logs) if part is not None])
    call.credits = total((call.credits, event.credits))


def joined_logs(parts: Sequence[Raw]) -> Raw | None:
    """Join lists of log entries into one; ``None`` where there are no lists."""
    if len(parts) <= 1:
        return parts[0] if parts else None
    return Raw(b"[" + b",".join(inner for part in parts if (inner := bytes(part)[1:-1])) + b"]")


def size_of(value: Raw | None) -> int:
    """Return the bytes of JSON text, 0 for none."""
    return 0 if value is None else len(memoryview(value))


def output_is_object(output: Raw) -> bool:
    """Say whether JSON text, which has no leading blanks, is an object."""
    return memoryview(output)[0] == 0x7B


def fold(events: list[Event]) -> RunState:
    """Fold events from the beginning of a run."""
    state = RunState()
    for event in events:
        state.apply(event)
    return state
