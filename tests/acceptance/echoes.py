"""A server that gives back what it is sent, in every way it can think of; and a model provider that
repeats its key.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from aiohttp import web


def unicode_escapes(text: str) -> str:
    """Write every character of a text as JSON may."""
    units = memoryview(text.encode("utf-16-le")).cast("H")
    return "".join(f"\\u{unit:04x}" for unit in units)


@dataclass(slots=True)
class Echoes:
    """What it was sent; ``keys`` are the bearer tokens that models were asked with."""

    url: str = ""
    heard: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def answer(form: str, heard: dict[str, str]) -> web.StreamResponse:
    """Say what was heard in a form."""
    said = json.dumps(heard, ensure_ascii=False)
    as_json = {"content_type": "application/json"}
    match form:
        case "json":
            return web.Response(text=said, **as_json)
        case "ascii":
            return web.Response(text=json.dumps(heard), **as_json)
        case "escapes":
            parts = ",".join(f'"{unicode_escapes(value)}"' for value in heard.values())
            return web.Response(text=f"[{parts}]", **as_json)
        case "nested":
            return web.Response(text=json.dumps({"said": said}), **as_json)
        case "percent":
            return web.Response(text=quote(said, safe=""))
        case "headers":
            headers = {f"X-{name}": quote(value) for name, value in heard.items()}
            return web.Response(headers=headers | {"X-Bearer": heard["bearer"]})
        case "error":
            return web.Response(status=500, text=f"no such key: {said}")
        case "broken":
            return web.Response(text=said[: len(said) // 2], **as_json)
        case "redirect":
            away = f"/echo/json?q={quote(heard['query'], safe='')}"
            return web.Response(status=307, headers={"Location": away})
    return web.Response(text="\n".join(heard.values()))


FORMS = (
    *("plain", "json", "ascii", "escapes", "nested"),
    *("percent", "headers", "error", "broken", "redirect"),
)


class _Server:
    def __init__(self) -> None:
        self.echoes = Echoes()

    async def echo(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        try:
            sent = json.loads(body)["token"]
        except (ValueError, KeyError, TypeError):
            sent = body
        heard = {
            "bearer": request.headers.get("Authorization", "").removeprefix("Bearer "),
            "query": request.query.get("q", ""),
            "body": sent,
        }
        self.echoes.heard += heard.values()
        return answer(request.match_info["form"], heard)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        key = request.headers["Authorization"].removeprefix("Bearer ")
        self.echoes.keys.append(key)
        way, _, number = asked["model"].partition("-")
        if way == "refuse":
            return web.json_response({"error": {"message": f"wrong key {key}"}}, status=401)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in _pieces(way, int(number), key):
            await response.write(b"data: " + json.dumps(piece).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response


def _pieces(way: str, number: int, key: str) -> list[dict[str, Any]]:
    """The answer's pieces: the key is cut after so many characters."""
    if way == "call":
        arguments = json.dumps({"key": key})
        function = {"name": "TOOL", "arguments": arguments}
        call = {"index": 0, "id": f"c{key}", "function": function}
        return [_chunk({"role": "assistant", "tool_calls": [call]}), _chunk({}, "tool_calls")]
    text = f'{{"key":"{unicode_escapes(key)}"}}' if way == "escapes" else f"My key is {key}."
    at = text.find(key) + number if key in text else number
    cut = [text[:at], text[at : at + 1], text[at + 1 :]]
    return [*(_chunk({"role": "assistant", "content": part}) for part in cut), _chunk({}, "stop")]


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": [choice]}


@asynccontextmanager
async def echoing() -> AsyncIterator[Echoes]:
    """Serve on a free port of the loopback."""
    server = _Server()
    app = web.Application()
    app.router.add_route("*", "/echo/{form}", server.echo)
    app.router.add_post("/v1/chat/completions", server.chat)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    server.echoes.url = f"http://127.0.0.1:{port}"
    try:
        yield server.echoes
    finally:
        await runner.cleanup()
