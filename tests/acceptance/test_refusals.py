"""What every operation refuses, and how: the statuses that the document names, in one shape."""

import asyncio
import json
import re
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.harness import Answer, Caller, Clients
from tests.acceptance.things import Things

ADMINS = {("PATCH", "/apps/{app_id}"), ("DELETE", "/apps/{app_id}")}
MISSING = {"page": "0", "take": "101", "next": "nonsense"}


@dataclass(frozen=True)
class Operation:
    """One operation, as the document tells of it."""

    method: str
    template: str
    told: dict[str, Any]

    @property
    def has_body(self) -> bool:
        return "requestBody" in self.told

    def path(self, ids: dict[str, str]) -> str:
        return re.sub(r"{(\w+)}", lambda name: {**ids, "app_id": "c"}[name[1]], self.template)

    def refuses(self, answer: Answer, status: int) -> None:
        """Check that an answer is the refusal that was expected, which the document names."""
        where = (self.method, self.template, answer.body[:300])
        assert answer.status == status, where
        assert str(status) in self.told["responses"], where
        body = answer.json()
        assert body.keys() <= {"status", "message", "errors"}, where
        assert body["status"] == status, where
        assert body["message"], where
        for error in body.get("errors", ()):
            assert error.keys() == {"validation", "code", "message", "path"}, where


@pytest.fixture
async def operations(callers: Clients) -> list[Operation]:
    described = await Caller(callers.session, callers.served, "", "").ok("GET", "/openapi.json")
    return [
        Operation(method.upper(), path, told)
        for path, methods in described["paths"].items()
        for method, told in methods.items()
        if path.startswith("/apps/{app_id}")
    ]


@pytest.fixture
async def things(callers: Clients) -> Things:
    made = await Things(await callers.app("Acme")).make()
    await made.caller.publish(made.ids["workflow_id"])
    return made


async def test_without_a_key(things: Things, operations: list[Operation]) -> None:
    nobody = Caller(things.caller.session, things.caller.served, "", "ins_nobody")
    for operation in operations:
        answer = await nobody.ask(operation.method, operation.path(things.ids))
        operation.refuses(answer, 401)


async def test_with_a_key_that_only_reads(things: Things, operations: list[Operation]) -> None:
    caller = things.caller
    key = (await caller.ok("POST", "keys", {"name": "reads", "read_only": True}))["key"]
    reads = Caller(caller.session, caller.served, caller.app_id, key)
    for operation in operations:
        answer = await reads.ask(operation.method, operation.path(things.ids))
        if operation.method != "GET" or operation.template.endswith("/hooks"):
            operation.refuses(answer, 403)
        elif not operation.template.endswith("/stream"):
            assert answer.status == 200, (operation.template, answer.body)


async def test_queries_that_make_no_sense(things: Things, operations: list[Operation]) -> None:
    asked = 0
    for operation in operations:
        for parameter in operation.told.get("parameters", ()):
            name, schema = parameter["name"], parameter["schema"]
            choices = "enum" in schema or "const" in schema.get("items", {})
            if parameter["in"] != "query" or (name not in MISSING and not choices):
                continue
            asked += 1
            path = f"{operation.path(things.ids)}?{name}={MISSING.get(name, 'nonsense')}"
            answer = await things.caller.ask(operation.method, path)
            operation.refuses(answer, 400)
            assert name in {error["path"][0] for error in answer.json()["errors"]}
    assert asked > 50


async def test_bodies_that_make_no_sense(things: Things, operations: list[Operation]) -> None:
    for operation in operations:
        if not operation.has_body or (operation.method, operation.template) in ADMINS:
            continue
        path = operation.path(things.ids)
        for raw in (b'{"name": ', b"5"):
            answer = await things.caller.ask(operation.method, path, raw=raw)
            operation.refuses(answer, 400)
        typed = {"content-type": "text/plain"}
        answer = await things.caller.ask(operation.method, path, raw=b"x", headers=typed)
        operation.refuses(answer, 415)
        operation.refuses(await _announced(things.caller, operation.method, path, 2**40), 413)


async def _announced(caller: Caller, method: str, path: str, size: int) -> Answer:
    """Announce a body of a size, and send none of it."""
    host, _, port = caller.served.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        lines = (
            f"{method} {path} HTTP/1.1",
            f"Host: {host}:{port}",
            f"Authorization: Bearer {caller.key}",
            "Content-Type: application/json",
            f"Content-Length: {size}",
        )
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        async with asyncio.timeout(10):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = re.search(r"content-length: (\d+)", head)
            body = await reader.readexactly(int(length[1])) if length else b"{}"
        return Answer(int(head.split()[1]), {}, body, 0.0)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_key_of_idempotency_with_another_body(things: Things) -> None:
    once = {"headers": {"idempotency-key": "once"}}
    await things.caller.ok("POST", "tags", {"name": "one"}, **once)
    answer = await things.caller.ask("POST", "tags", {"name": "two"}, **once)
    assert answer.status == 422
    assert json.loads(answer.body)["status"] == 422
