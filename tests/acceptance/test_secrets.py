"""A secret that is planted as a variable, in headers and as a provider's key is nowhere afterwards,
though hundreds of runs tried to have it told.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote, unquote

import psycopg
import pypdfium2
import pytest
from psycopg import sql

from insula.journal.store import expand
from tests.acceptance.conftest import SOAK, Serve
from tests.acceptance.echoes import FORMS, Echoes, echoing, unicode_escapes
from tests.acceptance.estate import everything
from tests.acceptance.harness import Caller, Served, clients

DATABASES = ("sqlite", "postgres")
TOKEN = 'plant"ed/tok\\en &1'
UNUSUAL = "plänted-ünusual 😀"
OWN_KEY = "sk-planted-own-key"
OPERATORS_KEY = "sk-planted-operators-key"
PLANTED = (TOKEN, UNUSUAL, OWN_KEY, OPERATORS_KEY)
RUNS = 1000 if SOAK else 240
AT_ONCE = 8
_SHORT = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))')


@pytest.fixture
async def echoes() -> AsyncIterator[Echoes]:
    async with echoing() as server:
        yield server


def told(text: str) -> list[str]:
    """Return what of the planted stands in a text, however it is escaped."""
    readings = [text]
    if "%" in text or "+" in text:
        readings.append(unquote(text.replace("+", " ")))
    for _ in range(3):  # JSON inside of JSON
        readings += {_unescaped(reading) for reading in readings if "\\" in reading} - {*readings}
    # What was percent-encoded before it was written as JSON.
    readings += [unquote(reading.replace("+", " ")) for reading in readings if "%" in reading]
    return [value for value in PLANTED if any(value in reading for reading in readings)]


def _unescaped(text: str) -> str:
    read = _ESCAPE.sub(_meant, text)
    return read.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _meant(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else _SHORT.get(escape[2], escape[2])


def test_the_search_finds_what_is_told() -> None:
    for value in PLANTED:
        for text in (
            value,
            json.dumps(value),
            json.dumps(json.dumps({"a": value})),
            quote(value),
            unicode_escapes(value),
        ):
            assert told(f"before {text} after") == [value]


class Leaks:
    """Runs that try to have secrets told, and everything that was answered meanwhile."""

    def __init__(self, caller: Caller, echoes: Echoes) -> None:
        self.caller = caller
        self.echoes = echoes
        self.seen: list[str] = []
        self.paths: dict[str, str] = {}

    async def prepare(self) -> None:
        await self._keep("PATCH", "variables", [
            {"key": "TOKEN", "value": TOKEN, "secret": True, "hosts": ["127.0.0.1"]},
            {"key": "UNUSUAL", "value": UNUSUAL, "secret": True},
        ])  # fmt: skip
        await self._keep("POST", "connections", {
            "name": "Own",
            "type": "OPENAI_COMPATIBLE",
            "provider": "own",
            "base_url": f"{self.echoes.url}/v1",
            "credentials": {"api_key": OWN_KEY},
        })  # fmt: skip
        url = self.echoes.url
        documents = {"request": _request(url), "code": _code(url), "model": _model()}
        for name, steps in documents.items():
            self.paths[name] = f"workflows/{await self.caller.push(steps)}"

    async def _keep(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.caller.ask(method, path, body)
        self.seen.append(answer.body.decode())
        self.seen.append(str(dict(answer.headers)))
        return None if answer.headers["content-type"].endswith("yaml") else answer.json()

    async def run(self, number: int) -> None:
        kind = ("request", "code", "model")[number % 3]
        turn = number // 3
        ways = ("say", "escapes", "call", "refuse")
        given = {
            "form": FORMS[turn % len(FORMS)],
            "provider": ("own", "operators")[turn % 2],
            "model": f"{ways[turn // 2 % len(ways)]}-{turn // 8 % len(OPERATORS_KEY)}",
        }
        path = self.paths[kind] + "/runs"
        if turn % 2:
            made = await self._keep("POST", f"{path}?verbose=all", {"input": given})
            run_id = made["id"]
        else:
            async with self.caller.stream(path, {"input": given, "stream": True}) as stream:
                run_id = await stream.run_id()
                events = await stream.to_the_end()
            self.seen += [json.dumps(event.data, ensure_ascii=False) for event in events]
            said = (e.data["output"].get("message") for e in events if e.name == "chunk")
            self.seen.append("".join(part for part in said if isinstance(part, str)))
        await self._keep("GET", f"{path}/{run_id}?verbose=all")

    async def go_around(self) -> None:
        """Let what a run told go wherever else it goes: to webhooks, into tests, records, reports,
        and back in errors."""
        hook = {"url": f"{self.echoes.url}/echo/error", "events": ["record.completed"]}
        ends = ["run.completed", "run.failed"]
        told = await self._keep("POST", "webhooks", {**hook, "run_events": ends})
        del told["secret"]  # the webhook's own
        for kind in self.paths:
            await self.run(("request", "code", "model").index(kind))
            path = self.paths[kind]
            (run,) = await self._keep("GET", f"{path}/runs?take=1")
            test = await self._keep("POST", f"{path}/runs/{run['id']}/test", {"name": "Again"})
            if "id" in test:
                await self._keep("POST", f"{path}/tests/{test['id']}/runs", {})
                await self._keep("GET", f"{path}/tests/{test['id']}?verbose=all")
        await self._record()
        handle = {"input": {"form": "{{secrets.TOKEN}}", "provider": 1}}
        await self._keep("POST", f"{self.paths['request']}/runs", handle)
        step = {"type": "code", "key": "one", "code": "throw new Error(variables.TOKEN)"}
        await self._keep("POST", "runs/step", {"step": step})

    async def _record(self) -> None:
        made = await self._keep("POST", "collections", {"name": "Told"})
        path = f"collections/{made['id']}"
        rules = [
            {"name": kind, "key": kind, "workflow_id": workflow.rpartition("/")[2]}
            for kind, workflow in self.paths.items()
        ]
        await self._keep("PATCH", f"{path}/config", {"rules": rules})
        given = {"form": "json", "provider": "own", "model": "say-3"}
        body = {"rules": dict.fromkeys(self.paths, given), "run": "all"}
        record = await self._keep("POST", f"{path}/records", body)
        path += f"/records/{record['id']}"
        async with asyncio.timeout(30):
            while (await self.caller.ok("GET", path))["status"] in ("QUEUED", "RUNNING"):  # noqa: ASYNC110  # what a client does
                await asyncio.sleep(0.05)
        await self._keep("GET", f"{path}?verbose=all")
        report = await self.caller.ask("GET", f"{path}/download")
        assert report.status == 200
        self.seen.append(report.body.decode("latin-1"))
        with closing(pypdfium2.PdfDocument(report.body)) as document:
            self.seen += [page.get_textpage().get_text_range() for page in document]

    async def look_around(self) -> None:
        """Read everything else that can be read."""
        for path in self.paths.values():
            for part in ("", "/export", "/export?format=yaml", "/versions", "/tests?verbose=all"):
                await self._keep("GET", path + part)
            await self._keep("GET", f"{path}/runs?take=100&verbose=all")
        for path in ("variables", "connections", "runs?take=100", "workflows", "webhooks"):
            await self._keep("GET", path)
        (webhook,) = await self.caller.ok("GET", "webhooks")
        deliveries = f"webhooks/{webhook['id']}/deliveries"
        for delivery in await self._keep("GET", f"{deliveries}?take=100"):
            await self._keep("GET", f"{deliveries}/{delivery['id']}")
        for path in ("/metrics", "/readyz", "/healthz", "/openapi.json"):
            answer = await self.caller.ask("GET", path)
            self.seen.append(answer.body.decode())
        # What the webhook was told, among all that the server heard.
        self.seen += [text for text in self.echoes.heard if '"event":"run.' in text]


def _input(*to: str) -> dict[str, Any]:
    fields = {name: {"type": "string"} for name in ("form", "provider", "model")}
    return {"type": "input", "key": "start", "input": fields, "destinations": [*to]}


def _request(url: str) -> list[dict[str, Any]]:
    request = {
        "type": "http_request",
        "key": "ask",
        "method": "POST",
        "url": url + "/echo/{{input.form}}?q={{secrets.TOKEN}}",
        "headers": {"Authorization": "Bearer {{secrets.TOKEN}}"},
        "body": '{"token": "{{secrets.UNUSUAL}} and {{env.TOKEN}}"}',
        "destinations": ["tell"],
    }
    tell = "console.log(ask.output); return { told: ask.output, body: JSON.stringify(ask.output) }"
    return [_input("ask"), request, {"type": "code", "key": "tell", "code": tell}]


def _code(url: str) -> list[dict[str, Any]]:
    script = f"""
        const answer = await fetch("{url}/echo/" + input.form, {{
            method: "POST",
            headers: {{ Authorization: "Bearer " + variables.TOKEN }},
            body: JSON.stringify({{ token: variables.UNUSUAL + "!" }}),
        }});
        const text = await answer.text();
        let read = text;
        try {{ read = JSON.parse(text) }} catch {{}}
        console.warn(text, read, [...answer.headers]);
        try {{ console.log(decodeURIComponent(text)) }} catch {{}}
        if (input.form === "error") throw new Error("it said " + text);
        return {{ text, read, turned: variables.TOKEN }};
    """
    return [
        _input("ask"),
        {"type": "code", "key": "ask", "code": script, "throw_on_error": False},
    ]


def _model() -> list[dict[str, Any]]:
    provider = {
        "provider": "{{input.provider}}",
        "model": "{{input.model}}",
        "messages": [{"role": "user", "content": "Say {{secrets.TOKEN}} as JSON"}],
        "tools": ["external:TOOL"],
    }
    model = {"type": "model", "key": "ask", "provider": provider, "throw_on_error": False}
    tell = {"type": "code", "key": "tell", "code": "console.log(ask); return ask.output"}
    return [_input("ask"), {**model, "destinations": ["tell"]}, tell]


def stored(served: Served) -> Iterator[str]:
    """Yield all that stands in the data folder and the database, what is compressed unpacked."""
    for file in served.data.rglob("*"):
        if file.is_file() and not file.is_socket():
            yield file.read_bytes().decode("utf-8", "replace")
    for _, rows in everything(served):
        for row in rows:
            yield from map(_opened, row.values())
    if "INSULA_DATABASE_URL" in served.settings:
        yield from copied(served.settings["INSULA_DATABASE_URL"])


def copied(url: str) -> Iterator[str]:
    """Yield every table of a database of PostgreSQL as the server writes it out."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        for (table,) in tables:
            copying = sql.SQL("COPY {} TO STDOUT (FORMAT binary)").format(sql.Identifier(table))
            with connection.cursor().copy(copying) as copy:
                yield b"".join(bytes(part) for part in copy).decode("utf-8", "replace")


def _opened(value: object) -> str:
    if not isinstance(value, bytes):
        return str(value)
    try:
        return expand(value).decode("utf-8", "replace")
    except Exception:  # it is not compressed
        return value.decode("utf-8", "replace")


async def test_secrets_are_nowhere(serve: Serve, echoes: Echoes, database_url: str | None) -> None:
    runs = RUNS if database_url is None or SOAK else RUNS // 4
    served = serve(
        INSULA_PROVIDER_OPERATORS_URL=f"{echoes.url}/v1",
        INSULA_PROVIDER_OPERATORS_KEY=OPERATORS_KEY,
        **({} if database_url is None else {"INSULA_DATABASE_URL": database_url}),
    )
    async with clients(served) as made:
        leaks = Leaks(await made.app("Acme"), echoes)
        await leaks.prepare()
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with gate:
                await leaks.run(number)

        async with asyncio.TaskGroup() as group:
            for number in range(runs):
                group.create_task(one(number))
        await leaks.go_around()
        await leaks.look_around()
    assert [found for text in leaks.seen if (found := told(text))] == []
    assert served.stop() == 0
    texts = list(stored(served))
    assert [found for text in texts if (found := told(text))] == []
    # They were there to be told: the servers heard them, and what they said was covered.
    heard = "".join(echoes.heard)
    assert TOKEN in heard
    assert UNUSUAL in heard
    assert {OWN_KEY, OPERATORS_KEY} <= set(echoes.keys)
    assert sum(text.count("•••") for text in leaks.seen) > runs
    assert any("•••" in text for text in texts)
