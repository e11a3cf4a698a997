"""Whether the server lives, whether it is ready, and its figures."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from insula.errors import FieldError, Unavailable
from insula.web.respond import json_answer

Check = Callable[[], Awaitable[str | None]]
"""Returns ``None`` if all is well, else what is wrong, in words."""

DEADLINE = 2.0


class Degraded(str):
    """What is wrong, of something without which the server works all the same: it is ready."""

    __slots__ = ()


async def _outcome(check: Check) -> str | None:
    try:
        async with asyncio.timeout(DEADLINE):
            return await check()
    except TimeoutError:
        return f"did not answer within {DEADLINE:g} s"
    except Exception as error:  # whatever a check dies of is a finding, not a failure of ours
        return f"failed: {type(error).__name__}"


def routes(checks: Mapping[str, Check], registry: CollectorRegistry) -> list[Route]:
    """Make ``/healthz``, ``/readyz`` and ``/metrics``; none of them asks for a key."""

    async def healthz(_: Request) -> Response:
        return json_answer({"status": "ok"})

    async def readyz(_: Request) -> Response:
        outcomes = await asyncio.gather(*(_outcome(check) for check in checks.values()))
        found = dict(zip(checks, outcomes, strict=True))
        problems = [
            FieldError((name,), "not_ready", problem, "check")
            for name, problem in found.items()
            if problem is not None and not isinstance(problem, Degraded)
        ]
        if problems:
            named = ", ".join(problem.path[0] for problem in problems)
            raise Unavailable(f"Not ready: {named}.", problems, retry_after=1)
        told = {name: f"degraded: {text}" if text else "ok" for name, text in found.items()}
        return json_answer({"status": "ready", "checks": told})

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    return [
        Route("/healthz", healthz, methods=["GET"]),
        Route("/readyz", readyz, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]
