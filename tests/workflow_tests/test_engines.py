"""Tests of past runs with the real engines: code that fetches and reads files, at once."""

from collections.abc import AsyncIterator

import pytest
from tests.runs.platform import Platform, code

from insula.adapters.sandbox.pool import SandboxPool
from insula.engine.failures import StepFailure
from insula.engine.ports import HttpRequest, HttpResponse
from insula.testing import RecordedHttp

pytestmark = pytest.mark.parametrize("platform", ["sqlite"], indirect=True)

CODE = """
const [first, second, text] = await Promise.all([
  fetch("http://away.test/1?n=1"),
  fetch("http://away.test/2", { method: "post", body: JSON.stringify({ a: "é" }) }),
  util.getFileText(input.doc),
]);
const refused = await fetch("http://refused.test/").catch((error) => error.message);
fetch("http://away.test/given-up");
return [await first.text(), (await second.json()).n, second.headers.get("X-A"), text, refused];
"""
OTHER = CODE.replace("n=1", "n=2")
CAUGHT = "try { await fetch('http://away.test/3') } catch { return 'caught' }"


@pytest.fixture
async def sandbox(platform: Platform) -> AsyncIterator[SandboxPool]:
    pool = SandboxPool(maximum=2, warm=1)
    await pool.start()
    platform.services.sandbox = pool
    yield pool
    await pool.close()


def answer(request: HttpRequest) -> HttpResponse:
    if "refused" in request.url:
        raise StepFailure("nobody listens there", "refused")
    headers = (("content-type", "application/json"), ("x-a", "1"))
    return HttpResponse(200, headers, b'{"n": 7}', request.url)


@pytest.mark.parametrize("lane", ["", "'use v8';\n"])
async def test_code_is_played_what_it_fetched(
    platform: Platform, sandbox: SandboxPool, lane: str
) -> None:
    acme = platform.acme
    http = platform.services.http = RecordedHttp(answer)  # type: ignore[assignment]  # a fake
    fields = {"doc": {"type": "file"}}
    flow = await acme.make(
        {"type": "input", "key": "start", "input": fields, "destinations": ["a"]},
        code("a", lane + CODE),
    )
    doc = {"data": "hello", "encoding": "raw", "name": "a.txt", "type": "text/plain"}
    ran = await acme.run(flow, input={"doc": doc})
    assert ran["status"] == "COMPLETED", ran
    assert ran["result"] == ['{"n": 7}', 7, "1", "hello", "nobody listens there"]
    asked = len(http.requests)
    made = await acme.ok("POST", f"/runs/{ran['id']}/test", {})
    path = f"/workflows/{flow}/tests/{made['id']}/runs"
    done = await acme.ok("POST", path, {})
    assert (done["status"], done["run"]["result"]) == ("PASSED", ran["result"]), done
    for changed in (OTHER, CAUGHT):
        steps = [
            {**step, **({"code": lane + changed} if step["key"] == "a" else {})}
            for step in (await acme.ok("GET", f"/workflows/{flow}"))["steps"]
        ]
        await acme.ok("PATCH", f"/workflows/{flow}", {"steps": steps})
        failed = await acme.ok("POST", path, {})
        assert (failed["status"], failed["run"]["error_code"]) == ("FAILED", "not_available")
        assert "is not in this test's recording" in failed["run"]["error"]
    assert len(http.requests) == asked
