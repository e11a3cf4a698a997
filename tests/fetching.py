"""A sandbox in this process whose scripts are functions that fetch."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from insula.engine.ports import Activity, Evaluated, Evaluation, Fetch, HttpRequest, Sandbox
from insula.kit import json

Script = Callable[[Fetch, Mapping[str, Any]], Awaitable[Any]]


class FetchingSandbox:
    """Runs the functions that stand for scripts, with ``fetch`` and the scope; other scripts are
    another sandbox's."""

    def __init__(self, scripts: Mapping[str, Script], other: Sandbox | None = None) -> None:
        self._scripts = scripts
        self._other = other

    async def evaluate(self, evaluation: Evaluation, activity: Activity) -> Evaluated:
        (source,) = evaluation.scripts
        script = self._scripts.get(source)
        if script is None:
            assert self._other is not None, source
            return await self._other.evaluate(evaluation, activity)
        assert evaluation.fetch is not None
        scope = {name: json.decode(value) for name, value in evaluation.scope.items()}
        return Evaluated((json.raw(await script(evaluation.fetch, scope)),))


def get(url: str, method: str = "GET", body: str | None = None) -> HttpRequest:
    """Make a request as code makes it."""
    return HttpRequest(method, url, body=None if body is None else body.encode())


def gets(*urls: str) -> Script:
    """Make a script that fetches one address after another and returns the bodies."""

    async def script(fetch: Fetch, scope: Mapping[str, Any]) -> list[str]:
        return [(await fetch(get(url))).body.decode() for url in urls]

    return script
