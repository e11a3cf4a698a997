"""What happens in a run, as facts in order. A run is the fold of its events (``state.py``).

Times are Unix milliseconds. Values are JSON text that nobody parses on the way. A *unit* is what is
tried at least once: an iteration of a loop, a round of a model, a call of a tool; it is named by
``index``, ``round`` and ``call``, all absent for a step that is one unit.
"""

from typing import TYPE_CHECKING, Literal

import msgspec

from insula.engine.credits import bounded_price
from insula.kit.json import NULL, Raw

if TYPE_CHECKING:
    OptionalRaw = Raw | None
else:
    # msgspec takes JSON text as it is only where the type is Raw alone: of a union it would see
    # null. What is absent keeps the default, None.
    OptionalRaw = Raw

StepStatus = Literal["RUNNING", "CANCELLED", "SKIPPED", "COMPLETED", "FAILED"]
FinalStatus = Literal["CANCELLED", "SKIPPED", "COMPLETED", "FAILED"]


class Interruption(msgspec.Struct, omit_defaults=True, frozen=True):
    """What a step was doing when its run was stopped.

    ``doing`` is words for people, ``for_ms`` how long it had been at it, ``effect_possible``
    whether something may have happened outside: a request sent and not answered.
    """

    key: str
    doing: str
    for_ms: int
    effect_possible: bool = False
    path: tuple[str, ...] = ()
    """Ids of the child runs that lead to the step, outermost first; empty in the run itself."""


class _Event(msgspec.Struct, tag_field="e", omit_defaults=True):
    at: int


class RunStarted(_Event, tag="run"):
    """The run began to execute."""


class RunLeft(_Event, tag="left"):
    """The process that executed the run stops in good order: what was under way goes on from where
    its attempts began, and that is no fault of theirs."""


class StepStarted(_Event, tag="step"):
    """A step began. With ``attempt`` 1 its only unit began in the same moment."""

    key: str
    type: str
    attempt: int = 0
    looped: bool = False


class StepSkipped(_Event, tag="skip"):
    """A step was decided not to run: no live edge, or its own conditional."""

    key: str
    type: str
    conditional: bool = False
    logs: OptionalRaw = None


class StepReset(_Event, tag="reset"):
    """What the step has streamed so far no longer counts; a new attempt begins."""

    key: str


class UnitStarted(_Event, tag="unit"):
    """An attempt at one unit began; stored before its effect begins."""

    key: str
    attempt: int
    index: int | None = None
    round: int | None = None
    call: str | None = None
    tool: str | None = None
    """Of a tool call: the key of the step that is called. Of a round of a model that was called,
    whose ``call`` is the call's and its own number, there is none."""
    tool_type: str | None = None
    child: str | None = None
    """Of a *workflow* step: the id of the child run, so that recovery finds it again."""


class UnitEnded(_Event, tag="done"):
    """An attempt at one unit ended; stored with its result, and never repeated.

    ``again``: it failed, and another attempt follows by the step's ``retry``.
    """

    key: str
    index: int | None = None
    round: int | None = None
    call: str | None = None
    output: OptionalRaw = None
    error: str | None = None
    logs: OptionalRaw = None
    credits: float = 0.0
    again: bool = False
    fetched: OptionalRaw = None
    """What its code asked with ``fetch``, and was answered (``fetched.py``), if it did."""

    def __post_init__(self) -> None:
        self.credits = bounded_price(self.credits)


class Chunk(_Event, tag="chunk"):
    """A piece of a model's answer. Neighbouring pieces may be merged before they are stored."""

    key: str
    provider: str
    model: str
    text: str
    index: int | None = None


class StepEnded(_Event, tag="end"):
    """A step reached its final status. Without ``output`` a loop's list stands as it was folded.

    ``code`` of a CANCELLED step is ``timeout`` where the run's deadline stopped it. ``fetched`` is
    as in ``UnitEnded``; of a loop, that of the iteration that failed.
    """

    key: str
    status: StepStatus
    output: OptionalRaw = None
    error: str | None = None
    code: str | None = None
    logs: OptionalRaw = None
    credits: float = 0.0
    fetched: OptionalRaw = None

    def __post_init__(self) -> None:
        self.credits = bounded_price(self.credits)


class RunEnded(_Event, tag="over"):
    """The run reached its final status; nothing follows."""

    status: FinalStatus
    result_key: str | None = None
    """The step whose output is the result: that of the code step that completed last."""
    error: str | None = None
    code: str | None = None
    interruptions: tuple[Interruption, ...] = ()


Event = (
    RunStarted
    | RunLeft
    | StepStarted
    | StepSkipped
    | StepReset
    | UnitStarted
    | UnitEnded
    | Chunk
    | StepEnded
    | RunEnded
)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(list[Event])
_members = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def encode_events(events: list[Event]) -> bytes:
    """Encode events as one JSON array.

    Raises:
        UnicodeEncodeError: a text holds a lone surrogate.
    """
    return _encoder.encode(events)


def decode_events(data: bytes) -> list[Event]:
    """Decode what ``encode_events`` wrote."""
    try:
        return _decoder.decode(data)
    except msgspec.ValidationError:
        return _decoder.decode(_without_lost_prices(data))


def _without_lost_prices(data: bytes) -> bytes:
    """Leave out prices that are null: before prices were bounded, infinity was stored as that."""
    return _encoder.encode(
        [
            {name: value for name, value in event.items() if (name, value) != ("credits", NULL)}
            for event in _members.decode(data)
        ]
    )
