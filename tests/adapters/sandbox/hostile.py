"""Hostile programs as data: a name, a script, and the ways in which it may end.

``ok`` means that it ends by itself with a value: then the attack has achieved nothing, which the
test checks by what the pool does next.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hostile:
    """One attack."""

    name: str
    script: str
    codes: frozenset[str]
    waits: bool = False
    value: bytes | None = None
    """What an ``ok`` must have brought, where that matters."""
    wall: float = 6.0
    cpu: float = 0.15


def _attack(
    name: str,
    script: str,
    codes: str,
    waits: bool = False,
    value: bytes | None = None,
    wall: float = 6.0,
    cpu: float = 0.15,
) -> Hostile:
    return Hostile(name, script, frozenset(codes.split()), waits, value, wall, cpu)


TIME = "limit_cpu limit_wall"
MEMORY = "limit_memory script engine_crash"
ANY = f"{TIME} {MEMORY} limit_output limit_logs ok"

ENDLESS = (
    _attack("loop", "for (;;) {}", TIME),
    _attack("caught loop", "for (;;) { try { for (;;) {} } catch {} finally { continue } }", TIME),
    _attack("regular expression", "/^(a+)+$/.test('a'.repeat(40) + 'b')", TIME),
    _attack("backreference", r"/(x+x+)+y/.exec('x'.repeat(4000))", TIME),
    _attack("getter", "return { get a() { for (;;) {} } }", TIME),
    _attack("toJSON", "return { toJSON() { for (;;) {} } }", TIME),
    _attack("toString of an error", "throw { get message() { for (;;) {} } }", TIME),
    _attack("proxy", "return new Proxy({}, { ownKeys() { for (;;) {} } })", TIME),
    _attack("join over holes", "Array(2 ** 32 - 1).join()", f"{TIME} {MEMORY}"),
    _attack(
        "native sort", "Array(2 ** 25).fill(1).sort(() => Math.random() - .5)", f"{TIME} {MEMORY}"
    ),
    _attack(
        "native fill", "Array.prototype.fill.call({length: 2 ** 53 - 1}, 1)", f"{TIME} {MEMORY}"
    ),
    _attack("native indexOf", "[].indexOf.call({length: 2 ** 53 - 1}, 1)", f"{TIME} ok"),
    _attack("native copy", "[].copyWithin.call({length: 2 ** 53 - 1}, 1)", f"{TIME} ok"),
    _attack(
        "spread", "Math.max(...{*[Symbol.iterator]() { for (;;) yield 1 }})", f"{TIME} {MEMORY}"
    ),
    _attack("big integer", "let x = 3n; for (;;) x *= x", f"{TIME} {MEMORY}"),
    _attack(
        "atomic wait",
        "Atomics.wait(new Int32Array(new SharedArrayBuffer(8)), 0, 0)",
        f"{TIME} script",
        wall=0.5,
    ),
    _attack(
        "microtasks",
        "const f = () => Promise.resolve().then(f); await f()",
        f"{TIME} {MEMORY}",
        waits=True,
    ),
    _attack(
        "async loop", "const f = async () => { for (;;) await null }; await f()", TIME, waits=True
    ),
    _attack("thenable", "return { then(resolve) { resolve(this) } }", f"{TIME} script", waits=True),
    _attack("console loop", "for (;;) try { console.log('x') } catch {}", f"{TIME} limit_logs"),
    _attack("generator", "function* g() { for (;;) yield* [1] } for (const x of g());", TIME),
    _attack("hash", "for (;;) util.hash('sha512', 'x'.repeat(9999))", TIME),
)

MEMORY_BOMBS = (
    _attack(
        "strings", "const a = []; for (;;) a.push('x'.repeat(1e6) + a.length)", f"{MEMORY} {TIME}"
    ),
    _attack("doubling", "let s = 'x'; for (;;) s += s", MEMORY),
    _attack("repeat", "'a'.repeat(2 ** 30)", MEMORY),
    _attack("padding", "'a'.padEnd(2 ** 31 - 2, 'bc').length", f"{MEMORY} {TIME}"),
    _attack(
        "arrays", "const a = []; for (;;) a.push(new Array(1e5).fill(1.5))", f"{MEMORY} {TIME}"
    ),
    _attack("objects", "let o = {}; for (;;) o = { o, a: [o] }", f"{MEMORY} {TIME}"),
    _attack(
        "typed arrays",
        "const a = []; for (;;) a.push(new Uint8Array(1e7).fill(1))",
        f"{MEMORY} {TIME}",
    ),
    _attack("one typed array", "new Float64Array(2 ** 31).fill(1)", f"{MEMORY} {TIME}"),
    _attack(
        "growing buffer",
        "new ArrayBuffer(8, {maxByteLength: 2 ** 40}).resize(2 ** 39)",
        f"{MEMORY} ok",
    ),
    _attack(
        "map", "const m = new Map(); for (let i = 0;; i++) m.set(i, 'x' + i)", f"{MEMORY} {TIME}"
    ),
    _attack(
        "caught",
        "const a = []; for (;;) try { a.push('x'.repeat(1e6) + a.length) } catch {}",
        f"{MEMORY} {TIME}",
    ),
    _attack("replace", "'a'.repeat(1e6).replace(/a/g, 'b'.repeat(1e4)).length", f"{MEMORY} {TIME}"),
    _attack(
        "regular expressions",
        "for (let i = 0;; i++) new RegExp('a{1,' + i + '}'.repeat(50))",
        f"{MEMORY} {TIME}",
    ),
    _attack(
        "promises",
        "const a = []; for (;;) a.push(new Promise(() => 1))",
        f"{MEMORY} {TIME}",
        waits=True,
    ),
    _attack(
        "closures",
        "let f = () => 1; for (;;) { const g = f, a = [1, 2]; f = () => [g, a] }",
        f"{MEMORY} {TIME}",
    ),
)

RECURSION = (
    _attack("recursion", "(function f() { f() })()", MEMORY),
    _attack(
        "caught recursion", "function f() { try { f() } catch { f() } } f()", f"{MEMORY} {TIME}"
    ),
    _attack(
        "toString",
        "const a = []; a[0] = a; const o = { toString() { return '' + o } }; '' + o",
        MEMORY,
    ),
    _attack(
        "nested array",
        "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; return a",
        f"{MEMORY} {TIME}",
    ),
    _attack(
        "nested text", "JSON.parse('['.repeat(1e5) + ']'.repeat(1e5)); return 1", f"{MEMORY} ok"
    ),
    _attack("nested code", "eval('('.repeat(1e5) + ')'.repeat(1e5))", MEMORY),
    _attack(
        "nested blocks", "new Function('{'.repeat(1e5) + '}'.repeat(1e5)); return 1", f"{MEMORY} ok"
    ),
    _attack(
        "nested pattern", "new RegExp('('.repeat(1e5) + ')'.repeat(1e5)); return 1", f"{MEMORY} ok"
    ),
    _attack(
        "proxies",
        "let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); return p.a",
        f"{MEMORY} {TIME} ok",
    ),
    _attack(
        "bound functions",
        "let f = () => 1; for (let i = 0; i < 1e5; i++) f = f.bind(); return f()",
        f"{MEMORY} {TIME} ok",
    ),
    _attack(
        "prototype chain",
        "let o = {}; for (let i = 0; i < 1e5; i++) o = Object.create(o); return o.a",
        f"{MEMORY} {TIME} ok",
    ),
    _attack(
        "deep text",
        "JSON.stringify([[[1]]]).length; let s = '1'; for (let i = 0; i < 900; "
        "i++) s = '[' + s + ']'; return JSON.parse(s)",
        f"{MEMORY} ok",
    ),
)

HUGE = (
    _attack("output", "'x'.repeat(70000)", "limit_output"),
    _attack("list", "Array(60000).fill(1)", "limit_output"),
    _attack("wide output", "'😀'.repeat(20000)", "limit_output"),
    _attack("log", "console.log('x'.repeat(20000))", "limit_logs"),
    _attack("logs", "for (let i = 0; i < 9999; i++) console.log(i)", "limit_logs"),
    _attack(
        "wide logs",
        "for (let i = 0; i < 9; i++) console.log('😀'.repeat(1000)); return 1",
        "limit_logs",
    ),
    _attack(
        "caught logs",
        "try { for (;;) console.log('x'.repeat(999)) } catch {} return 1",
        "limit_logs",
    ),
    _attack("error", "throw new Error('x'.repeat(5e6))", "script"),
    _attack("error name", "const e = new Error('x'); e.name = 'y'.repeat(5e6); throw e", "script"),
    _attack("stack", "const e = new Error('x'); e.stack = 'y'.repeat(5e6); throw e", "script"),
    _attack("thrown text", "throw 'x'.repeat(5e6)", "script"),
    _attack("thrown object", "throw { a: 'x'.repeat(5e6) }", "script"),
    _attack("requests", "for (;;) fetch('http://x/')", f"script {MEMORY} {TIME}", waits=True),
    _attack(
        "sleeps",
        "await Promise.all(Array.from({length: 2000}, () => util.sleep(1)))",
        "script",
        waits=True,
    ),
    _attack(
        "request body",
        "await fetch('http://x/', {method: 'POST', body: 'x'.repeat(5e6)})",
        "script engine_crash",
        waits=True,
        cpu=3.0,  # going through the body is honest work; it is not what ends it
    ),
    _attack("long sleep", "await util.sleep(1e12)", "script", waits=True),
)

PROTOTYPES = (
    _attack(
        "toJSON of all", "Object.prototype.toJSON = () => 'forged'; return 1", "ok", value=b"1"
    ),
    _attack(
        "array index",
        "Object.defineProperty(Array.prototype, '0', { set() { throw 1 }, "
        "get() { return 'forged' } }); console.log('x'); return 1",
        "ok",
        value=b"1",
    ),
    _attack("stringify", "JSON.stringify = () => '\"forged\"'; return 1", "ok", value=b"1"),
    _attack(
        "apply",
        "R"
        "e"
        "f"
        "l"
        "ect.apply = Function.prototype.apply = Function.prototype.call = () => 'forged'; return 1",
        "ok",
        value=b"1",
    ),
    _attack("function", "globalThis.Function = () => () => 'forged'; return 1", "ok", value=b"1"),
    _attack(
        "descriptor",
        "Object.prototype.get = () => 'forged'; console.log('x'); return input",
        "ok",
        value=b"5",
    ),
    _attack("value", "Object.prototype.value = 'forged'; return input", "ok", value=b"5"),
    _attack(
        "then",
        "Object.prototype.then = function (resolve) { resolve('forged') }; return 1",
        "ok",
        value=b"1",
    ),
    _attack(
        "promise then",
        "Promise.prototype.then = () => 'forged'; return await 1",
        "ok script",
        waits=True,
    ),
    _attack("caller", "return (function f() { return String(f.caller) })()", "ok script"),
    _attack(
        "arguments of the harness",
        "function f() { return f.caller.arguments[0] } return f()",
        "ok script",
    ),
    _attack(
        "stack trace",
        "Error.prepareStackTrace = (e, "
        "f"
        "r"
        "ames) => frames.map(f => f.getFunction && String(f.getFunction())).join(); "
        "return new Error().stack",
        "ok",
    ),
    _attack(
        "stack trace of the harness",
        "Error.prepareStackTrace = (e, frames) => { for (;;) {} }; throw new Error('x')",
        f"{TIME} script",
    ),
    _attack(
        "error name",
        "Object.prototype.name = 'forged'; Object.prototype.code = 'limit_cpu'; throw {}",
        "script",
    ),
    _attack(
        "forged limit",
        "const e = new Error('the logs have reached their limit'); e.code = 'limit_cpu'; throw e",
        "script",
    ),
    _attack("sealed console", "Object.freeze(globalThis); return 1", "ok", value=b"1"),
    _attack(
        "broken regular expressions",
        "R"
        "e"
        "g"
        "Exp.prototype.exec = RegExp.prototype[Symbol.replace] = () => { throw 1 }; "
        "return util.formatNumber(1)",
        "ok script",
    ),
    _attack(
        "broken iterators",
        "Array.prototype[Symbol.iterator] = null; console.log(1); return util.uuid().length",
        "ok script",
    ),
)

REACHING = (
    _attack("process", "process.exit(1)", "script"),
    _attack("require", "require('fs').readFileSync('/etc/passwd')", "script"),
    _attack("import", "return import('fs')", "script", waits=True),
    _attack("import a file", "await import('/etc/passwd')", "script", waits=True),
    _attack("import statement", "import fs from 'fs'", "script"),
    _attack(
        "constructor", "return globalThis.constructor.constructor('return process')()", "script"
    ),
    _attack("function", "return (() => 1).constructor('return this.process.env')()", "script"),
    _attack(
        "host of console", "return console.log.constructor('return this')().process.pid", "script"
    ),
    _attack(
        "host of fetch", "return fetch.constructor('return arguments.callee.caller')()", "ok script"
    ),
    _attack(
        "std", "return [typeof std, typeof os, typeof bjson, typeof Deno, typeof Bun].join()", "ok"
    ),
    _attack("python", "return [typeof __import__, typeof python, typeof _quickjs].join()", "ok"),
    _attack("load", "load('/etc/passwd')", "script"),
    _attack("read", "read('/etc/passwd')", "script"),
    _attack("print", "print('x'); quit()", "script"),
    _attack("worker", "new Worker('data:,')", "script"),
    _attack("socket", "new WebSocket('ws://127.0.0.1:1')", "script"),
    _attack("request", "new XMLHttpRequest()", "script"),
    _attack("fetch without leave", "fetch('http://127.0.0.1/')", "script"),
    _attack("fetch without egress", "await fetch('file:///etc/passwd')", "script", waits=True),
    _attack("natives", "return eval('%DebugPrint(1)')", "script"),
    _attack("crash", "return eval('%AbortJS(\"x\")')", "script"),
)

WEBASSEMBLY = (
    _attack("memory", "new WebAssembly.Memory({initial: 65536}); return 1", f"{MEMORY} ok"),
    _attack(
        "memories",
        "const a = []; for (;;) { const m = new WebAssembly.Memory({initial: 100}); "
        "new Uint8Array(m.buffer).fill(1); a.push(m) }",
        f"{MEMORY} {TIME}",
    ),
    _attack(
        "table",
        "const a = []; for (;;) a.push(new WebAssembly.Table({initial: 1e6, element: 'anyfunc'}))",
        f"{MEMORY} {TIME}",
    ),
    _attack(
        "compile",
        "await WebAssembly.compile(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])); return 1",
        "ok",
        waits=True,
    ),
    _attack(
        "date formats",
        "for (;;) new Intl.DateTimeFormat('ar-u-ca-islamic', {dateStyle: 'full'}).format()",
        f"{MEMORY} {TIME}",
    ),
)

ATTACKS = (*ENDLESS, *MEMORY_BOMBS, *RECURSION, *HUGE, *PROTOTYPES, *REACHING)
