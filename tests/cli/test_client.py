"""Errors of the server and of the network, in words and exit codes."""

import socket

import pytest

from insula.cli.client import Client
from insula.cli.failures import CommandFailed, ExitCode

from .fake_server import Answer, FakeServer

ERRORS = [{"validation": "body", "code": "type", "message": "must be a number", "path": ["a", "0"]}]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, ExitCode.USAGE),
        (401, ExitCode.NOT_ALLOWED),
        (403, ExitCode.NOT_ALLOWED),
        (404, ExitCode.NOT_FOUND),
        (409, ExitCode.CONFLICT),
        (422, ExitCode.USAGE),
        (429, ExitCode.CONFLICT),
        (503, ExitCode.UNREACHABLE),
    ],
)
async def test_a_refusal_carries_the_servers_words(
    server: FakeServer, status: int, code: ExitCode
) -> None:
    body = {"status": status, "message": "It cannot be.", "errors": ERRORS}
    server.on("GET", "/apps/c/workflows", Answer(body, status, {"retry-after": "2"}))
    client = Client(server.url, "ins_k")
    with pytest.raises(CommandFailed) as caught:
        await client.call("GET", "workflows")
    await client.close()
    assert caught.value.code == code
    assert caught.value.message == "It cannot be.\n  a.0: must be a number"
    assert ("INSULA_KEY" if status == 401 else "Try again in 2 s") in (caught.value.hint or "")


async def test_what_is_sent(server: FakeServer) -> None:
    server.on("POST", "/apps/c/keys", Answer({"id": "key_1"}))
    client = Client(server.url, "ins_k")
    query = {"take": 3, "status": ["A", "B"], "none": None}
    assert await client.call("POST", "keys", {"name": "é"}, query) == {"id": "key_1"}
    await client.close()
    (asked,) = server.asked
    assert asked.headers["authorization"] == "Bearer ins_k"
    assert asked.headers["content-type"] == "application/json"
    assert asked.query == {"take": ["3"], "status": ["A", "B"]}
    assert asked.body == {"name": "é"}


async def test_nobody_there_is_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        client = Client(f"http://127.0.0.1:{unused.getsockname()[1]}", "ins_k")
        with pytest.raises(CommandFailed, match="No answer") as caught:
            await client.call("GET", "workflows")
        await client.close()
    assert caught.value.code == ExitCode.UNREACHABLE


async def test_an_answer_that_is_not_ours(server: FakeServer) -> None:
    server.on("GET", "/apps/c/a", Answer(pieces=[b"<html>"]))
    server.on("GET", "/apps/c/b", Answer(status=502, pieces=[b"<html>"]))
    client = Client(server.url, "ins_k")
    for path, words in (("a", "is this an Insula server"), ("b", "answered 502")):
        with pytest.raises(CommandFailed, match=words) as caught:
            await client.call("GET", path)
        assert caught.value.code == ExitCode.UNREACHABLE
    await client.close()


@pytest.mark.parametrize(
    ("url", "key"), [("ftp://a", "k"), ("nowhere", "k"), ("http://a", "k\nx"), ("http://a", "ké")]
)
def test_bad_settings_are_usage_errors(url: str, key: str) -> None:
    with pytest.raises(CommandFailed) as caught:
        Client(url, key)
    assert caught.value.code == ExitCode.USAGE
