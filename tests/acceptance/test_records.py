"""A record of fifty rules on ten documents: analysed, cancelled half-way, gone on with, reported;
and what becomes of records whose node dies. Real processes, real documents.
"""

import asyncio
import base64
import io
import re
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import docx
import openpyxl
import pptx
import psycopg
import pypdfium2
import pytest

from tests.acceptance.conftest import Serve
from tests.acceptance.harness import Caller, Served, clients, shaped
from tests.acceptance.loopback import Loopback
from tests.adapters.extraction.documents import pdf
from tests.nats import NatsServer

RULES = 50
FIRST = 20
"""Rules that go before all others, and have their answer at once."""
RESTING = ("DRAFT", "CANCELLED", "COMPLETED", "FAILED")
WITHIN = 60.0
ADMIN = "insadm_" + "r" * 40

JUDGE = """
const text = await util.getFileText(input.doc)
const found = text.includes(input.token)
return {
  result: {passed: found, message: `${found ? 'Found' : 'Missed'} ${input.token} for ${input.tag}`},
  rule_display: [
    {variant: found ? 'success' : 'error', title: `What ${input.tag} saw`,
     markdown: `The document says **${input.token}**: ${found ? 'yes' : 'no'}.`},
    {columns: ['Looked for', 'Length'], rows: [[input.token, text.length]]},
  ],
  record_display: input.tag === 'r00' ? `## Of all documents\\n\\n- read by ${input.tag}` : [],
}
"""


def word() -> bytes:
    made, target = docx.Document(), io.BytesIO()
    made.add_heading("Lease")
    made.add_paragraph("The rent of token-3 is due monthly.")
    made.save(target)
    return target.getvalue()


def workbook() -> bytes:
    made, target = openpyxl.Workbook(), io.BytesIO()
    made.active.append(["what", "token-4"])
    made.active.append(["rent", 1200])
    made.save(target)
    return target.getvalue()


def slides() -> bytes:
    made, target = pptx.Presentation(), io.BytesIO()
    made.slides.add_slide(made.slide_layouts[5]).shapes.title.text = "About token-5"
    made.save(target)
    return target.getvalue()


def mail() -> bytes:
    made = EmailMessage()
    made["Subject"], made["From"], made["To"] = "Rent", "a@example.com", "b@example.com"
    made.set_content("We have token-6 here.")
    return made.as_bytes()


def documents() -> list[tuple[str, bytes]]:
    """Return ten documents of nine kinds; each holds a word of its own."""
    pages = [[[(72.0, 700.0, 12.0, f"This is token-{number}.")]] for number in range(3)]
    return [
        *((f"contract-{number}.pdf", pdf(*page)) for number, page in enumerate(pages)),
        ("lease.docx", word()),
        ("table.xlsx", workbook()),
        ("talk.pptx", slides()),
        ("letter.eml", mail()),
        ("page.html", b"<!doctype html><html><body><p>It is <b>token-7</b>.</p></body></html>"),
        ("list.csv", b"name,value\ntoken-8,1\n"),
        ("note.md", b"# Note\n\nHere is token-9.\n"),
    ]


def key_of(number: int) -> str:
    return f"r{number:02}"


def workflow(url: str) -> list[dict[str, Any]]:
    fields = {
        "doc": {"type": "file", "extract_contents": True},
        "tag": {"type": "string"},
        "kind": {"type": "string"},
        "token": {"type": "string"},
    }
    address = f"{url}/{{{{input.kind}}}}/1500/{{{{input.tag}}}}"
    return [
        {"type": "input", "key": "start", "input": fields, "destinations": ["ask"]},
        {
            "type": "http_request",
            "key": "ask",
            "method": "POST",
            "url": address,
            "destinations": ["judge"],
        },
        {"type": "code", "key": "judge", "code": JUDGE},
    ]


def rule(number: int, workflow_id: str, kind: str) -> dict[str, Any]:
    """Every fifth rule looks for what is not there; every tenth of them only warns."""
    token = f"token-{number % 10}" if number % 5 != 4 else "nowhere"
    return {
        "name": f"Rule number {number}",
        "key": key_of(number),
        "workflow_id": workflow_id,
        "on_fail": "WARN" if number % 10 == 9 else "FAIL",
        "workflow_input_default": {"tag": key_of(number), "kind": kind, "token": token},
        **({"execution_order": "before-all"} if number < FIRST else {}),
    }


def expected(number: int) -> str:
    if number % 5 != 4:
        return "PASSED"
    return "WARN" if number % 10 == 9 else "FAILED"


async def make_collection(caller: Caller, url: str, count: int, kind: str) -> str:
    """Make a collection whose first ten rules take the documents, for the others, too."""
    workflow_id = await caller.push(workflow(url))
    made = await caller.ok("POST", "collections", {"name": "Tenancies"})
    path = f"collections/{made['id']}"
    rules = [rule(n, workflow_id, kind if n >= FIRST else "answer") for n in range(count)]
    mappings = [
        {
            "source_path": f"{key_of(first)}:doc",
            "destination_paths": [f"{key_of(n)}:doc" for n in range(first + 10, count, 10)],
        }
        for first in range(10)
    ]
    await caller.ok("PATCH", f"{path}/config", {"rules": rules, "mappings": mappings})
    return path


async def make_record(caller: Caller, path: str, **more: Any) -> str:
    """Make a record with the ten documents; return its path."""
    given = {
        key_of(number): {
            "doc": {"data": base64.b64encode(data).decode(), "encoding": "base64", "name": name}
        }
        for number, (name, data) in enumerate(documents())
    }
    made = await caller.ok("POST", f"{path}/records", {"rules": given, **more})
    return f"{path}/records/{made['id']}"


async def rested(caller: Caller, one: str) -> dict[str, Any]:
    """Wait for the end of an analysis."""
    async with asyncio.timeout(WITHIN):
        while True:
            found: dict[str, Any] = await caller.ok("GET", one)
            if found["status"] in RESTING:
                return found
            await asyncio.sleep(0.05)


def statuses(record: dict[str, Any]) -> dict[str, str]:
    return {key: each["status"] for key, each in record["rules"].items()}


def run_ids(record: dict[str, Any]) -> dict[str, str | None]:
    return {key: each["run"] and each["run"]["id"] for key, each in record["rules"].items()}


async def some(loopback: Loopback, kind: str) -> None:
    """Wait for the first rule that asks for this."""
    await loopback.until(lambda: any(kind in a.path for a in loopback.arrivals), f"rules of {kind}")


def counted(loopback: Loopback) -> Counter[str]:
    return Counter(arrival.tag for arrival in loopback.arrivals)


def text_of(document: bytes) -> str:
    """Return the text of all pages; white space as single blanks."""
    found = []
    with pypdfium2.PdfDocument(document) as opened:
        for number in range(len(opened)):
            page = opened[number]
            read = page.get_textpage()
            found.append(read.get_text_range())
            read.close()
            page.close()
    return re.sub(r"\s+", " ", " ".join(found))


@pytest.fixture(params=["sqlite", "postgres"])
async def caller(request: pytest.FixtureRequest, serve: Serve) -> AsyncIterator[Caller]:
    """An app at a server of the test's own."""
    more = {"INSULA_SANDBOX_OUTPUT": str(20 * 2**20)}
    if request.param == "postgres":
        more["INSULA_DATABASE_URL"] = request.getfixturevalue("postgres_url")
    served = await asyncio.to_thread(serve, **more)
    async with clients(served) as made:
        yield await made.app("Acme")


SQLITE = pytest.mark.parametrize("caller", ["sqlite"], indirect=True)


async def test_fifty_rules_on_ten_documents(caller: Caller, loopback: Loopback) -> None:
    path = await make_collection(caller, loopback.url, RULES, "slow")
    one = await make_record(caller, path, name="Flat 7", run="all")
    await some(loopback, "/slow/")

    began = time.monotonic()
    answer = await caller.ask("POST", f"{one}/cancel")
    print(f"cancelled within {(answer.at - began) * 1000:.0f} ms")  # noqa: T201
    assert answer.status == 200, answer.body
    cancelled = answer.json()
    shaped(cancelled, "RecordSchema")
    assert cancelled["status"] == "CANCELLED"
    ended = {key for key, status in statuses(cancelled).items() if status != "DRAFT"}
    assert {key_of(number) for number in range(FIRST)} <= ended < {*statuses(cancelled)}
    for key, each in cancelled["rules"].items():
        assert ("cancelled" in each.get("error", "")) == (key not in ended)
    half = await caller.ask("GET", f"{one}/download")
    assert "The record was cancelled before this rule began" in text_of(half.body) or all(
        run_ids(cancelled).values()
    )
    for arrival in [a for a in loopback.arrivals if "/slow/" in a.path and a.tag not in ended]:
        await loopback.left(arrival.tag)
    await loopback.barrier()
    late = [arrival for arrival in loopback.arrivals if arrival.at > answer.at]
    assert not late, "the rules went on after the answer"

    await caller.ok("POST", f"{one}/run", {"mode": "changed"})
    found = await rested(caller, one)
    shaped(found, "RecordSchema")
    assert found["status"] == "COMPLETED"
    assert statuses(found) == {key_of(number): expected(number) for number in range(RULES)}
    counts = [found[f"rules_{name}count"] for name in ("", "pass_", "fail_", "warn_")]
    assert counts == [50, 40, 5, 5]
    before, after = run_ids(cancelled), run_ids(found)
    assert {key for key in after if after[key] == before[key]} == ended
    arrived = counted(loopback)
    assert {key: arrived[key] for key in ended} == dict.fromkeys(ended, 1)
    assert all(1 <= arrived[key] <= 2 for key in after)
    listed = await caller.ask("GET", f"runs?identifier={found['id']}&take=1")
    begun = sum(run_id is not None for run_id in before.values())
    assert int(listed.headers["pagination-count"]) == begun + RULES - len(ended)

    report = await caller.ask("GET", f"{one}/download")
    assert report.headers["content-type"] == "application/pdf"
    check_report(text_of(report.body))


def check_report(text: str) -> None:
    """Check that every rule has its row, and its blocks."""
    words = {"PASSED": "Passed", "FAILED": "Failed", "WARN": "Warning"}
    whole, _, apart = text.partition("Of all documents")
    assert apart.lstrip().removeprefix("•").lstrip().startswith("read by r00")
    for number in range(RULES):
        key, verdict = key_of(number), words[expected(number)]
        found = "Found token-" if verdict == "Passed" else "Missed nowhere"
        row = f"{number + 1} Rule number {number} {verdict} {found}"
        assert row in whole, row
        assert f"Rule number {number} {verdict} · key {key}" in apart
        assert f"What {key} saw The document says" in apart
    assert apart.count("Looked for Length") == RULES
    assert "lease.docx" in apart


@SQLITE
async def test_a_result_of_ten_megabytes_stays_with_its_run(caller: Caller) -> None:
    steps = [
        {"type": "code", "key": "large", "code": "return {result: 'x'.repeat(10 * 2 ** 20)}"},
    ]
    workflow_id = await caller.push(steps)
    made = await caller.ok("POST", "collections", {"name": "Large"})
    path = f"collections/{made['id']}"
    rules = [{"name": "Large", "key": "large", "workflow_id": workflow_id}]
    await caller.ok("PATCH", f"{path}/config", {"rules": rules})
    made = await caller.ok("POST", f"{path}/records", {"run": "all"})
    found = await rested(caller, f"{path}/records/{made['id']}")
    large = found["rules"]["large"]
    assert (large["status"], large["result_omitted"]) == ("PASSED", True)
    assert "result" not in large
    run = await caller.ok("GET", f"workflows/{workflow_id}/runs/{large['run']['id']}")
    assert len(run["result"]) == 10 * 2**20
    report = await caller.ask("GET", f"{path}/records/{made['id']}/download")
    assert report.status == 200


@SQLITE
async def test_a_record_goes_on_where_its_dead_node_left_it(
    caller: Caller, loopback: Loopback
) -> None:
    path = await make_collection(caller, loopback.url, 30, "slow")
    one = await make_record(caller, path, run="all")
    await some(loopback, "/slow/")
    await asyncio.to_thread(caller.served.kill)
    finished = {arrival.tag for arrival in loopback.arrivals if "/answer/" in arrival.path}
    await asyncio.to_thread(caller.served.start)
    found = await rested(caller, one)
    check_gone_on(found, loopback, finished)
    listed = await caller.ask("GET", f"runs?identifier={found['id']}&take=1")
    assert listed.headers["pagination-count"] == "30"  # no rule has two runs


def check_gone_on(found: dict[str, Any], loopback: Loopback, finished: set[str]) -> None:
    """Check a record that a node's death interrupted once: every effect at most once an attempt."""
    assert found["status"] == "COMPLETED"
    assert statuses(found) == {key_of(number): expected(number) for number in range(30)}
    arrived = counted(loopback)
    assert len(finished) == FIRST
    assert {tag: arrived[tag] for tag in finished} == dict.fromkeys(finished, 1)
    assert all(1 <= count <= 2 for count in arrived.values()), arrived
    for tag in arrived:
        assert len({arrival.key for arrival in loopback.of(tag)}) == 1  # the same request again


def ask_for_cancel(caller: Caller, record_id: str) -> None:
    """Store what a cancel stores first, as if the process had died right after it."""
    url = caller.served.settings.get("INSULA_DATABASE_URL")
    at = int(time.time() * 1000)
    for table, column in (("records", "id"), ("runs", "identifier")):
        text = (
            f"UPDATE {table} SET cancel_requested_at = {at}, cancel_requested_by = 'key_x' "
            f"WHERE {column} = '{record_id}' AND status IN ('QUEUED', 'RUNNING', 'PENDING')"
        )
        if url is None:
            with closing(sqlite3.connect(caller.served.data / "insula.db")) as raw, raw:
                assert raw.execute(text).rowcount
        else:
            with psycopg.connect(url, autocommit=True) as connection:
                assert connection.execute(text.encode()).rowcount


async def test_a_cancel_that_was_asked_for_outlives_the_node(
    caller: Caller, loopback: Loopback
) -> None:
    path = await make_collection(caller, loopback.url, 30, "hang")
    one = await make_record(caller, path, run="all")
    await loopback.until(
        lambda: any("/hang/" in a.path for a in loopback.arrivals), "hanging rules"
    )
    await asyncio.to_thread(caller.served.kill)
    await asyncio.to_thread(ask_for_cancel, caller, one.rpartition("/")[2])
    before = await loopback.barrier()
    await asyncio.to_thread(caller.served.start)
    found = await rested(caller, one)
    assert found["status"] == "CANCELLED"
    assert found["cancel_requested_at"] is not None
    told = statuses(found)
    assert [told[key_of(number)] for number in range(FIRST)] == [
        expected(number) for number in range(FIRST)
    ]
    assert {told[key_of(number)] for number in range(FIRST, 30)} == {"DRAFT"}
    assert await loopback.barrier() == before  # nothing began again


@pytest.fixture
def pair(tmp_path: Path, serve: Serve, postgres_url: str, nats_session: NatsServer) -> list[Served]:
    settings = {
        "INSULA_DATABASE_URL": postgres_url,
        "INSULA_CLUSTER_URL": nats_session.url,
        "INSULA_ADMIN_KEY": ADMIN,
        "INSULA_DRAIN_SECONDS": "0",
        "INSULA_SANDBOX_WARM": "1",
    }
    shared = tmp_path / "shared"  # as a bucket would be
    shared.mkdir()
    for number in range(2):
        (tmp_path / f"node{number}").mkdir()
        (tmp_path / f"node{number}" / "files").symlink_to(shared)
    return [serve(f"node{number}", **settings) for number in range(2)]


async def test_the_other_node_goes_on_with_a_record(pair: list[Served], loopback: Loopback) -> None:
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(clients(served)) for served in pair]
        admin = Caller(opened[0].session, pair[0], "", ADMIN)
        made = await admin.ok("POST", "/apps", {"name": "Acme"})
        here, there = (
            Caller(each.session, each.served, made["id"], made["key"]) for each in opened
        )
        path = await make_collection(here, loopback.url, 30, "slow")
        one = await make_record(here, path, run="all")
        await loopback.until(
            lambda: any("/slow/" in a.path for a in loopback.arrivals), "slow rules"
        )
        await asyncio.to_thread(pair[0].kill)
        finished = {arrival.tag for arrival in loopback.arrivals if "/answer/" in arrival.path}
        found = await rested(there, one)
        check_gone_on(found, loopback, finished)
        listed = await there.ask("GET", f"runs?identifier={found['id']}&take=1")
        assert listed.headers["pagination-count"] == "30"
