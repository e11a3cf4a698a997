"""Testing a connection: one request that costs nothing, and what came of it in words."""

from insula.adapters.guarded import GuardedHttp
from insula.connections.opening import Opened
from insula.engine.failures import StepFailure
from insula.engine.masking import Masker
from insula.engine.ports import Activity, Http, HttpRequest
from insula.engine.secrets import Secrets

_SECONDS = 15.0
_MOST = 4 * 1024 * 1024


async def examine(http: Http, app_id: str, opened: Opened) -> dict[str, object]:
    """Ask the provider for its models; return ``{ok, status?, message}``."""
    reached = opened.model_provider()
    if reached is None:
        message = f"Connections of type {opened.type} cannot be tested yet."
        return {"ok": False, "message": message}
    headers = [("Accept", "application/json")]
    if reached.key is not None:
        headers += [("Authorization", f"Bearer {reached.key}"), ("api-key", reached.key)]
        if opened.type == "ANTHROPIC":
            headers += [("x-api-key", reached.key), ("anthropic-version", "2023-06-01")]
    request = HttpRequest(
        "GET",
        f"{reached.url}/models",
        tuple(headers),
        timeout=_SECONDS,
        max_bytes=_MOST,
        app_id=app_id,
    )
    guarded = GuardedHttp(http, Secrets((), Masker(opened.credentials.values())))
    try:
        answer = await guarded.send(request, Activity("testing a connection", 0))
    except StepFailure as failure:
        return {"ok": False, "message": failure.message}
    return {
        "ok": 200 <= answer.status < 300,
        "status": answer.status,
        "message": _words(answer.status),
    }


def _words(status: int) -> str:
    if 200 <= status < 300:
        return "The provider answered."
    if status in (401, 403):
        return f"The provider refuses the key ({status})."
    if status == 404:
        return "There is no such API at this base URL (404)."
    return f"The provider answered {status}."
