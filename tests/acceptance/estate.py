"""One app with everything that an app can have, most of it busy; and a guest who runs its workflow.

Whatever runs makes a request that the loopback never answers, under a tag of its own.
"""

import asyncio
import contextlib
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from sqlalchemy import Engine, Table, create_engine, select

from insula.journal.store import expand
from insula.storage.postgres_connection import Limits, make_engine
from insula.storage.tables import metadata
from tests.acceptance.harness import Caller, Clients, Served
from tests.acceptance.kinds import http, later
from tests.acceptance.loopback import Loopback
from tests.adapters.extraction import documents

PAGES = [[(50.0, 800.0, 20.0, f"Part {n}"), (50.0, 770.0, 11.0, f"words {n}")] for n in (1, 2, 3)]
Row = dict[str, Any]


def busy(url: str) -> list[dict[str, Any]]:
    """The steps of a workflow that never ends by itself, and that the outside may start."""
    fields = {"tag": {"type": "string"}, "doc": {"type": "file", "optional": True}}
    hook = {"method": "POST", "path": "in"}
    begin = {"type": "input", "key": "start", "input": fields, "webhook": hook}
    hangs = http("busy", f"{url}/hang/{{{{input.tag}}}}", destinations=["later"])
    return [{**begin, "destinations": ["busy"]}, hangs, later(url)]


def calling(workflow_id: str) -> list[dict[str, Any]]:
    """The steps of a workflow that runs another one."""
    given = {"tag": "{{input.tag}}"}
    return [{"type": "workflow", "key": "call", "workflow_id": workflow_id, "input": given}]


class Estate:
    """What there is, its ids, and who is busy."""

    def __init__(self, served: Served, loopback: Loopback, name: str) -> None:
        self.served = served
        self.loopback = loopback
        self.name = name
        self.owner: Caller
        self.guest: Caller
        self.ids: dict[str, str] = {}
        self.tags: list[str] = []
        self.runs: dict[str, str] = {}
        """Runs by the ends of their tags."""
        self.addresses: list[str] = []
        """What opens without a key."""
        self.waiting: list[asyncio.Task[Any]] = []

    def tag(self, what: str) -> str:
        """Make the tag of something that is busy."""
        self.tags.append(f"{self.name}-{what}")
        return self.tags[-1]

    async def make(self, clients: Clients) -> "Estate":
        """Make everything, and wait until all that runs is at its request."""
        self.owner, self.guest = await clients.app("Acme"), await clients.app("Guest")
        self.ids["app_id"] = self.owner.app_id
        self.ids["key_id"] = (await self.owner.ok("POST", "/apps/c/keys", {"name": "x"}))["id"]
        await self._workflow()
        for make in (self._kept, self._files, self._webhooks, self._tests, self._collection):
            await make()
        await self._runs()
        for tag in self.tags:
            await self.loopback.arrived(tag)
        return self

    async def _workflow(self) -> None:
        ok, url = self.owner.ok, self.loopback.url
        made = await self.owner.push(busy(url), name=self.name)
        path = f"workflows/{made}"
        second = await ok("POST", f"{path}/versions", {"notes": "again", "force": True})
        await ok("PATCH", path, {"input_default": {"tag": "draft"}})
        await self.owner.publish(made)
        blocked = self.guest.app_id[:-1] + ("2" if self.guest.app_id[-1] != "2" else "3")
        await ok("PUT", f"{path}/callers/{blocked}")
        label = await ok("POST", "tags", {"name": "Same"})
        await ok("PATCH", path, {"tags_ids": [label["id"]]})
        calls = await self.owner.push(calling(made), name="Calls")
        hooks = await ok("GET", f"{path}/hooks")
        self.addresses += [one["url"] for target in hooks for one in target["hooks"]]
        self.ids |= {
            "workflow_id": made,
            "version_id_or_version_number": second["id"],
            "tag_id": label["id"],
            "calling": calls,
            "target": "latest",
            "caller_app_id": blocked,
        }

    async def _kept(self) -> None:
        ok = self.owner.ok
        await ok("POST", "variables", {"key": "PLAIN", "value": "1"})
        await ok("POST", "variables", {"key": "SECRET", "value": "long enough", "secret": True})
        connection = await ok("POST", "connections", {"name": "Chat", "type": "SLACK"})
        self.ids |= {"key": "PLAIN", "connection_id": connection["id"]}

    async def _files(self) -> None:
        ok = self.owner.ok
        small = {"file": {"name": "a.txt", "data": "aGVsbG8="}, "visibility": "PUBLIC"}
        kept = await ok("POST", "files", small)
        await ok("POST", "files", {**small, "storage": "TEMPORARY"})
        link = await ok("POST", "files/uploads", {"metadata": {"a": 1}})
        used = await ok("POST", "files/uploads", {})
        sent = aiohttp.FormData()
        sent.add_field("file", b"words", filename="b.txt")
        async with self.owner.session.post(used["upload_url"], data=sent) as answer:
            came = await answer.json()
        read = await self.read(PAGES * 60)
        self.addresses += [kept["file_url"], link["upload_url"], came["file_url"], read["file_url"]]
        self.ids |= {
            "file_id": read["id"],
            "file_upload_id": link["id"],
            "kept": kept["id"],
            "came": came["id"],
        }

    async def read(self, pages: list[Any]) -> Row:
        """Store a document, and wait until it is being read."""
        form = aiohttp.FormData()
        form.add_field("file", documents.pdf(*pages), filename="a.pdf")
        form.add_field("document_extract_images", "true")
        headers = {"authorization": f"Bearer {self.owner.key}"}
        url = f"{self.served.url}/apps/c/files"
        async with self.owner.session.post(url, data=form, headers=headers) as answer:
            made: Row = await answer.json()
        async with asyncio.timeout(30):
            while not any(  # noqa: ASYNC110  # it is read in the background
                row["file_id"] == made["id"] and row["attempts"]
                for row in rows(self.served, "extractions")
            ):
                await asyncio.sleep(0.02)
        return made

    async def _webhooks(self) -> None:
        """One address that never answers, one that breaks off and is tried again."""
        quick = await self.owner.push([{"type": "code", "key": "one", "code": "return 1"}])
        for way in ("hang", "cut"):
            url = f"{self.loopback.url}/{way}/{self.tag(f'told-{way}')}"
            ends = ["run.completed", "run.cancelled", "run.failed"]
            body = {"url": url, "events": ["record.running"], "run_events": ends}
            self.ids["webhook_id"] = (await self.owner.ok("POST", "webhooks", body))["id"]
        run = await self.owner.ok("POST", f"workflows/{quick}/runs")
        self.ids |= {"quick": quick, "quick_run": run["id"]}
        await self.loopback.arrived(self.tags[-2])
        (one, *_) = [row for row in rows(self.served, "deliveries") if row["thing_id"] == run["id"]]
        self.ids |= {"webhook_id": one["webhook_id"], "delivery_id": one["id"]}

    async def _tests(self) -> None:
        ok, path = self.owner.ok, f"workflows/{self.ids['workflow_id']}/tests"
        shared = await ok("POST", f"{path}/expectations", {"name": "Same", "script": "true"})
        body = {"name": "Same", "input": {"tag": self.tag("test")}}
        test = await ok("POST", path, body)
        self.ids |= {"test_id": test["id"], "expectation_id": shared["id"]}
        await ok("POST", f"{path}/{test['id']}/runs", {"execute_async": True})

    async def _collection(self) -> None:
        ok = self.owner.ok
        made = await ok("POST", "collections", {"name": "Same", "tags_ids": [self.ids["tag_id"]]})
        path = f"collections/{made['id']}"
        rule = {"name": "Rule", "key": "rule", "workflow_id": self.ids["workflow_id"]}
        await ok("PATCH", f"{path}/config", {"rules": [rule]})
        trigger = {"name": "x", "config": {"type": "PERSONA", "mappings": []}}
        trigger = await ok("POST", f"{path}/triggers", trigger)
        file = {"name": "r.txt", "data": "aGVsbG8="}
        given = {"tag": self.tag("record"), "doc": file}
        record = await ok("POST", f"{path}/records", {"name": "Same", "rules": {"rule": given}})
        self.ids |= {"collection_id": made["id"], "record_id": record["id"]}
        self.ids["trigger_id"] = trigger["id"]
        await ok("POST", f"{path}/records/{record['id']}/run", {"mode": "all"})

    async def _runs(self) -> None:
        made, calls = self.ids["workflow_id"], self.ids["calling"]
        theirs = await self.guest.push(calling(made), name="Calls")
        own, found = f"workflows/{made}/runs", f"workflows/discover/{made}/runs"
        ways: tuple[tuple[str, Caller, str, Row], ...] = (
            ("endpoint", self.owner, own, {"identifier": "mine"}),
            ("draft", self.owner, own, {"workflow_version_id": "draft"}),
            ("parent", self.owner, f"workflows/{calls}/runs", {}),
            ("guest", self.guest, found, {}),
            ("guests-parent", self.guest, f"workflows/{theirs}/runs", {}),
        )
        for what, caller, path, more in ways:
            body = {"input": {"tag": self.tag(what)}, "background": True, **more}
            once = {"idempotency-key": what}
            self.runs[what] = (await caller.ok("POST", path, body, headers=once))["id"]
        self.ids["run_id"] = self.runs["endpoint"]
        soon = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
        for when in ({"at": soon}, {"every": 10}):
            asked = {"workflow_id": made, "input": {"tag": f"{self.name}-schedule"}, **when}
            self.ids["schedule_id"] = (await self.owner.ok("POST", "schedules", asked))["id"]
        again = {"workflow_id": made, "every": 10, "input": asked["input"]}
        await self.guest.ok("POST", "schedules", again)
        self.tag("schedule")
        hook = next(url for url in self.addresses if "/hooks/" in url)
        self._wait(
            self.owner.ask("POST", hook.removeprefix(self.served.url), {"tag": self.tag("hook")})
        )
        step = http("one", f"{self.loopback.url}/hang/{self.tag('step')}")
        self._wait(self.owner.ask("POST", "runs/step", {"step": step}))

    def _wait(self, answer: Awaitable[Any]) -> None:
        self.waiting.append(asyncio.ensure_future(answer))

    async def close(self) -> None:
        """Let nobody wait any more."""
        for task in self.waiting:
            task.cancel()
        await asyncio.gather(*self.waiting, return_exceptions=True)


@contextlib.asynccontextmanager
async def estate(
    served: Served, clients: Clients, loopback: Loopback, name: str
) -> AsyncIterator[Estate]:
    """Make one, for the time of a test."""
    made = Estate(served, loopback, name)
    try:
        yield await made.make(clients)
    finally:
        await made.close()


def _engine(served: Served) -> Engine:
    url = served.settings.get("INSULA_DATABASE_URL")
    if url is not None:
        return make_engine(url, "a look from outside", Limits(0, 0, 0))
    file = f"file:{served.data / 'insula.db'}?mode=ro"
    return create_engine("sqlite://", creator=lambda: sqlite3.connect(file, uri=True))


def rows(served: Served, name: str) -> list[Row]:
    """Read a table, from outside."""
    return next(found for table, found in everything(served, (metadata.tables[name],)))


def everything(
    served: Served, tables: tuple[Table, ...] = tuple(metadata.sorted_tables)
) -> Iterator[tuple[str, list[Row]]]:
    """Read all tables, from outside, at one moment."""
    engine = _engine(served)
    try:
        with engine.connect() as connection:
            for table in tables:
                found = connection.execute(select(table)).mappings()
                yield table.name, [dict(row) for row in found]
    finally:
        engine.dispose()


def naming(served: Served, ids: set[str]) -> Iterator[tuple[str, Row]]:
    """Yield the rows, of whatever table, in which one of these ids stands, packed or not."""
    wanted = re.compile("|".join(map(re.escape, sorted(ids))))
    for table, found in everything(served):
        for row in found:
            if any(wanted.search(_text(value)) for value in row.values()):
                yield table, row


def _text(value: object) -> str:
    if not isinstance(value, bytes | memoryview):
        return str(value)
    packed = bytes(value)
    with contextlib.suppress(Exception):  # it is not compressed
        packed = expand(packed)
    return packed.decode("utf-8", "replace")


Allowed = dict[str, Callable[[Row], bool]]
"""Which rows of a table may stay."""


async def only_left(served: Served, ids: set[str], allowed: Allowed) -> None:
    """Wait until nothing names these ids but what may: runs are erased behind the answer."""
    left: list[tuple[str, Row]] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            while True:
                found = await asyncio.to_thread(lambda: list(naming(served, ids)))
                left = [one for one in found if not allowed.get(one[0], lambda _: False)(one[1])]
                if not left:
                    return
                await asyncio.sleep(0.2)
    raise AssertionError(f"left behind: {left[:5]}")
