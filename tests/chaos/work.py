"""The workflows that run through the chaos: light ones mostly, and one for every way of being busy.

Every effect is a request to the loopback server whose last part names the run's number and step.
"""

from typing import Any

from tests.acceptance.harness import Caller

Step = dict[str, Any]
LOOPS = 4
WORDS = 12


def _http(key: str, address: str, *destinations: str, **more: Any) -> Step:
    fields = {"type": "http_request", "key": key, "method": "GET", "url": address}
    return {**fields, "destinations": [*destinations], **more}


def _code(key: str, code: str, *destinations: str) -> Step:
    return {"type": "code", "key": key, "code": code, "destinations": [*destinations]}


def _chain(url: str, wait: int) -> list[Step]:
    def one(key: str, *destinations: str) -> Step:
        return _http(key, f"{url}/slow/{wait}/{{{{input.n}}}}.{key}", *destinations)

    return [one("a", "b"), one("b", "c"), one("c")]


def _loop(url: str) -> list[Step]:
    address = f"{url}/slow/15/{{{{input.n}}}}.each{{{{index}}}}"
    return [_http("each", address, loop=f"index < {LOOPS} ? index : null")]


def _words(url: str) -> list[Step]:
    script = {"replies": [{"text": "word " * WORDS, "token_delay_ms": 8}]}
    said = [{"role": "user", "content": "work"}]
    asked = {"provider": "mock", "model": "m", "messages": said, "mock": script}
    speaks = {"type": "model", "key": "speaks", "provider": asked, "destinations": ["after"]}
    return [speaks, _http("after", f"{url}/slow/10/{{{{input.n}}}}.after")]


def _fetch(url: str) -> list[Step]:
    call = f"await fetch('{url}/slow/10/' + input.n + '.'"
    return [
        _code("first", f"await ({call} + 'first1')).json(); return 1", "second"),
        _code("second", f"{call} + 'second1'); {call} + 'second2'); return first.output"),
    ]


def _patient(url: str) -> list[Step]:
    """Three things at once that take a while: to be cancelled in the midst."""
    twenty = "index < 20 ? index : null"
    return [
        _http("asks", f"{url}/slow/900/{{{{input.n}}}}.asks", "late"),
        _code("sleeps", "await util.sleep(700); return 1", "late"),
        _http("often", f"{url}/slow/30/{{{{input.n}}}}.often", "late", loop=twenty),
        _http("late", f"{url}/slow/10/{{{{input.n}}}}.late"),
    ]


def _parent(below: str) -> list[Step]:
    given = {"n": "{{input.n}}"}
    return [{"type": "workflow", "key": "calls", "workflow_id": below, "input": given}]


async def deploy(caller: Caller, url: str) -> dict[str, str]:
    """Deploy a workflow of each kind; return the paths of their runs."""
    documents = {
        "light": [_code("only", "return { n: input.n }")],
        "chain": _chain(url, 15),
        "loop": _loop(url),
        "words": _words(url),
        "fetch": _fetch(url),
        "patient": _patient(url),
        "hang": [_http("stuck", f"{url}/hang/{{{{input.n}}}}.stuck")],
    }
    ids = {kind: await caller.push(steps) for kind, steps in documents.items()}
    below = ids["chain"]
    for _ in range(3):
        below = await caller.push(_parent(below))
    ids["family"] = below
    return {kind: f"workflows/{workflow_id}/runs" for kind, workflow_id in ids.items()}
