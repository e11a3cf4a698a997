"""A small HTTP server on the loopback that answers from a table and remembers what it was asked."""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Asked:
    """One request as it came in."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any


@dataclass
class Answer:
    """What to send: a value as JSON, or pieces of an event stream."""

    value: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Iterable[bytes] | None = None


Handler = Callable[[Asked], Answer]


@dataclass
class FakeServer:
    """Routes are tried in order; what matches none is 404 with the contract's error body."""

    url: str
    routes: list[tuple[str, re.Pattern[str], Handler]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def on(self, method: str, path: str, answer: Answer | Handler) -> None:
        """Answer requests whose whole path matches the pattern."""
        handler = answer if callable(answer) else lambda asked: answer
        self.routes.append((method, re.compile(path), handler))

    def answer(self, asked: Asked) -> Answer:
        """Find the answer to a request."""
        self.asked.append(asked)
        for method, path, handler in self.routes:
            if method == asked.method and path.fullmatch(asked.path):
                return handler(asked)
        return Answer({"status": 404, "message": f"There is no {asked.path}"}, 404)


def event(name: str, data: Any, number: int | None = None) -> bytes:
    """Encode one server-sent event."""
    head = f"id: {number}\n" if number is not None else ""
    return f"{head}event: {name}\ndata: {json.dumps(data)}\n\n".encode()


class _OnSocketFile(ThreadingHTTPServer):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        self.socket.bind(self.server_address)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        return self.socket.accept()[0], ("local", 0)


@contextmanager
def serving(path: str | None = None) -> Iterator[FakeServer]:
    """Serve until the block is left, on the loopback or on a socket file."""
    if path is None:
        http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    else:
        http = _OnSocketFile(path, _Handler)  # type: ignore[arg-type]  # its stub knows no paths
    http.daemon_threads = True
    server = FakeServer(f"http://127.0.0.1:{http.server_address[1]}" if path is None else path)
    http.fake = server  # type: ignore[attr-defined]  # the handler's only way to it
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _any(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(
            self.command,
            parts.path,
            parse_qs(parts.query),
            headers,
            json.loads(body) if body else None,
        )
        answer = self.server.fake.answer(asked)  # type: ignore[attr-defined]  # set by serving()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.pieces is None:
            content = json.dumps(answer.value).encode()
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        try:
            for piece in answer.pieces:
                self.wfile.write(piece)
                self.wfile.flush()
        except ConnectionError:
            self.close_connection = True  # the client went away, as some tests want it to

    do_GET = do_POST = do_PATCH = do_DELETE = _any
