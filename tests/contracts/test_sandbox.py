"""What every lane of the sandbox does alike: one suite, both engines."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from tests.adapters.sandbox.pools import open_pool

from insula.adapters.sandbox.pool import SandboxPool
from insula.engine.failures import NoRoom, StepFailure, Unanswerable
from insula.engine.ports import (
    Activity,
    Asked,
    Evaluated,
    Evaluation,
    Fetch,
    HttpRequest,
    HttpResponse,
    Lane,
    Limits,
)
from insula.kit.json import Raw

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENOUGH = Limits(cpu=5, wall=10)


@pytest.fixture(params=["quickjs", "v8"])
def lane(request: pytest.FixtureRequest) -> Lane:
    return "v8" if request.param == "v8" else "quickjs"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[SandboxPool]:
    """One for all: none leaves anything behind for the next."""
    async with open_pool() as pool:
        yield pool


async def run(
    pool: SandboxPool,
    lane: Lane,
    *scripts: str,
    waits: bool = False,
    absent: tuple[str, ...] = (),
    fetch: Fetch | None = None,
    limits: Limits = ENOUGH,
    asked: Asked = "value",
    **scope: object,
) -> Evaluated:
    texts = {name: Raw(json.dumps(value).encode()) for name, value in scope.items()}
    evaluation = Evaluation(
        "app_a",
        scripts,
        texts,
        absent,
        lane,
        waits=waits,
        asked=asked,
        limits=limits,
        fetch=fetch,
    )
    return await pool.evaluate(evaluation, Activity("code", 0))


async def value(pool: SandboxPool, lane: Lane, script: str, **others: object) -> object:
    evaluated = await run(pool, lane, script, **others)  # type: ignore[arg-type]  # passed through
    (output,) = evaluated.outputs
    return None if output is None else json.loads(bytes(output))


async def failure(pool: SandboxPool, lane: Lane, script: str, **others: object) -> StepFailure:
    with pytest.raises(StepFailure) as caught:
        await run(pool, lane, script, **others)  # type: ignore[arg-type]  # passed through
    return caught.value


async def test_values(pool: SandboxPool, lane: Lane) -> None:
    for script, expected in (
        ("input.a", 5),
        ("input.a;", 5),
        ("return input.a + 1", 6),
        ("{a: 1}", {"a": 1}),
        ("{}", {}),
        ("if (input.a > 3) { return 'more' }", "more"),
        ("const input = 3; return input", 3),
        ("", None),
        ("// nothing", None),
        ("undefined", None),
        ("null", None),
        ("NaN", None),
        ("return new Date(0)", "1970-01-01T00:00:00.000Z"),
        ("input.text", "é\x00😀"),
        ("[undefined, {x: undefined}]", [None, {}]),
        ("typeof process + typeof require + typeof std", "undefined" * 3),
    ):
        found = await value(pool, lane, script, input={"a": 5, "text": "é\x00😀"})
        assert found == expected, script


async def test_undefined_is_not_null(pool: SandboxPool, lane: Lane) -> None:
    evaluated = await run(pool, lane, "undefined", "null")
    assert evaluated.outputs[0] is None
    assert bytes(evaluated.outputs[1] or b"") == b"null"


async def test_truth_is_what_javascript_takes_for_true(pool: SandboxPool, lane: Lane) -> None:
    true = ("1/0", "new Number(0)", "new Date(NaN)", "10n", "() => 0", "Symbol('a')", "'0'", "[]")
    true += ("({toJSON() { return null }})", "const a = {}; a.a = a; return a", "'\\ud800'")
    false = ("0/0", "-0", "0n", "''", "null", "undefined", "if (input.a) return 1")
    done = await run(pool, lane, *true, *false, asked="truth", input={"a": 0})
    assert done.outputs == (Raw(b"true"),) * len(true) + (Raw(b"false"),) * len(false)
    judged = ("1/0", "new Date(NaN)", "0/0", "undefined", "({a: 1.50})", "'x'")
    both = await run(pool, lane, *judged, asked="judged")
    texts = ("[true,null]", "[true,null]", "[false,null]", "[false,null]", '[true,{"a":1.5}]')
    assert both.outputs == tuple(Raw(text.encode()) for text in (*texts, '[true,"x"]'))
    assert (
        "only code steps may wait"
        in (await failure(pool, lane, "Promise.resolve(false)", asked="truth")).message
    )


async def test_only_nothing_and_false_end_a_loop(pool: SandboxPool, lane: Lane) -> None:
    ends = ("null", "undefined", "false", "if (input) return; return 1")
    items = ("0", "''", "new Boolean(false)", "new Date(NaN)", "[0/0]", "({toJSON() {}})")
    done = await run(pool, lane, *ends, *items, asked="item", input=True)
    texts = (b"0", b'""', b"false", b"null", b"[null]", b"null")
    assert done.outputs == (None,) * len(ends) + tuple(map(Raw, texts))
    for script, words in (
        ("0/0", "a number that is not finite"),
        ("1/input.a", "a number that is not finite"),
        ("10n", "a bigint"),
        ("() => 1", "a function"),
    ):
        failed = await failure(pool, lane, script, asked="item", input={"a": 0})
        assert failed.code == "script"
        assert f"the value is {words}" in failed.message


async def test_errors_name_what_where_and_which_script(pool: SandboxPool, lane: Lane) -> None:
    found = await failure(pool, lane, "const a = 1;\n\nthrow new RangeError('too far')")
    assert (found.code, found.message) == ("script", "RangeError: too far (line 3)")
    found = await failure(pool, lane, "return nothing.here")
    assert "ReferenceError: nothing is not defined (line 1)" in found.message
    found = await failure(pool, lane, "throw {a: 1}")
    assert found.message == 'Error: thrown: {"a":1}'
    found = await failure(pool, lane, "const = 1")
    assert found.message.startswith("SyntaxError")
    with pytest.raises(StepFailure, match="script 2"):
        await run(pool, lane, "1", "throw new Error('x')")


async def test_an_absent_step_is_undefined_and_named(pool: SandboxPool, lane: Lane) -> None:
    absent = ("fetched", "other")
    assert await value(pool, lane, "fetched?.output ?? 7", absent=absent) == 7
    assert await value(pool, lane, "typeof fetched", absent=absent) == "undefined"
    found = await failure(pool, lane, "return fetched.output.a", absent=absent)
    assert found.code == "script"
    assert "The step fetched did not run" in found.message
    found = await failure(pool, lane, "const {output} = other; return output", absent=absent)
    assert "The step other did not run" in found.message
    found = await failure(pool, lane, "const x = undefined; return x.output", absent=absent)
    assert "did not run" not in found.message


async def test_what_json_cannot_hold_is_refused(pool: SandboxPool, lane: Lane) -> None:
    for script, word in (
        ("() => 1", "function"),
        ("return {a: [() => 1]}", "function"),
        ("Symbol('x')", "symbol"),
        ("return {deep: {big: 10n}}", '"big" is a bigint'),
        ("const a = {}; a.a = a; return a", "circular"),
        ("'\\ud800'", "surrogate"),
        ("return {'\\udfff': 1}", "surrogate"),
        ("Promise.resolve(1)", "promise"),
    ):
        found = await failure(pool, lane, script)
        assert found.code == "script", script
        assert word in found.message, script


async def test_backslashes_are_no_surrogates(pool: SandboxPool, lane: Lane) -> None:
    assert await value(pool, lane, r"'\\ud800 \\\\udc00'") == r"\ud800 \\udc00"


async def test_scripts_share_a_context_and_get_their_scope_afresh(
    pool: SandboxPool, lane: Lane
) -> None:
    evaluated = await run(
        pool, lane, "input.a = 2; return input.a", "input.a", "var input = 9; input", input={"a": 1}
    )
    assert [bytes(output or b"") for output in evaluated.outputs[:2]] == [b"2", b"1"]


async def test_evaluations_share_nothing(pool: SandboxPool, lane: Lane) -> None:
    await run(pool, lane, "globalThis.left = 1; Array.prototype.map = null; return 1")
    assert await value(pool, lane, "typeof left + typeof [].map") == "undefinedfunction"


async def test_big_values_arrive(pool: SandboxPool, lane: Lane) -> None:
    data = {"rows": ["x" * 100] * 20_000}
    assert await value(pool, lane, "big.rows.length", big=data) == 20_000
    assert await value(pool, lane, "big = 3; return big", big=data) == 3
    assert await value(pool, lane, "big", big=data) == data


async def test_console(pool: SandboxPool, lane: Lane) -> None:
    evaluated = await run(
        pool,
        lane,
        "console.log('a', 1, {b: [2]}); console.warn(undefined, null, 1n, () => 1);"
        "console.error(new TypeError('no')); console.debug('\\ud800'); return 1",
    )
    assert evaluated.logs is not None
    lines = json.loads(bytes(evaluated.logs))
    assert [line["level"] for line in lines] == ["info", "warn", "error", "debug"]
    assert lines[0]["args"] == ["a", 1, {"b": [2]}]
    assert lines[1]["args"] == ["undefined", None, "1n", "[function]"]
    assert lines[2]["args"] == ["TypeError: no"]
    assert lines[3]["args"] == ["\ufffd"]
    assert all(line["time"] > 1_600_000_000_000 for line in lines)


async def test_a_failure_keeps_its_logs(pool: SandboxPool, lane: Lane) -> None:
    found = await failure(pool, lane, "console.log('before'); throw new Error('x')")
    assert found.logs is not None
    assert json.loads(bytes(found.logs))[0]["args"] == ["before"]


async def test_await(pool: SandboxPool, lane: Lane) -> None:
    for script, expected in (
        ("return await Promise.resolve(1)", 1),
        ("await Promise.resolve({a: 1})", {"a": 1}),
        ("return Promise.all([1, Promise.resolve(2)])", [1, 2]),
        ("await util.sleep(1); return 'slept'", "slept"),
        ("return Promise.all([util.sleep(2), util.sleep(1)]).then(() => 'both')", "both"),
    ):
        assert await value(pool, lane, script, waits=True) == expected, script
    found = await failure(pool, lane, "await Promise.reject(new Error('no'))", waits=True)
    assert found.message.startswith("Error: no")
    found = await failure(pool, lane, "util.sleep(1)")
    assert "only code steps may wait" in found.message


async def test_a_promise_that_nothing_settles_fails(pool: SandboxPool) -> None:
    found = await failure(pool, "quickjs", "await new Promise(() => 1)", waits=True)
    assert "nothing will settle" in found.message


async def test_fetch(pool: SandboxPool, lane: Lane) -> None:
    seen: list[HttpRequest] = []

    async def fetch(request: HttpRequest) -> HttpResponse:
        seen.append(request)
        if "refused" in request.url:
            raise StepFailure("nobody listens there", "refused")
        status = 404 if "missing" in request.url else 200
        body = json.dumps({"you": request.url}).encode()
        return HttpResponse(status, (("X-One", "1"), ("x-one", "2")), body, request.url)

    script = """
      const [a, b] = await Promise.all([
        fetch("http://x/1", {method: "post", headers: {"X-A": 1}, body: "é"}),
        fetch("http://x/missing"),
      ]);
      let refused = "";
      try { await fetch("http://refused/") } catch (error) { refused = error.message }
      return [a.ok, a.status, a.headers.get("X-ONE"), (await a.json()).you, b.ok, b.status,
              await b.text(), b.headers.get("none"), refused];
    """
    found = await value(pool, lane, script, waits=True, fetch=fetch)
    assert found == [
        True,
        200,
        "1, 2",
        "http://x/1",
        False,
        404,
        '{"you": "http://x/missing"}',
        None,
        "nobody listens there",
    ]
    assert (seen[0].method, seen[0].headers, seen[0].body) == (
        "POST",
        (("X-A", "1"),),
        "é".encode(),
    )
    assert (seen[1].method, seen[1].body) == ("GET", None)


async def test_fetches_run_together(pool: SandboxPool, lane: Lane) -> None:
    both = asyncio.Barrier(2)

    async def fetch(request: HttpRequest) -> HttpResponse:
        async with asyncio.timeout(5):
            await both.wait()
        return HttpResponse(200, (), b"1", request.url)

    script = "(await Promise.all([fetch('http://a'), fetch('http://b')])).length"
    assert await value(pool, lane, script, waits=True, fetch=fetch) == 2


async def test_an_error_that_is_not_the_scripts_comes_through(
    pool: SandboxPool, lane: Lane
) -> None:
    class Taken(Exception):
        pass

    async def fetch(request: HttpRequest) -> HttpResponse:
        raise Taken

    with pytest.raises(Taken):
        await run(pool, lane, "try { await fetch('x') } catch {}", waits=True, fetch=fetch)


async def test_util(pool: SandboxPool, lane: Lane) -> None:
    text = "né 😀 " * 40
    found = await value(
        pool,
        lane,
        "return [util.base64(input), util.base64.decode(util.base64.encode(input)) === input,"
        "util.formatCurrency(1234.5, {currency: 'EUR'}),"
        "util.formatNumber(0.256, {style: 'percent'}),"
        "util.hash('sha256', input), util.hash('sha1', input), util.hash('sha512', input),"
        "util.hash('md5', input)]",
        input=text,
    )
    data = text.encode()
    digests = [hashlib.new(name, data).hexdigest() for name in ("sha256", "sha1", "sha512", "md5")]
    assert isinstance(found, list)
    assert found[1:4] == [True, "€1,234.50", "26%"]
    assert found[4:] == digests


async def test_uuids_differ(pool: SandboxPool, lane: Lane) -> None:
    found = await value(pool, lane, "Array.from({length: 50}, () => util.uuid())")
    again = await value(pool, lane, "Array.from({length: 50}, () => util.uuid())")
    assert isinstance(found, list)
    assert isinstance(again, list)
    assert len({*found, *again}) == 100
    assert all(uuid[14] == "4" and uuid[19] in "89ab" and len(uuid) == 36 for uuid in found)


async def test_files_are_read_for_code_that_waits(pool: SandboxPool, lane: Lane) -> None:
    async def read(aspect: str, file: Any, room: int) -> Any:
        assert room in (ENOUGH.memory // 64, ENOUGH.memory // 4)
        if file == "bad":
            raise StepFailure("bad.pdf: The file is damaged", "input")
        if file == "large":
            raise NoRoom
        if file == "larger":
            return "x" * room
        if isinstance(file, list):
            return [await read(aspect, each, room) for each in file]
        return [{"content": file["id"]}] if aspect == "contents" else f"{aspect} of {file['id']}"

    async def told(script: str) -> object:
        evaluation = Evaluation(
            "app_a",
            (script,),
            {"input": Raw(b'{"doc":{"id":"a"},"docs":[{"id":"a"},{"id":"b"}]}')},
            lane=lane,
            waits=True,
            limits=ENOUGH,
            read_file=read,
        )
        (output,) = (await pool.evaluate(evaluation, Activity("code", 0))).outputs
        return None if output is None else json.loads(bytes(output))

    assert await told("await util.getFileText(input.doc)") == "text of a"
    assert await told("await util.getFileContents(input.docs)") == [
        [{"content": "a"}],
        [{"content": "b"}],
    ]
    both = "await Promise.all([util.getFileUrl(input.doc), util.getFileImages(input.doc)])"
    assert await told(both) == ["url of a", "images of a"]
    caught = "try { await util.getFileText('bad') } catch (error) { return error.message }"
    assert await told(caught) == "bad.pdf: The file is damaged"
    for large in ("large", "larger"):
        words = await told(caught.replace("bad", large))
        assert words == "what is in the file is too large for memory"


async def test_what_is_read_at_once_is_bounded(pool: SandboxPool, lane: Lane) -> None:
    """Small files are read together; of those that do not fit beside others one at a time."""
    quarter = ENOUGH.memory // 4
    held: dict[str, int] = {}
    most: dict[str, int] = {"small": 0, "large": 0}
    together = asyncio.Event()

    async def read(aspect: str, file: Any, room: int) -> Any:
        kind = file.split()[0]
        if kind == "large" and room < quarter:
            raise NoRoom
        held[file] = room
        alike = [name for name in held if name.startswith(kind)]
        most[kind] = max(most[kind], len(alike))
        if len(alike) == 8:
            together.set()
        await (together.wait() if kind == "small" else asyncio.sleep(0))
        del held[file]
        return file

    files = [f"{kind} {number}" for kind in ("small", "large") for number in range(8)]
    evaluation = Evaluation(
        "app_a",
        ("await Promise.all(input.map(file => util.getFileText(file)))",),
        {"input": Raw(json.dumps(files).encode())},
        lane=lane,
        waits=True,
        limits=ENOUGH,
        read_file=read,
    )
    (output,) = (await pool.evaluate(evaluation, Activity("code", 0))).outputs
    assert output is not None
    assert json.loads(bytes(output)) == files
    assert most == {"small": 8, "large": 1}


async def test_files_cannot_be_read_elsewhere(pool: SandboxPool, lane: Lane) -> None:
    for name in ("getFileContents", "getFileText", "getFileImages", "getFileUrl"):
        found = await failure(pool, lane, f"util.{name}(1)")
        assert "only code steps may wait" in found.message
        found = await failure(pool, lane, f"await util.{name}(1)", waits=True)
        assert "cannot be read here" in found.message
        found = await failure(pool, lane, f"await util.{name}(input.gone)", waits=True, input={})
        assert "give a file" in found.message


async def test_intl_is_real_in_v8(pool: SandboxPool) -> None:
    script = "new Intl.NumberFormat('de-DE', {style: 'currency', currency: 'EUR'}).format(1234.5)"
    assert await value(pool, "v8", script) == "1.234,50\xa0€"


async def test_cancelling_stops_and_the_next_is_served(pool: SandboxPool, lane: Lane) -> None:
    task = asyncio.ensure_future(run(pool, lane, "for (;;) {}"))
    async with asyncio.timeout(10):
        while pool.stats().busy == 0:  # noqa: ASYNC110  # the pool has no event for it
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.stats().busy == 0
    assert await value(pool, lane, "1 + 1") == 2


async def test_what_nobody_can_answer_ends_the_code_whatever_it_catches(
    pool: SandboxPool, lane: Lane
) -> None:
    async def fetch(request: HttpRequest) -> HttpResponse:
        raise Unanswerable("that is not recorded", "not_available")

    script = "try { await fetch('http://a') } catch { return 1 }"
    found = await failure(pool, lane, script, waits=True, fetch=fetch)
    assert (found.code, found.message) == ("not_available", "that is not recorded")
    assert await value(pool, lane, "1 + 1") == 2


async def test_names_of_prototypes_in_what_is_given_are_values(
    pool: SandboxPool, lane: Lane
) -> None:
    names = ("constructor", "prototype", "toString", "valueOf", "then", "toJSON", "length", "fetch")
    given = {name: f"v-{name}" for name in names}
    for name in names:
        assert await value(pool, lane, f"variables.{name}", variables=given) == f"v-{name}"
    assert await value(pool, lane, "variables", variables=given) == given
    assert (
        await value(pool, lane, "(await variables).then", waits=True, variables=given) == "v-then"
    )
    assert await value(pool, lane, "Object.keys(variables)", variables=given) == [*names]
    assert await value(pool, lane, "typeof fetch", variables=given) == "function"
