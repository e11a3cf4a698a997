"""Alive, ready, and why not."""

import asyncio

import pytest
from tests.web.application import application, client

from insula.web import health


async def fine() -> str | None:
    return None


async def empty() -> str | None:
    return "no worker is ready"


async def broken() -> str | None:
    raise OSError("secret path")


async def stuck() -> str | None:
    await asyncio.Event().wait()
    return None


async def test_ready() -> None:
    async with client(application({"database": fine}), key=None) as http:
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        answer = await http.get("/readyz")
    assert answer.json() == {"status": "ready", "checks": {"database": "ok"}}


async def test_not_ready_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "DEADLINE", 0.01)
    checks = {"database": fine, "sandbox": empty, "queue": broken, "disk": stuck}
    async with client(application(checks), key=None) as http:
        answer = await http.get("/readyz")
        assert (await http.get("/healthz")).status_code == 200
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    found = {entry["path"][0]: entry["message"] for entry in answer.json()["errors"]}
    assert found == {
        "sandbox": "no worker is ready",
        "queue": "failed: OSError",
        "disk": "did not answer within 0.01 s",
    }
