"""V8, through the library of ``mini-racer``: for code that needs ``Intl`` or long hot loops.

Only the library's C interface is used. The Python package around it starts an event loop and
threads; here one callback hands each result to the worker's only thread.
"""

import ctypes
import json
import queue
from importlib import resources

from insula.adapters.sandbox.engine import OUT_OF_MEMORY, EngineError, Given, source

_INTEGER, _BOOLEAN, _NUMBER, _TEXT = 3, 2, 4, 5
_FUNCTION, _ERROR, _OUT_OF_MEMORY = 100, 200, 202
_FLAGS = b"--single-threaded --stack-size=864"
_DEFINE = """
const { G, define, parse } = C;
const plain = (value) => (
  {__proto__: null, value, writable: true, configurable: true, enumerable: true});
define(G, b, {
  __proto__: null, configurable: true, enumerable: true,
  get() { const item = parse(a); define(G, b, plain(item)); return item; },
  set(item) { define(G, b, plain(item)); },
});
"""
# the entry takes its arguments as one JSON text: each value that crosses costs a thread switch
_PRELUDE = """(function () {
const parse = JSON.parse, entry = %s;
return (packed) => { const p = parse(packed); return entry(p[0], p[1], p[2], p[3], p[4]); };
})()"""


class _Union(ctypes.Union):
    _fields_ = (("text", ctypes.c_void_p), ("integer", ctypes.c_int64), ("number", ctypes.c_double))


class _Value(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("value", _Union), ("length", ctypes.c_size_t), ("kind", ctypes.c_uint8))


_Handle = ctypes.POINTER(_Value)
_Callback = ctypes.CFUNCTYPE(None, ctypes.c_uint64, _Handle)
_SIGNATURES = {
    "mr_init_v8": ([ctypes.c_char_p, ctypes.c_char_p], None),
    "mr_init_context": ([_Callback], ctypes.c_uint64),
    "mr_free_context": ([ctypes.c_uint64], None),
    "mr_eval": ([ctypes.c_uint64, _Handle, ctypes.c_uint64], ctypes.c_uint64),
    "mr_alloc_string_val": (
        [ctypes.c_uint64, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint8],
        _Handle,
    ),
    "mr_alloc_int_val": ([ctypes.c_uint64, ctypes.c_int64, ctypes.c_uint8], _Handle),
    "mr_free_value": ([ctypes.c_uint64, _Handle], None),
    "mr_set_object_item": ([ctypes.c_uint64, _Handle, _Handle, _Handle], _Handle),
    "mr_call_function": (
        [ctypes.c_uint64, _Handle, _Handle, _Handle, ctypes.c_uint64],
        ctypes.c_uint64,
    ),
    "mr_hard_memory_limit_reached": ([ctypes.c_uint64], ctypes.c_bool),
    "mr_set_hard_memory_limit": ([ctypes.c_uint64, ctypes.c_size_t], None),
}


class V8:
    """An ``Engine`` on V8; each context is an isolate of its own, with one thread."""

    background = True  # WebAssembly compiles beside the script

    def __init__(self) -> None:
        package = resources.files("py_mini_racer")
        self._library = ctypes.CDLL(str(package / "libmini_racer.so"))
        self._data = str(package / "icudtl.dat").encode()
        for name, (arguments, result) in _SIGNATURES.items():
            function = getattr(self._library, name)
            function.argtypes, function.restype = arguments, result
        self._prelude = _PRELUDE % source("prelude.js")
        self._results: queue.SimpleQueue[ctypes._Pointer[_Value]] = queue.SimpleQueue()
        self._callback = _Callback(lambda _, handle: self._results.put(handle))
        self._context = 0

    def preload(self) -> None:
        """Initialise V8; it starts no thread before the first context."""
        self._library.mr_init_v8(_FLAGS, self._data)

    def prepare(self) -> None:
        """Make a fresh isolate, and keep its entry and one argument list."""
        if self._context:
            self._library.mr_free_context(self._context)
        self._context = self._library.mr_init_context(self._callback)
        self._entry = self._evaluate(self._prelude)
        self._arguments = self._evaluate("[undefined]")
        self._nothing = self._library.mr_alloc_int_val(self._context, 0, 11)
        self._first = self._library.mr_alloc_int_val(self._context, 0, _INTEGER)

    def begin(self, memory: int) -> None:
        """Set the heap's limit. Array buffers lie outside the heap: RLIMIT_DATA bounds them."""
        self._library.mr_set_hard_memory_limit(self._context, memory)

    def define(self, name: str, text: bytes, pristine: bool) -> None:
        """Define a global."""
        self.call(_DEFINE, text.decode(), name)

    def call(
        self, code: str, a: Given = "", b: Given = "", c: Given = "", d: Given = ""
    ) -> bytes | float | None:
        """Call the prelude's entry and wait for its result."""
        packed = self._text(json.dumps((code, a, b, c, d)))
        set_item = self._library.mr_set_object_item
        self._free(set_item(self._context, self._arguments, self._first, packed))
        self._free(packed)
        self._library.mr_call_function(
            self._context, self._entry, self._nothing, self._arguments, 0
        )
        return self._take(self._results.get())

    def drain(self) -> None:
        """Nothing to do: microtasks have run when a call returns."""

    def _text(self, text: str) -> "ctypes._Pointer[_Value]":
        data = text.encode()
        handle: ctypes._Pointer[_Value] = self._library.mr_alloc_string_val(
            self._context, data, len(data), _TEXT
        )
        return handle

    def _evaluate(self, code: str) -> "ctypes._Pointer[_Value]":
        self._library.mr_eval(self._context, self._text(code), 0)
        handle = self._results.get()
        if handle.contents.kind == _ERROR:
            raise EngineError("the prelude failed")
        return handle

    def _free(self, handle: "ctypes._Pointer[_Value]") -> None:
        self._library.mr_free_value(self._context, handle)

    def _take(self, handle: "ctypes._Pointer[_Value]") -> bytes | float | None:
        content = handle.contents
        kind, value = content.kind, content.value
        result: bytes | float | None = None
        if kind == _TEXT or kind >= _ERROR:
            result = ctypes.string_at(value.text, content.length) if content.length else b""
        elif kind in (_INTEGER, _BOOLEAN):
            result = value.integer & 0xFFFFFFFF
        elif kind == _NUMBER:
            result = value.number
        self._free(handle)
        if kind >= _ERROR:
            assert isinstance(result, bytes)
            # a call that was broken off for memory answers with an error that says nothing
            if kind == _OUT_OF_MEMORY or self._library.mr_hard_memory_limit_reached(self._context):
                raise EngineError(OUT_OF_MEMORY)
            raise EngineError(result.decode("utf-8", "replace")[:2000])
        return result
