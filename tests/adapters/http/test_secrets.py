from collections.abc import Callable

import pytest
from tests.adapters.http.conftest import RawServer

from insula.adapters.http.client import HttpClient
from insula.engine.failures import StepFailure
from insula.engine.ports import Activity, HttpRequest
from insula.engine.secrets import Secret, Secrets

KEY = Secret("KEY", "insulasecret" + "1" * 32, "planted-123")
BOUND = Secret("BOUND", "insulasecret" + "2" * 32, "bound-12345", ("127.0.0.1",))
BASE = Secret("BASE", "insulasecret" + "3" * 32, "no url, and secret")
SECRETS = Secrets([KEY, BOUND, BASE])
Answer = Callable[..., bytes]


async def send(client: HttpClient, url: str, *values: str, body: bytes | None = None) -> bytes:
    headers = tuple((f"X-{number}", value) for number, value in enumerate(values))
    request = HttpRequest("POST", url, headers, body, secrets=SECRETS)
    return (await client.send(request, Activity("test", 0))).body


async def test_a_value_is_put_in_where_the_request_leaves(
    client: HttpClient, server: RawServer, answer: Answer
) -> None:
    server.answer(answer())
    await send(
        client,
        f"{server.url}/a/{KEY.handle}",
        f"Bearer {BOUND.handle}",
        body=f'{{"k":"{KEY.handle}"}}'.encode(),
    )
    (sent,) = server.requests
    assert sent.startswith(b"POST /a/planted-123 HTTP/1.1\r\n")
    assert b"X-0: Bearer bound-12345\r\n" in sent
    assert sent.endswith(b'\r\n\r\n{"k":"planted-123"}')
    assert b"insulasecret" not in sent


async def test_a_bound_secret_does_not_leave_for_another_host(
    client: HttpClient, server: RawServer, answer: Answer
) -> None:
    server.answer(answer())
    with pytest.raises(StepFailure, match="BOUND may not be sent to localhost"):
        await send(client, f"http://localhost:{server.port}/", BOUND.handle)
    assert server.requests == []


async def test_a_bound_secret_does_not_follow_a_redirect(
    client: HttpClient, server: RawServer, answer: Answer
) -> None:
    away = f"Location: http://localhost:{server.port}/b"
    server.answer(answer(b"", away, status="307 Temporary Redirect"), answer())
    with pytest.raises(StepFailure, match="BOUND may not be sent to localhost") as failed:
        await send(client, f"{server.url}/a", BOUND.handle)
    assert failed.value.code == "egress"
    server.answer(answer(b"", away + "?q=bound%2D12345", status="302 Found"), answer())
    with pytest.raises(StepFailure, match="BOUND"):
        await send(client, f"{server.url}/a")
    assert len(server.requests) == 2


async def test_a_url_that_is_no_url_tells_nothing_of_itself(client: HttpClient) -> None:
    with pytest.raises(StepFailure) as failed:
        await send(client, BASE.handle)
    assert "no url" not in failed.value.message
    assert failed.value.code == "input"


async def test_a_value_that_no_header_can_carry_is_not_told(client: HttpClient) -> None:
    secrets = Secrets([Secret("PEM", KEY.handle, "line one\nline two")])
    request = HttpRequest("GET", "http://127.0.0.1/", (("X", KEY.handle),), secrets=secrets)
    with pytest.raises(StepFailure, match="the header X") as failed:
        await client.send(request, Activity("test", 0))
    assert "line" not in failed.value.message.replace("line break", "")
