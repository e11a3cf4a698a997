"""What the engine asks of the world: a few small protocols, implemented above and handed in.

Every port obeys the same three rules. Cancelling the awaiting task stops the work: when the
``CancelledError`` comes out, the worker process is dead, the socket closed, the child ended.
Failures of the work itself are ``StepFailure``. Whatever may have an effect outside says so in its
``Activity`` at the moment it does.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from insula.engine.events import Event, FinalStatus, Interruption
from insula.engine.failures import StepFailure, plain
from insula.kit.json import Raw

if TYPE_CHECKING:
    from insula.engine.secrets import Secrets

Lane = Literal["quickjs", "v8"]
Asked = Literal["value", "truth", "judged", "item"]
"""What of a script's value is asked for: the value itself; ``true`` or ``false``, as JavaScript
takes it; a list of that and the value; or the next item of a loop, which ends with JavaScript's
own ``undefined``, ``null`` and ``false``. The last three cannot be told from the value as JSON,
which has no NaN, no infinity and no objects that are written as ``null``."""


@dataclass(slots=True, eq=False)
class Activity:
    """What a step is doing right now, for the receipt of a cancel.

    ``parts`` are the things it does at the same time: requests of its code, tools of its model.
    """

    doing: str
    since: int
    effect_possible: bool = False
    parts: list["Activity"] = field(default_factory=list)

    @property
    def uncertain(self) -> bool:
        """Whether an effect may have happened that nobody has confirmed."""
        return self.effect_possible or any(part.uncertain for part in self.parts)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one evaluation: seconds and bytes."""

    cpu: float = 30.0
    wall: float = 300.0
    memory: int = 128 * 1024 * 1024
    output: int = 5 * 1024 * 1024
    logs: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One outgoing request. ``headers`` keep their order; ``timeout`` is in seconds, over all.

    Without ``redirects`` none is followed: it is the answer.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    timeout: float = 60.0
    idempotency_key: str | None = None
    max_bytes: int = 64 * 1024 * 1024
    redirects: bool = True
    app_id: str = ""
    """Whose share of the connections it takes; empty: nobody's."""
    secrets: "Secrets | None" = field(default=None, repr=False)
    """What puts the values in where the request leaves; until then it holds their handles."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """Its answer, read to the end, with the address it finally came from."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    url: str


Fetch = Callable[[HttpRequest], Awaitable[HttpResponse]]

Aspect = Literal["contents", "text", "images", "file", "url"]
"""What of a file: its blocks, its text, its page images, its bytes, its address."""

ReadFile = Callable[[Aspect, Any, int], Awaitable[Any]]
"""Reads a file, or several, as ``Files.read`` does, where there is so much room."""


class Files(Protocol):
    """The files of apps."""

    async def read(
        self, app_id: str, aspect: Aspect, file: Any, room: int, activity: Activity
    ) -> Any:
        """Return what is asked for of a file's object, id or address; of a list, a list.

        ``contents`` and ``images`` as the contract has them in ``document``, as ``Raw``; ``file``
        as a data URL, the others as text. Documents are waited for. ``room`` is how long all of
        it, bytes of JSON and characters of texts, may be together: nothing further is read then.
        Raises ``StepFailure``: ``input``; of these ``NoRoom``.
        """
        ...


class NoFiles:
    """Has no file."""

    async def read(
        self, app_id: str, aspect: Aspect, file: Any, room: int, activity: Activity
    ) -> Any:
        """Refuse."""
        raise StepFailure("Files cannot be read here", "not_available")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scripts to run one after another in one fresh context of one worker.

    ``scripts`` are function bodies with ``return``, or bare expressions; ``scope`` maps names to
    JSON text; ``absent`` names ancestors that did not run: ``undefined``, and reading a property of
    one gives an error that names it. ``waits`` allows ``await`` (and ``fetch``, through the
    callback). ``app_id`` counts for the fair share; what is no ``value`` has reserved places.
    ``code_app_id`` is whose code it is, by default the app's own: what runs for one app and what
    one has written never meet in a worker.
    """

    app_id: str
    scripts: tuple[str, ...]
    scope: Mapping[str, Raw]
    absent: tuple[str, ...] = ()
    lane: Lane = "quickjs"
    waits: bool = False
    asked: Asked = "value"
    limits: Limits = field(default_factory=Limits)
    fetch: Fetch | None = None
    read_file: ReadFile | None = None
    code_app_id: str = ""

    @property
    def condition(self) -> bool:
        """Whether a step waits to learn by it if, or how often, it runs."""
        return self.asked != "value"

    @property
    def worker_of(self) -> tuple[str, str]:
        """For whom, and of whom, a worker has to be that evaluates this."""
        return self.app_id, self.code_app_id or self.app_id


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Per script its value as JSON text, ``None`` for ``undefined`` and for the end of a loop; and
    what ``console`` was told.

    ``logs`` is a JSON list of ``{level, time, args}``, ``None`` if nothing was logged.
    """

    outputs: tuple[Raw | None, ...]
    logs: Raw | None = None


class Sandbox(Protocol):
    """JavaScript, in killable processes."""

    async def evaluate(self, evaluation: Evaluation, activity: Activity) -> Evaluated:
        """Run the scripts. Raises ``StepFailure``: ``script``, ``limit_…``, ``engine_crash``."""
        ...


class Http(Protocol):
    """Outgoing HTTP under the egress policy."""

    async def send(self, request: HttpRequest, activity: Activity) -> HttpResponse:
        """Send and read to the end. Raises ``StepFailure`` where there is no answer."""
        ...


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool as the model is told of it; ``schema`` is JSON Schema of its arguments."""

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Credentials:
    """How a provider is reached by an app's own connection, not by the operator's settings."""

    connection_id: str
    connection_type: str
    provider: str
    url: str
    key: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One round of a model. ``messages`` are in the shape of the contract, templates filled in."""

    app_id: str
    provider: str
    model: str
    messages: Sequence[Mapping[str, Any]]
    temperature: float | None = None
    response_format: Literal["text", "json"] = "text"
    max_tokens: int | None = None
    tools: tuple[ToolDefinition, ...] = ()
    tools_parallel: bool = True
    tools_mode: Literal["auto", "none", "required"] = "auto"
    timeout: float = 600.0
    idempotency_key: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Everything else that stands in the step's ``provider`` (the script of ``mock`` among it)."""
    connection_id: str | None = None
    """Which of the app's connections is to be used, if the step says so."""
    credentials: Credentials | None = None


@dataclass(frozen=True, slots=True)
class ModelDelta:
    """A piece of text. ``restart``: what came before no longer counts (a provider retry)."""

    text: str
    restart: bool = False


@dataclass(frozen=True, slots=True)
class ModelToolCall:
    """What the model wants called; ``input`` are its arguments."""

    id: str
    name: str
    input: Any


@dataclass(frozen=True, slots=True)
class ModelReply:
    """The end of a round. ``credits`` is its price, 0 if nobody knows one."""

    provider: str
    model: str
    text: str
    tool_calls: tuple[ModelToolCall, ...] = ()
    refusal: str | None = None
    credits: float = 0.0
    raw: Mapping[str, Any] | None = None
    connection_id: str | None = None
    connection_type: str | None = None


class Models(Protocol):
    """Model providers."""

    def stream(
        self, request: ModelRequest, activity: Activity
    ) -> AsyncGenerator[ModelDelta | ModelReply, None]:
        """Yield deltas, then exactly one reply, last. Raises ``StepFailure``."""
        ...

    def identify(
        self, provider: str, model: str, connection_id: str | None = None
    ) -> tuple[str, str]:
        """Return the provider and model that will answer (``auto`` resolved)."""
        ...


@dataclass(frozen=True, slots=True)
class ChildRequest:
    """A child run to start, or with ``run_id`` already stored, to go on with."""

    run_id: str
    parent_key: str
    workflow_id: str | None
    version: str | int
    step_key: str | None
    input: Raw
    idempotency_key: str = ""
    """The same in every attempt at this unit of the parent."""


@dataclass(frozen=True, slots=True)
class ChildOutcome:
    """How a child run ended; ``output`` is the step's output (``StepWorkflowOutputSchema``)."""

    status: FinalStatus
    output: Raw
    error: str | None
    credits: float = 0.0


class Children(Protocol):
    """Child runs, executed inside the awaiting task."""

    async def run(self, request: ChildRequest, activity: Activity) -> ChildOutcome:
        """Run it to its end. Cancelled, it returns after the child's end is stored."""
        ...

    def interruptions(self, run_id: str) -> tuple[Interruption, ...]:
        """Say what the steps of this child were doing when it was stopped."""
        ...

    def credits(self, run_id: str) -> float:
        """Say what this child has cost, whether its outcome has arrived or it was stopped."""
        ...

    def output(self, run_id: str) -> Raw | None:
        """Return the step's output of a child that was stopped: what it had produced until then."""
        ...


@dataclass(frozen=True, slots=True)
class ServiceCall:
    """One action of a service, its templates filled in: ``type`` and ``action`` as the contract
    names them (``FILES``, ``DELETE_FILE``).

    ``app_id`` is whose run it is, ``workflow_app_id`` whose workflow. ``idempotency_key`` is the
    same in every attempt at this call.
    """

    app_id: str
    workflow_app_id: str
    run_id: str
    type: str
    action: str
    input: Mapping[str, Any]
    connection_id: str | None = None
    idempotency_key: str = ""


class Services(Protocol):
    """Actions of services: files, collections, and those of third parties."""

    async def call(self, call: ServiceCall, activity: Activity) -> Raw:
        """Do it; return the step's output. Raises ``StepFailure``: ``not_available``, ``input``."""
        ...


class NoServices:
    """Knows no service."""

    async def call(self, call: ServiceCall, activity: Activity) -> Raw:
        """Refuse."""
        raise StepFailure(f"The service {plain(call.type, 100)} is not available", "not_available")


class Recorder(Protocol):
    """Where the engine puts its events: the journal of a run that this process owns."""

    def record(self, event: Event) -> None:
        """Append an event; it is stored, in order, and then told."""
        ...

    async def stored(self) -> None:
        """Wait until all that was recorded is stored and this process still owns the run.

        Called before every effect outside. Raises ``Fenced`` if the run is another's now.
        """
        ...


class Fenced(Exception):
    """This process no longer owns the run: drop it, write nothing."""


@dataclass(slots=True)
class Stop:
    """Why a run's task is being cancelled; shared by a run and its children.

    ``cancel`` ends the run as CANCELLED, ``deadline`` and ``storage`` as FAILED, the latter with
    ``words`` that say for how long nothing could be stored; ``shutdown`` ends nothing: the journal
    stays as it is, and whoever recovers the run goes on. ``None``: nobody has asked; a task that is
    cancelled all the same is so because the process is going down, which is ``shutdown``.
    """

    kind: Literal["cancel", "deadline", "storage", "shutdown"] | None = None
    words: str = ""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds an attempt at one unit may take, where its step does not say."""

    code: float = 300.0
    http_request: float = 60.0
    model: float = 600.0
    browser: float = 120.0
    service: float = 600.0


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything a run needs from outside, and how it names itself to the outside."""

    run_id: str
    app_id: str
    recorder: Recorder
    sandbox: Sandbox
    http: Http
    models: Models
    children: Children
    clock: Callable[[], int]
    new_id: Callable[[str], str]
    services: Services = field(default_factory=NoServices)
    files: Files = field(default_factory=NoFiles)
    workflow_app_id: str = ""
    """Whose workflow it is; empty: the app's own."""
    input: Raw = field(default_factory=lambda: Raw(b"{}"))
    variables: Raw = field(default_factory=lambda: Raw(b"{}"))
    trigger: Raw | None = None
    """What a trigger step tells, of a run that one started."""
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    stop: Stop = field(default_factory=Stop)
    prices: Mapping[str, float] = field(default_factory=dict)
    """Credits that a unit's result costs, by its step's type, besides what it costs by itself."""
    backs_off: bool = True
    """Whether time passes before a failed attempt is followed by another."""
    max_attempts: int = 3
    """Interrupted attempts at one unit after which its step fails."""
    max_iterations: int = 10_000
    max_output: int = 64 * 1024 * 1024
    """Bytes of output that all steps of the run may have together."""
    activities: dict[str, Activity] = field(default_factory=dict)
    """What each running step is doing, by key; the engine writes it, receipts read it."""
