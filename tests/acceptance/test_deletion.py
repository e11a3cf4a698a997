"""Deleting an app, a workflow, a file or a collection: what it ran has stopped before the answer,
and afterwards nothing of it is found, stands anywhere, or happens any more.

Callers' own runs of a workflow that is deleted stay theirs. What else may name what is gone is
listed here with the reason; everything else that names it fails these tests, in whatever table.
"""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from insula.storage.tables import metadata
from tests.acceptance.conftest import Serve
from tests.acceptance.estate import PAGES, Allowed, Estate, Row, estate, naming, only_left, rows
from tests.acceptance.harness import Caller, Clients, Served, clients, environment, shaped
from tests.acceptance.kinds import first
from tests.acceptance.loopback import Loopback
from tests.acceptance.test_strangers import BODIES

DATABASES = ("sqlite", "postgres")
pytestmark = pytest.mark.timeout(180)

SETTLE = 2.5
"""Seconds in which every sweep of a server comes round, and the first retry of a webhook is due."""
OF_PROCESSES = {"commits", "facts", "nodes"}
"""Tables about the installation, in which nothing is anybody's."""
OWN_RUNS = ("GET", "/apps/{app_id}/workflows/discover/{workflow_id}/runs")
"""Lists the caller's own runs, as long as there are any."""
LATER = {"daily_totals"}
"""Totals of runs whose rows have gone by their age."""


async def _stopped(made: Estate, tags: list[str]) -> None:
    """Whatever these tags name had been reset when the answer came; nothing follows."""
    for tag in tags:
        await made.loopback.left(tag)
    assert not [arrival for arrival in made.loopback.arrivals if "/later/" in arrival.path]


async def _silent(made: Estate, tags: list[str]) -> None:
    """Nothing of these tags is asked for as time goes on."""
    await made.loopback.barrier()
    before = {tag: len(made.loopback.of(tag)) for tag in tags}
    await asyncio.sleep(SETTLE)  # there is nothing to wait on: nothing is to happen
    await made.loopback.barrier()
    assert {tag: len(made.loopback.of(tag)) for tag in tags} == before


async def _routes(caller: Caller) -> list[tuple[str, str]]:
    described = await caller.ok("GET", "/openapi.json")
    return [(m.upper(), path) for path, methods in described["paths"].items() for m in methods]


async def _gone(caller: Caller, names: set[str], ids: dict[str, str], *, status: int = 404) -> None:
    """Every operation whose path holds one of these names answers that there is nothing."""
    asked = 0
    for method, template in await _routes(caller):
        inside = set(re.findall(r"{(\w+)}", template))
        if not inside & names or not inside <= {*ids, "app_id"} or (method, template) == OWN_RUNS:
            continue
        path = re.sub(r"{(\w+)}", lambda found: {**ids, "app_id": "c"}[found[1]], template)
        last = template.rpartition("/")[2]
        body = None if method == "GET" else BODIES.get(last, {"name": "x"})
        answer = await caller.ask(method, path, body)
        assert answer.status == status, (method, template, answer.status, answer.body)
        asked += 1
    assert asked


async def _closed(made: Estate, addresses: list[str]) -> None:
    """What opened without a key does so no more."""
    for address in addresses:
        method = "POST" if "/uploads/" in address or "/hooks/" in address else "GET"
        body = {"tag": "late"} if method == "POST" else None
        answer = await made.guest.ask(method, address.removeprefix(made.served.url), body)
        assert answer.status == 404, (address, answer.status, answer.body)


def _blobs(served: Served) -> set[str]:
    return {path.name for path in (served.data / "files").rglob("*") if path.is_file()}


async def _swept(served: Served, ids: set[str]) -> None:
    """Bytes whose row had gone before the process died are reached by nobody; they go when they
    are an hour old.
    """
    left = [path for path in (served.data / "files").rglob("*") if path.name in ids]
    if not left:
        return
    await asyncio.to_thread(served.stop)
    for path in left:
        os.utime(path, (path.stat().st_mtime - 7200,) * 2)
    await asyncio.to_thread(served.start)
    async with asyncio.timeout(30):
        while _blobs(served) & ids:  # noqa: ASYNC110  # another process removes them
            await asyncio.sleep(0.05)


async def _callers_keep(made: Estate) -> None:
    """The guest's runs are cancelled, complete, and theirs."""
    path = f"workflows/discover/{made.ids['workflow_id']}/runs/{made.runs['guest']}"
    run = await made.guest.ok("GET", f"{path}?verbose=all")
    shaped(run, "RunSchema")
    assert run["status"] == "CANCELLED"
    assert run["cancellation"]["requested_by"] == "deleted"
    assert [one["key"] for one in run["cancellation"]["interrupted"]] == ["busy"]
    assert run["input"]["tag"] == made.tag("guest")
    assert await made.guest.ok("POST", f"{path}/cancel?verbose=all") == run
    seen = {one["id"]: one["status"] for one in await made.guest.ok("GET", "runs")}
    assert seen[made.runs["guests-parent"]] == "FAILED"


async def _delete_app(made: Estate, through: Served | None = None) -> int:
    served = through or made.served
    admin = Caller(made.owner.session, served, "", served.admin_key)
    return (await admin.ask("DELETE", f"/apps/{made.owner.app_id}")).status


def _of_app(made: Estate) -> tuple[set[str], Allowed]:
    """Everything of the app, and what of it may stay: what its caller's runs show."""
    served, owner, guest = made.served, made.owner.app_id, made.guest.app_id
    ids = {owner, *made.ids.values(), *made.runs.values()}
    ids -= {guest, made.ids["caller_app_id"], made.ids["target"], made.ids["key"]}
    ids -= {made.runs["guest"], made.runs["guests-parent"]}
    for table in metadata.sorted_tables:
        if "app_id" in table.c and "id" in table.c:
            ids |= {row["id"] for row in rows(served, table.name) if row["app_id"] == owner}

    def theirs(row: Row) -> bool:
        return bool(row["app_id"] == guest)

    def of_theirs(row: Row) -> bool:
        return row["run_id"] in {run["id"] for run in rows(served, "runs") if theirs(run)}

    def shown(row: Row) -> bool:
        return made.ids["workflow_id"] in (row["id"], row.get("workflow_id"))

    return ids, {
        "runs": theirs,
        "run_data": of_theirs,
        "run_events": of_theirs,
        "counters": theirs,  # of their runs
        "apps": lambda row: row["deleting"] is False and not row["name"],  # for that workflow
        "workflows": shown,  # whose it was, and that its steps may be seen
        "versions": lambda row: shown(row) or theirs(row),  # of the guest's own, which names it
        "idempotency": theirs,
        "daily_totals": lambda row: True,  # usage, for as long as the installation counts
    }


async def test_an_app(served: Served, callers: Clients, loopback: Loopback) -> None:
    async with estate(served, callers, loopback, f"app-{served.data.name}") as made:
        ids, allowed = _of_app(made)
        populated = {table for table, _ in naming(served, ids)}
        assert set(metadata.tables) - populated == OF_PROCESSES | LATER
        guests = next(
            row["id"] for row in rows(served, "workflows") if row["app_id"] == made.guest.app_id
        )
        allowed["workflows"] = lambda row: row["id"] in (made.ids["workflow_id"], guests)
        assert await _delete_app(made) == 200
        await _stopped(made, [tag for tag in made.tags if not tag.endswith("-cut")])
        assert await _delete_app(made) == 404
        await _gone(made.owner, {"app_id"}, made.ids, status=401)
        names = set(made.ids) - {"app_id", "caller_app_id", "target", "key", "run_id"}
        await _gone(made.guest, names, {**made.ids, "run_id": made.runs["endpoint"]})
        await _closed(made, made.addresses)
        await _callers_keep(made)
        await only_left(served, ids, allowed)
        assert not _blobs(served) & ids
        await _silent(made, made.tags)
        await _callers_keep(made)


async def test_a_workflow(served: Served, callers: Clients, loopback: Loopback) -> None:
    async with estate(served, callers, loopback, f"work-{served.data.name}") as made:
        workflow_id = made.ids["workflow_id"]
        versions = {r["id"] for r in rows(served, "versions") if r["workflow_id"] == workflow_id}
        schedules = {r["id"] for r in rows(served, "schedules") if r["workflow_id"] == workflow_id}
        own = {made.ids["test_id"], made.ids["expectation_id"]}
        ids = {workflow_id, *versions, *schedules, *own}
        mine = {r["id"] for r in rows(served, "runs") if r["workflow_id"] == workflow_id}
        mine -= {r["id"] for r in rows(served, "runs") if r["app_id"] == made.guest.app_id}
        await made.owner.ok("DELETE", f"workflows/{workflow_id}")
        busy = [tag for tag in made.tags if "told" not in tag and not tag.endswith("-step")]
        await _stopped(made, busy)
        assert (await made.owner.ask("DELETE", f"workflows/{workflow_id}")).status == 404
        known = dict(made.ids)
        del known["run_id"]  # a run is there for whoever started it, as its facts are
        await _gone(made.owner, {"workflow_id"}, known)
        await _closed(made, [one for one in made.addresses if "/hooks/" in one])
        await _callers_keep(made)
        for schedule in schedules:
            assert (await made.owner.ask("GET", f"schedules/{schedule}")).status == 404
        await only_left(
            served,
            ids,
            {
                "runs": lambda row: True,  # of callers; of its own app the facts, for usage
                "run_data": lambda row: row["run_id"] not in mine,  # of callers, and of parents
                "run_events": lambda row: row["run_id"] not in mine,
                "workflows": lambda row: row["id"] != workflow_id or row["deleted"],
                "versions": lambda row: True,  # that callers' runs show, and those that call it
                "counters": lambda row: True,  # of these runs
                "daily_totals": lambda row: True,
                "idempotency": lambda row: True,  # paths of requests, for a day
                "collection_configs": lambda row: True,  # rules name it, and say that it is gone
                "record_rules": lambda row: True,
                "deliveries": lambda row: row["event"] != "run.completed",  # of their ends
            },
        )
        erased = f"workflows/{workflow_id}/runs/{made.runs['endpoint']}"
        async with asyncio.timeout(20):  # no more than that is left names the workflow
            while (run := await made.owner.ok("GET", erased))["input"] is not None:  # noqa: ASYNC110  # what a client does
                await asyncio.sleep(0.1)
        assert (run["status"], run["input"], run["output"]) == ("CANCELLED", None, {})
        await _silent(made, busy)


async def test_a_file(served: Served, callers: Clients, loopback: Loopback) -> None:
    caller = await callers.app("Acme")
    made = Estate(served, loopback, "file")
    made.owner = made.guest = caller
    link = await caller.ok("POST", "files/uploads", {})
    sent = {"file": {"name": "a.txt", "data": "aGVsbG8="}}
    came = await caller.ok("POST", link["upload_url"].removeprefix(served.url), sent)
    done = await made.read(PAGES)
    async with asyncio.timeout(30):
        while (await caller.ok("GET", f"files/{done['id']}"))["file_status"] != "PROCESSED":  # noqa: ASYNC110  # what a client does
            await asyncio.sleep(0.05)
    read = await made.read(PAGES * 100)
    workflow_id = await caller.push([first()])
    given = {"input": {"tag": "x", "doc": came["id"]}}
    await caller.ok("POST", f"workflows/{workflow_id}/runs", given)
    for file in (came, done, read):
        parts = {r["id"] for r in rows(served, "files") if r["parent_id"] == file["id"]}
        assert parts or file is not done  # its pages, as images
        await caller.ok("DELETE", f"files/{file['id']}")
        await _gone(caller, {"file_id"}, {"file_id": file["id"]})
        await _closed(made, [file["file_url"]])
        answer = await caller.ask("POST", "files", {"file": file["id"]})
        assert answer.status == 400
        assert "no file of this app" in answer.json()["message"]
        await only_left(
            served,
            {file["id"], *parts},
            {
                "uploads": lambda row: True,  # the link through which it came says so
                "run_data": lambda row: True,  # what a run was given stays with the run
                "run_events": lambda row: True,
            },
        )
        assert not _blobs(served) & {file["id"], *parts}
    assert (await caller.ok("GET", f"files/uploads/{link['id']}")).get("file") is None
    await asyncio.sleep(SETTLE)  # who read it would have found more by now
    assert not [row for row in rows(served, "files") if row["parent_id"] == read["id"]]


async def test_a_collection(served: Served, callers: Clients, loopback: Loopback) -> None:
    async with estate(served, callers, loopback, f"coll-{served.data.name}") as made:
        path = f"collections/{made.ids['collection_id']}"
        configs = {
            row["id"]
            for row in rows(served, "collection_configs")
            if row["collection_id"] == made.ids["collection_id"]
        }
        held = {r["id"] for r in rows(served, "files") if r["run_id"] == made.ids["record_id"]}
        assert held
        ids = {made.ids["collection_id"], made.ids["record_id"], *configs, *held}
        mine = {
            row["id"] for row in rows(served, "runs") if row["identifier"] == made.ids["record_id"]
        }
        await made.owner.ok("DELETE", path)
        tags = [tag for tag in made.tags if tag.endswith("-record")]
        await _stopped(made, tags)
        assert (await made.owner.ask("DELETE", path)).status == 404
        await _gone(made.owner, {"collection_id", "record_id"}, made.ids)
        await only_left(
            served,
            ids,
            {
                "runs": lambda row: row["id"] in mine,  # facts of its rules' runs, for usage
                # Of the ends of runs is told yet, of records no more: that something was.
                "deliveries": lambda row: row["body"] is None or row["event"] == "run.cancelled",
            },
        )
        assert not _blobs(served) & held
        await _silent(made, tags)
        others = [row["ended_at"] for row in rows(served, "runs") if row["id"] not in mine]
        assert None in others  # everybody else goes on


async def test_an_app_through_the_command_line(
    serve: Serve, loopback: Loopback, tmp_path: Path
) -> None:
    served = serve()
    async with clients(served) as opened, estate(served, opened, loopback, "command") as made:
        ids, _ = _of_app(made)
        command = (sys.executable, "-m", "insula", "apps", "delete", made.owner.app_id)
        deleting = await asyncio.create_subprocess_exec(
            *(*command, "--data", str(served.data)),
            stdout=asyncio.subprocess.PIPE,
            env=environment(),
        )
        out, _ = await asyncio.wait_for(deleting.communicate(), 30)
        assert (deleting.returncode, out.decode()) == (0, f"{made.owner.app_id} is deleted.\n")
        await _stopped(made, [tag for tag in made.tags if not tag.endswith("-cut")])
        await _callers_keep(made)
        assert not _blobs(served) & ids


@pytest.mark.parametrize("after", [0.0, 0.03])
async def test_a_server_that_dies_in_the_middle_goes_on_when_it_is_back(
    serve: Serve, loopback: Loopback, after: float
) -> None:
    served = serve()
    async with clients(served) as opened, estate(served, opened, loopback, f"dies-{after}") as made:
        ids, allowed = _of_app(made)
        guests = [r["id"] for r in rows(served, "workflows") if r["app_id"] == made.guest.app_id]
        shown = {made.ids["workflow_id"], *guests}
        allowed["workflows"] = lambda row: row["id"] in shown
        asking = asyncio.ensure_future(_delete_app(made))
        async with asyncio.timeout(10):
            while not any(row["deleting"] for row in rows(served, "apps")) and not asking.done():  # noqa: ASYNC110  # its first commit is waited for from outside
                await asyncio.sleep(0)
        await asyncio.sleep(after)
        await asyncio.to_thread(served.kill)
        await asyncio.gather(asking, return_exceptions=True)
        await asyncio.to_thread(served.start)
        await only_left(served, ids, allowed)
        assert await _delete_app(made) == 404
        await _swept(served, ids)
        await _silent(made, made.tags)
        assert not [arrival for arrival in loopback.arrivals if "/later/" in arrival.path]
