"""QuickJS: the default lane. Small contexts, made in a tenth of a millisecond.

The native module is used directly: the ``quickjs`` package around it starts a thread on import, and
a process with threads cannot be forked safely.
"""

from typing import Any

import _quickjs

from insula.adapters.sandbox.engine import OUT_OF_MEMORY, EngineError, Given, source

_STACK = 1024 * 1024
_EAGER = 16 * 1024
"""Up to this many bytes a value is parsed at once; a larger one when a script first uses it."""
_STRUCTURED = (b"{", b"[")
"""How objects and lists begin: only these do not turn into Python's values on the way."""

_DEFINE = """
C.define(C.G, b, {
  __proto__: null, value: C.parse(a), writable: true, configurable: true, enumerable: true,
});
"""
_DEFINE_LAZILY = """
const { G, define, parse } = C;
const plain = (value) => (
  {__proto__: null, value, writable: true, configurable: true, enumerable: true});
define(G, b, {
  __proto__: null, configurable: true, enumerable: true,
  get() { const item = parse(a); define(G, b, plain(item)); return item; },
  set(item) { define(G, b, plain(item)); },
});
"""


class QuickJs:
    """An ``Engine`` on quickjs-ng."""

    background = False

    def __init__(self) -> None:
        self._prelude = source("prelude.js")
        self._context: Any = None
        self._entry: Any = None

    def preload(self) -> None:
        """Nothing more to load than this module has."""

    def prepare(self) -> None:
        """Make a fresh context; the former one is freed with all it held."""
        self._entry = self._context = None
        self._context = _quickjs.Context()
        self._context.set_max_stack_size(_STACK)
        self._entry = self._context.eval(self._prelude)

    def begin(self, memory: int) -> None:
        """Set the engine's own limit, which counts every allocation of the context."""
        self._context.set_memory_limit(memory)

    def define(self, name: str, text: bytes, pristine: bool) -> None:
        """Define a global; in an untouched context without compiling anything for it."""
        if len(text) > _EAGER:
            self.call(_DEFINE_LAZILY, text.decode(), name)
        elif pristine and text[:1] in _STRUCTURED:
            self._context.set(name, self._context.parse_json(text.decode()))
        else:
            self.call(_DEFINE, text.decode(), name)

    def call(
        self, code: str, a: Given = "", b: Given = "", c: Given = "", d: Given = ""
    ) -> bytes | float | None:
        """Call the prelude's entry."""
        try:
            result: str | float | None = self._entry(code, a, b, c, d)
            return result.encode() if isinstance(result, str) else result
        except (_quickjs.JSException, MemoryError, TypeError, UnicodeError) as error:
            raise EngineError(_reason(error)) from None

    def drain(self) -> None:
        """Run pending jobs until there are none; a job that throws is a promise's affair."""
        try:
            while self._context.execute_pending_job():
                pass
        except (_quickjs.JSException, MemoryError) as error:
            raise EngineError(_reason(error)) from None


def _reason(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, MemoryError) or OUT_OF_MEMORY in text:
        return OUT_OF_MEMORY
    return text[:2000] or "the engine could not answer"
