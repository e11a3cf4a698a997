"""A worker's life: evaluate what the server sends, one at a time, each in a fresh context.

Everything here runs behind the walls. The next context is made after an answer has been sent, so
that nobody waits for it.
"""

import json
import os
import re
import resource
import time
from functools import cache

from insula.adapters.sandbox import frames
from insula.adapters.sandbox.confinement import Walls
from insula.adapters.sandbox.engine import OUT_OF_MEMORY, Engine, EngineError, source
from insula.adapters.sandbox.frames import Answer, Channel, Failed, Kind, Result, Run, frame

_UNDONE, _PENDING = 2, 3
_GROWN = 32 * 1024
"""KiB of resident memory beyond its first by which a worker has grown so much that it should go."""

# Parts of the prelude are compiled only for scripts that name them, or could by a detour.
_WORDS = re.compile(
    r"console|fetch|util|await|async|Promise|eval|Function|globalThis|constructor|this|\\u|import"
)
_DETOURS = frozenset(("eval", "Function", "globalThis", "constructor", "this", "\\u"))
_CONSOLE = _DETOURS | {"console"}
_UTIL = _DETOURS | {"util"}
_WAITING = _UTIL | {"fetch", "await", "async", "Promise"}

_REHEARSAL = Run(
    ("return input.a",), ("input",), [b'{"a":1}'], (), False, 1 << 27, 1 << 20, 1 << 20
)
"""Run once before the first: it touches the memory that the fork has shared, while nobody waits."""

_ABSENT = (
    "C.define(C.G, a, {__proto__: null, value: undefined, writable: true, configurable: true});"
)
_FRAME = re.compile(r"at (?:(?P<name>\S+) \()?.*?(?:<input>|script):(?P<line>\d+)")
_PATIENCE = (0.001,) * 10 + (0.01,) * 19 + (0.1,) * 18
"""Seconds between looks at a promise that only the engine itself can still settle: 2 in all."""
_LONE = re.compile(rb"(?<!\\)((?:\\\\)*)\\ud[89a-f][0-9a-f]{2}")
"""A lone surrogate as ``JSON.stringify`` writes it; pairs it writes as characters."""
_SCRIPT_HEADER = 2
"""Lines that engines put before the body of a function made from text."""


def serve(channel: Channel, walls: Walls, engine: Engine) -> None:
    """Serve until the server is gone."""
    engine.prepare()
    if not engine.background:
        _Evaluation(engine, walls, channel, _REHEARSAL).perform()
        engine.prepare()
    resident = _resident()
    channel.write(frame(Kind.READY, frames.Ready(walls.missing, resident)))
    while True:
        try:
            kind, data = channel.read()
        except EOFError:
            os._exit(0)
        if kind != Kind.RUN:
            os._exit(2)
        answer = _Evaluation(engine, walls, channel, frames.decode_run(data)).perform()
        answer.retire = _resident() > resident + _GROWN
        channel.write(frame(Kind.RESULT if isinstance(answer, Result) else Kind.FAILED, answer))
        del answer, data
        engine.prepare()


class _Stopped(Exception):
    """The evaluation ends here."""

    def __init__(self, code: str, message: str = "", name: str = "", line: int = 0) -> None:
        super().__init__(message)
        self.code, self.name, self.message, self.line = code, name, message, line


class _Evaluation:
    """One evaluation, inside the worker."""

    def __init__(self, engine: Engine, walls: Walls, channel: Channel, run: Run) -> None:
        self._engine = engine
        self._walls = walls
        self._channel = channel
        self._run = run
        self._index = 0
        self._logging = False
        self._waiting = False

    def perform(self) -> Result | Failed:
        """Run all scripts, or up to the first that fails."""
        try:
            return Result(self._evaluate(), self._logs(), False)
        except _Stopped as stopped:
            return self._failed(stopped)
        except EngineError as error:
            code = "limit_memory" if str(error) == OUT_OF_MEMORY else "script"
            return self._failed(_Stopped(code, str(error), "Error"))
        except MemoryError:
            return self._failed(_Stopped("limit_memory"))

    def _evaluate(self) -> list[bytes | None]:
        run = self._run
        self._engine.begin(self._walls.limit_memory(run.memory))
        self._equip()
        outputs: list[bytes | None] = []
        room = run.output
        for self._index, script in enumerate(run.scripts):
            for name, text in zip(run.names, run.texts, strict=True):
                self._engine.define(name, text, self._index == 0)
            output = self._value(script)
            _refuse_lone(output)
            room -= len(output or b"")
            if room < 0:
                raise _Stopped("limit_output")
            outputs.append(output)
        return outputs

    def _equip(self) -> None:
        run, engine = self._run, self._engine
        words = {word for script in run.scripts for word in _WORDS.findall(script)}
        if not words.isdisjoint(_CONSOLE):
            engine.call(_part("console.js"), run.logs)
            self._logging = True
        if not words.isdisjoint(_WAITING):
            self._prepare_waiting()
        if not words.isdisjoint(_UTIL):
            engine.call(_part("util.js"), _util_parts(), os.urandom(16).hex())
        if run.asked != "value":
            engine.call(_part("asked.js"))
        for name in run.absent:
            engine.call(_ABSENT, name)

    def _prepare_waiting(self) -> None:
        self._engine.call(_part("waiting.js"), self._run.waits)
        self._waiting = True

    def _value(self, script: str) -> bytes | None:
        asynchronous = self._run.waits and "await" in script
        expression = script.rstrip("; \t\r\n")
        mark = "\n//# sourceURL=script"
        asked = "" if self._run.asked == "value" else self._run.asked
        result = self._engine.call("", expression + mark, script + mark, asynchronous, asked)
        if result == _PENDING:
            result = self._wait()
        if result == _UNDONE:
            raise self._failure()
        if self._logging and self._engine.call("return C.overLogs"):
            raise _Stopped("limit_logs")
        return result if isinstance(result, bytes) else None

    def _wait(self) -> bytes | float | None:
        engine = self._engine
        if not self._run.waits:
            raise _Stopped(
                "script", "the value is a promise: only code steps may wait", "TypeError"
            )
        if not self._waiting:
            self._prepare_waiting()
        engine.call("C.pending()")
        asked = 0
        patience = _PATIENCE if engine.background else ()
        pauses = iter(patience)
        while True:
            engine.drain()
            result = engine.call("return C.settle()")
            if result != _PENDING:
                return result
            requests = engine.call("return C.requests()")
            if isinstance(requests, bytes) and requests != b"[]":
                asked += len(json.loads(requests))
                self._channel.write(frame(Kind.REQUESTS, requests))
            if asked:
                asked -= self._take_answers()
                pauses = iter(patience)
                continue
            pause = next(pauses, None)
            if pause is None:
                raise _Stopped("script", "it waits for a promise that nothing will settle", "Error")
            time.sleep(pause)

    def _take_answers(self) -> int:
        try:
            kind, data = self._channel.read()
        except EOFError:
            os._exit(0)
        if kind != Kind.ANSWERS:
            os._exit(2)
        answers = frames.decode_answers(data)
        for answer in answers:
            self._answer(answer)
        return len(answers)

    def _answer(self, answer: Answer) -> None:
        told = "value" if answer.value else ""
        if answer.status:
            told = json.dumps(
                {"status": answer.status, "url": answer.url, "headers": answer.headers}
            )
        body = answer.body.decode("utf-8", "replace")
        self._engine.call("C.answer(a, b, c, d)", answer.id, answer.error, told, body)

    def _failure(self) -> _Stopped:
        if self._logging and self._engine.call("return C.overLogs"):
            return _Stopped("limit_logs")
        told = self._engine.call(_part("failures.js"))
        error = json.loads(told) if isinstance(told, bytes) else {}
        name, message = str(error.get("name")), str(error.get("message"))
        if (name, message) in _MEMORY_ERRORS:
            return _Stopped("limit_memory")
        line = _line(str(error.get("stack")), bool(error.get("own")))
        return _Stopped("script", message, name, line)

    def _failed(self, stopped: _Stopped) -> Failed:
        try:
            logs = self._logs()
        except (EngineError, MemoryError, _Stopped):
            logs = None
        return Failed(
            code=stopped.code,  # type: ignore[arg-type]  # one of the codes that this file raises
            script=self._index,
            name=_clean(stopped.name),
            message=_clean(stopped.message),
            line=stopped.line,
            logs=logs,
            retire=False,
        )

    def _logs(self) -> bytes | None:
        if not self._logging:
            return None
        logs = self._engine.call("return C.logs()")
        if not isinstance(logs, bytes):
            return None
        if b"\\ud" in logs:
            logs = _LONE.sub(rb"\1\\ufffd", logs)
        if len(logs) > self._run.logs:
            raise _Stopped("limit_logs")
        return logs


_MEMORY_ERRORS = frozenset(
    (("InternalError", "out of memory"), ("RangeError", "Array buffer allocation failed"))
)


@cache
def _part(name: str) -> str:
    return source(name)


@cache
def _util_parts() -> str:
    return json.dumps({"hash": source("hash.js"), "format": source("format.js")})


def load_parts() -> None:
    """Read the prelude's parts, in the zygote: behind the walls no file can be read."""
    for name in ("asked.js", "console.js", "waiting.js", "util.js", "failures.js"):
        _part(name)
    _util_parts()


def _line(stack: str, own: bool) -> int:
    """Find the line of the script: where it threw, or where it called what of ours has thrown."""
    found = [(match["name"], int(match["line"])) for match in _FRAME.finditer(stack)]
    if own:
        found = [entry for entry in found if entry[0] in ("anonymous", "eval")]
    return max(0, found[0][1] - _SCRIPT_HEADER) if found else 0


def _refuse_lone(output: bytes | None) -> None:
    if output and b"\\ud" in output and _LONE.search(output):
        message = "the value holds half a character (a lone surrogate), which text cannot hold"
        raise _Stopped("script", message, "TypeError")


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()[:4000]


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
