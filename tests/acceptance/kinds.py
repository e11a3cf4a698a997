"""The ways in which a run can be busy when it is cancelled: a workflow each, and how to tell that
a run is there.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.acceptance.harness import Caller, Stream
from tests.acceptance.loopback import Loopback

Steps = list[dict[str, Any]]
Reached = Callable[[Stream, Loopback, str], Awaitable[None]]
"""Waits until a run (its stream, its tag) is busy."""

MANY_WORDS = "word " * 2_000
_WORDS = 3
"""How many pieces of a model's answer there are when it is cut short."""


def first(*destinations: str) -> dict[str, Any]:
    """A step that completes at once."""
    code = "return { tag: input.tag }"
    return {"type": "code", "key": "first", "code": code, "destinations": [*destinations]}


def later(url: str) -> dict[str, Any]:
    """A step that calls the loopback, and whose turn must not come."""
    return http("later", f"{url}/later/{{{{input.tag}}}}")


def code(text: str, **more: Any) -> dict[str, Any]:
    """The busy step, as code."""
    return {"type": "code", "key": "busy", "code": text, "destinations": ["later"], **more}


def http(key: str, address: str, **more: Any) -> dict[str, Any]:
    """A request."""
    return {"type": "http_request", "key": key, "method": "GET", "url": address, **more}


def model(**provider: Any) -> dict[str, Any]:
    """The busy step, as a model; the first message is the tag."""
    asked = {"model": "m", "messages": [{"role": "user", "content": "{{input.tag}}"}], **provider}
    return {"type": "model", "key": "busy", "provider": asked, "destinations": ["later"]}


async def _called(stream: Stream, loopback: Loopback, tag: str) -> None:
    await loopback.arrived(tag)


async def _answered(stream: Stream, loopback: Loopback, tag: str) -> None:
    await loopback.until(lambda: any(a.tag == tag for a in loopback.answered), f"{tag} answered")


async def _speaks(stream: Stream, loopback: Loopback, tag: str) -> None:
    await stream.chunks("busy", _WORDS)


async def _calls(stream: Stream, loopback: Loopback, tag: str) -> None:
    await loopback.arrived(tag, 3)


async def _first_done(stream: Stream, loopback: Loopback, tag: str) -> None:
    await stream.until(
        lambda: any(
            e.name == "step" and e.data["key"] == "first" and e.data["status"] == "COMPLETED"
            for e in stream.events
        ),
        "the first step",
    )


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to be busy.

    ``hangs`` says that the loopback holds a request without an answer, ``interrupted`` which steps
    are running: one whose conditional is still being asked is not.
    """

    name: str
    make: Callable[[str], Steps]
    reached: Reached
    hangs: bool = False
    interrupted: tuple[str, ...] = ("busy",)
    samples: int = 3

    def steps(self, url: str) -> Steps:
        """The whole workflow: what completes, what is busy, what must not begin."""
        made = self.make(url)
        begins = [step["key"] for step in made if step.get("destinations")]
        return [first(*begins), *made, later(url)]


def _begun(url: str) -> str:
    return f"await fetch('{url}/begun/' + input.tag);"


def _tool(url: str) -> Steps:
    script = {"replies": [{"tool_calls": [{"name": "look", "input": {}}]}, {"text": "done"}]}
    asks = model(provider="mock", tools=["look"], mock=script)
    return [asks, http("look", f"{url}/hang/{{{{input.tag}}}}")]


def _parallel(url: str) -> Steps:
    words = {"replies": [{"text": MANY_WORDS, "token_delay_ms": 20}]}
    joined = {"destinations": ["later"]}
    return [
        {**code("while (true) {}"), "key": "spins"},
        {**code("await util.sleep(600000)"), "key": "sleeps"},
        {**model(provider="mock", mock=words), "key": "speaks"},
        http("waits", f"{url}/hang/{{{{input.tag}}}}", **joined),
    ]


SCRIPT = {"replies": [{"text": MANY_WORDS, "token_delay_ms": 5}]}

KINDS = (
    Kind("endless-loop", lambda u: [code(_begun(u) + "while (true) {}")], _answered),
    Kind(
        "endless-loop-v8",
        lambda u: [code(f"new Intl.NumberFormat('en'); {_begun(u)} while (true) {{}}")],
        _answered,
    ),
    Kind("sleep", lambda u: [code(_begun(u) + "await util.sleep(600000)")], _answered),
    Kind("fetch", lambda u: [code(f"await fetch('{u}/hang/' + input.tag)")], _called, hangs=True),
    Kind(
        "request-after-request",
        lambda u: [code(f"for (;;) await fetch('{u}/tick/' + input.tag)")],
        _calls,
    ),
    Kind(
        "http-never-answered",
        lambda u: [http("busy", f"{u}/hang/{{{{input.tag}}}}", destinations=["later"])],
        _called,
        hangs=True,
    ),
    Kind("model-mock", lambda u: [model(provider="mock", mock=SCRIPT)], _speaks),
    Kind("model-stream", lambda u: [model(provider="drip")], _speaks, hangs=True),
    Kind("tool", _tool, _called, hangs=True),
    Kind(
        "iteration-1000",
        lambda u: [
            code(
                f"if (index === 999) {{ {_begun(u)} while (true) {{}} }} return index",
                loop="index < 9000 ? index : null",
            )
        ],
        _answered,
        samples=1,
    ),
    Kind(
        "retry-backoff",
        lambda u: [code(f"{_begun(u)} throw new Error('again')", retry={"max": 5, "backoff": 600})],
        _answered,
    ),
    Kind(
        "conditional",
        lambda u: [code("return 1", conditional="while (true) {}")],
        _first_done,
        interrupted=(),
    ),
    Kind(
        "four-at-once",
        _parallel,
        _called,
        hangs=True,
        interrupted=("spins", "sleeps", "speaks", "waits"),
    ),
)
"""All but those that need a second workflow or a full house."""


async def push_family(caller: Caller, url: str) -> str:
    """Deploy a workflow whose child's child's child makes a request that is never answered."""
    below = await caller.push([http("busy", f"{url}/hang/{{{{input.tag}}}}")])
    for level in range(3):
        calls = {
            "type": "workflow",
            "key": "busy",
            "workflow_id": below,
            "input": {"tag": "{{input.tag}}"},
            "destinations": ["later"],
        }
        below = await caller.push([first("busy"), calls, later(url)], key=f"level{level}")
    return below


FAMILY = Kind("child-of-child-of-child", lambda url: [], _called, hangs=True)
