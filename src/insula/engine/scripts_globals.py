"""The names that JavaScript, or the sandbox, gives a meaning of its own."""

from typing import Final

_GLOBALS: Final = """
AggregateError Array ArrayBuffer Atomics BigInt BigInt64Array BigUint64Array Boolean DataView Date
Error EvalError FinalizationRegistry Float16Array Float32Array Float64Array Function Infinity
Int16Array Int32Array Int8Array Intl Iterator JSON Map Math NaN Number Object Promise Proxy
RangeError ReferenceError Reflect RegExp Set SharedArrayBuffer String Symbol SyntaxError Temporal
TextDecoder TextEncoder TypeError URIError URL URLSearchParams Uint16Array Uint32Array Uint8Array
Uint8ClampedArray WeakMap WeakRef WeakSet WebAssembly arguments atob btoa clearTimeout console
decodeURI decodeURIComponent encodeURI encodeURIComponent escape eval false fetch global globalThis
isFinite isNaN new null parseFloat parseInt performance queueMicrotask self setTimeout
structuredClone super this true undefined unescape util window
"""
GLOBALS: Final = frozenset(_GLOBALS.split())

SCOPE_NAMES: Final = frozenset(
    ("input", "item", "index", "args", "variables", "env", "secrets", "util", "console")
)
"""What a scope holds besides steps; no step may have such a key."""

_RESERVED: Final = """
__proto__ arguments await break case catch class const continue debugger default delete do else enum
eval export extends false finally for function if implements import in instanceof interface let new
null package private protected public return static super switch this throw true try typeof
undefined var void while with yield Infinity NaN globalThis
"""
RESERVED: Final = frozenset(_RESERVED.split())
"""What JavaScript keeps for itself, strict code included."""
