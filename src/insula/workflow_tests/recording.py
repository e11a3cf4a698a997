"""Recording what the outside answered a run, from its journal.

An answer belongs to a unit of a step. What was asked does not count, so that a test goes on when a
prompt is changed; but for the requests of code, of which one unit may send many.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from insula.engine.events import Event, StepEnded, StepStarted, UnitEnded, UnitStarted
from insula.engine.fetched import Fetched, decode_fetched
from insula.engine.state import Address
from insula.kit import json

OUTSIDE = frozenset(("http_request", "service", "workflow"))
"""Types whose whole output is what the outside answered; of a model, each round is recorded."""


class Answer(msgspec.Struct, omit_defaults=True):
    """What one unit was answered: an output, or an error with its code; or, of code, what each of
    its requests was."""

    key: str
    index: int | None = None
    round: int | None = None
    call: str | None = None
    output: Any = None
    error: str | None = None
    code: str = "network"
    fetched: list[Fetched] = []

    @property
    def address(self) -> Address:
        """Return the unit's address in its step."""
        return (self.index, self.round, self.call)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[Answer])


def record(events: Iterable[Event]) -> bytes:
    """Return what the outside answered, as it stands in a run's journal."""
    listener = _Listener()
    for event in events:
        listener.hear(event)
    return _encoder.encode(listener.answers)


def answers_in(recording: bytes) -> list[Answer]:
    """Decode what ``record`` returned."""
    return _decoder.decode(recording)


class _Listener:
    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self._kinds: dict[str, str] = {}
        self._looped: set[str] = set()
        self._iterations: Counter[str] = Counter()
        self._tools: dict[tuple[str, Address], str | None] = {}
        self._inner_rounds: Counter[tuple[str, Address]] = Counter()

    def hear(self, event: Event) -> None:
        if isinstance(event, StepStarted):
            self._kinds[event.key] = event.type
            if event.looped:
                self._looped.add(event.key)
        elif isinstance(event, UnitStarted) and event.tool is not None:
            address = (event.index, event.round, event.call)
            self._tools[event.key, address] = event.tool_type
        elif isinstance(event, UnitEnded) and not event.again:
            self._unit(event)
        elif isinstance(event, StepEnded):
            self._end(event)

    def _unit(self, event: UnitEnded) -> None:
        address = (event.index, event.round, event.call)
        if (event.key, address) in self._tools:
            self._call(event, address)
            return
        if event.call is not None:  # a round of a model that was called
            around = (event.index, event.round, event.call.rpartition("/")[0])
            self._inner_rounds[event.key, around] += 1
            self.answers.append(_answer(event))
            return
        kind = self._kinds.get(event.key)
        if kind in OUTSIDE or (kind == "model" and event.round is not None):
            self.answers.append(_answer(event))
        elif event.fetched is not None:
            self.answers.append(_of_code(event))
        if event.round is None and event.error is None:
            self._iterations[event.key] += 1

    def _call(self, event: UnitEnded, address: Address) -> None:
        kind = self._tools[event.key, address]
        if kind in OUTSIDE:
            self.answers.append(_answer(event))
        elif kind == "model" and event.error is not None:
            made = _answer(event)  # of its next round, which is in no journal
            made.call = f"{event.call}/{self._inner_rounds[event.key, address]}"
            self.answers.append(made)
        elif event.fetched is not None:
            self.answers.append(_of_code(event))

    def _end(self, event: StepEnded) -> None:
        """Take what the end of a step tells of the outside: its answer, or why a unit failed."""
        kind, looped = self._kinds.get(event.key), event.key in self._looped
        failed = event.status == "FAILED"
        ended = failed or (event.status == "COMPLETED" and not looped)
        if event.fetched is not None:
            made = _of_code(event)
        elif (kind in OUTSIDE and ended) or (kind == "model" and failed):
            made = _answer(event)
        else:
            return
        made.index = self._iterations[event.key] if looped else None
        if kind == "model":
            made.round = sum(
                a.key == event.key and a.index == made.index and a.call is None
                for a in self.answers
            )
        self.answers.append(made)


def _answer(event: UnitEnded | StepEnded) -> Answer:
    made = Answer(event.key, error=event.error)
    if event.output is not None and event.error is None:
        made.output = json.decode(event.output)
    if isinstance(event, UnitEnded):
        made.index, made.round, made.call = event.index, event.round, event.call
    elif event.code is not None:
        made.code = event.code
    return made


def _of_code(event: UnitEnded | StepEnded) -> Answer:
    assert event.fetched is not None
    made = Answer(event.key, fetched=decode_fetched(event.fetched))
    if isinstance(event, UnitEnded):
        made.index, made.round, made.call = event.index, event.round, event.call
    return made
