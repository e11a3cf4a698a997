"""The story that the demo tells: one app runs another app's workflow, watches it, and stops it."""

import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

from insula.cli.client import Client
from insula.cli.demo.desk import Desk, open_desk
from insula.cli.demo.following import BUSY, Cancelled, cancel_when_busy, follower, to_completion
from insula.cli.demo.narration import Narrator
from insula.cli.demo.server import Server, serving
from insula.cli.failures import CommandFailed, ExitCode
from insula.cli.progress import duration
from insula.kit.json import encode
from insula.workflows import yaml_text

_WATCHED = 1.0
_DESK = "http://desk.example"
_ATTACHMENT = b"2026-03-02 09:14 checkout answers 503\n2026-03-02 09:15 checkout answers 503\n"
_TEXT = "Good morning. Our shop is down! Nobody can pay."
_OUTLINE = """\
message -> customer -> weigh -> sort -+-> history     a request for each page of tickets
   |       (HTTP)      (loop)  (if    |-> duplicates  nothing but computing
   |                           urgent)|-> archive     one request, answered when it is found
   +-> read                           |-> draft       a model with a tool, once a ticket
       (the attached file)            +-> orders      another workflow, as a run of its own
                                                      ... and all of it -> verdict"""


async def tell() -> ExitCode:
    """Tell the story, against a server and a desk that exist as long as it takes.

    Raises:
        CommandFailed: something did not go as it should; the end of the server's log is in it.
    """
    narrator = Narrator()
    begun = time.monotonic()
    narrator.say("One app runs another app's workflow, watches it, and stops it.", "bold")
    async with open_desk() as desk:
        narrator.chapter("A server starts, on a free port, in a temporary folder")
        async with serving(f"127.0.0.1:{desk.port}") as server:
            narrator.say(f"insula serve, process {server.pid}, answers at {server.url}")
            narrator.say(f"Its steps may call one other place: a shop's desk at {desk.url}")
            await _Story(narrator, desk, server).tell()
    narrator.chapter("The end")
    took = time.monotonic() - begun
    narrator.say(f"That took {took:.1f} s. The server has ended, and its folder is gone.")
    narrator.say("Your own: make serve, and docs/guides/getting-started.md")
    return ExitCode.OK


class _Story:
    """The chapters that need a server."""

    def __init__(self, narrator: Narrator, desk: Desk, server: Server) -> None:
        self._narrator = narrator
        self._desk = desk
        self._server = server

    async def tell(self) -> None:
        acme, globex = await self._apps()
        async with _client(self._server.url, acme) as owner:
            await self._publish(owner)
        async with _client(self._server.url, globex) as caller:
            runs_path = await self._find(caller)
            await self._run(caller, runs_path)
            cancelled = await self._cancel(caller, runs_path)
            await self._replay(caller, runs_path, cancelled.run["id"])

    async def _apps(self) -> list[str]:
        """Make the two apps; return their keys."""
        async with _client(self._server.url, self._server.admin_key) as admin:
            made = [await admin.call("POST", "/apps", {"name": n}) for n in ("Acme", "Globex")]
        return [app["key"] for app in made]

    async def _publish(self, owner: Client) -> None:
        narrator = self._narrator
        narrator.chapter("Acme publishes its workflow “Triage”")
        narrator.say(_OUTLINE)
        orders = await _deploy(owner, self._read("orders.yaml"))
        document = self._read("triage.yaml")
        for step in document["steps"]:
            if step["key"] == "orders":
                step["workflow_id"] = orders
        triage = await _deploy(owner, document)
        # What a caller could not run by itself would be hidden from it in its runs, too.
        for workflow_id in (orders, triage):
            await owner.call("PATCH", f"workflows/{workflow_id}", {"discoverable": True})
        narrator.request("PATCH", f'workflows/{triage}  {{"discoverable": true}}')

    def _read(self, name: str) -> dict[str, Any]:
        """Return a workflow of the demo, with the desk's address in it."""
        text = resources.files("insula.cli.demo").joinpath(name).read_text("utf-8")
        document: dict[str, Any] = yaml_text.load(text.replace(_DESK, self._desk.url).encode())
        return document

    async def _find(self, caller: Client) -> str:
        """Find the workflow in the catalogue; return the path of its runs."""
        self._narrator.chapter("Globex, another app, finds it in the catalogue")
        self._narrator.request("GET", "workflows/discover?search=triage")
        found = await caller.call("GET", "workflows/discover", query={"search": "triage"})
        if len(found) != 1:
            raise CommandFailed(f"The catalogue shows {len(found)} workflows.", ExitCode.FAILED)
        workflow = found[0]
        version = workflow["version"]["version"]
        self._narrator.say(f"“{workflow['name']}” of {workflow['app']['name']}, version {version}")
        return f"workflows/discover/{workflow['id']}/runs"

    async def _run(self, caller: Client, runs_path: str) -> None:
        narrator = self._narrator
        narrator.chapter("Globex runs it, and watches each step")
        narrator.request("POST", f'{runs_path}  {{"stream": true, "input": …}}')
        run = await to_completion(narrator, follower(caller, runs_path, _input("Northwind")))
        narrator.say(f"Result: {encode(run['result']).decode()}", "green")

    async def _cancel(self, caller: Client, runs_path: str) -> Cancelled:
        narrator = self._narrator
        narrator.chapter("The same for a customer with 250,000 tickets: it would take minutes")
        narrator.say("As soon as everything is under way, Globex changes its mind: POST …/cancel")
        following = follower(caller, runs_path, _input("Initech"))
        cancelled = await cancel_when_busy(narrator, following, self._desk, _WATCHED)
        if cancelled.run.get("status") != "CANCELLED":
            raise CommandFailed(f"The run is {cancelled.run.get('status')}.", ExitCode.FAILED)
        narrator.number(
            max(1, round(cancelled.took * 1000)), "ms", "from the request until all had stopped"
        )
        self._show_receipt(cancelled)
        self._show_proof(cancelled)
        return cancelled

    def _show_receipt(self, cancelled: Cancelled) -> None:
        receipt = cancelled.run.get("cancellation") or {}
        rows = [
            (
                f"{'  in a child run: ' if entry.get('runs') else ''}{entry.get('key')}",
                str(entry.get("doing")),
                duration(int(entry.get("for_ms") or 0)),
                "possible" if entry.get("effect_possible") else "none",
            )
            for entry in receipt.get("interrupted") or []
        ]
        if missing := set(BUSY) - {row[0] for row in rows}:
            named = ", ".join(sorted(missing))
            raise CommandFailed(f"The receipt says nothing of: {named}.", ExitCode.FAILED)
        self._narrator.say("The receipt, what was interrupted:")
        self._narrator.table(("STEP", "WAS DOING", "FOR", "EFFECT OUTSIDE"), rows)

    def _show_proof(self, cancelled: Cancelled) -> None:
        waiting = len(self._desk.waiting)
        self._narrator.say(
            f"The proof, on the desk's side: {cancelled.pages} pages asked for before the answer. "
            f"In {_WATCHED:g} s after it:\n"
            f"  {cancelled.after} requests accepted, {waiting} connections still open"
        )
        if cancelled.after or waiting:
            raise CommandFailed("Something went on after the answer.", ExitCode.FAILED)

    async def _replay(self, caller: Client, runs_path: str, run_id: str) -> None:
        narrator = self._narrator
        narrator.chapter("The desk puts old tickets away; Globex replays from “customer”")
        self._desk.tidy_up("Initech")
        start_path = f"{runs_path}/{run_id}/replay"
        narrator.request("POST", f'{start_path}  {{"stepKey": "customer"}}')
        following = follower(caller, runs_path, {"stepKey": "customer"}, start_path)
        run = await to_completion(narrator, following)
        narrator.say(f"Result: {encode(run['result']).decode()}", "green")


async def _deploy(owner: Client, document: dict[str, Any]) -> str:
    """Make a workflow and its first version; return its id."""
    made = await owner.call("POST", "workflows", document)
    workflow_id: str = made["id"]
    await owner.call("POST", f"workflows/{workflow_id}/versions", {})
    return workflow_id


def _input(customer: str) -> dict[str, Any]:
    """Return the body of a run: text, a customer, and a file."""
    attachment = {
        "data": base64.b64encode(_ATTACHMENT).decode("ascii"),
        "type": "text/plain",
        "name": "checkout.log",
        "encoding": "base64",
    }
    return {"input": {"text": _TEXT, "customer": customer, "attachment": attachment}}


@asynccontextmanager
async def _client(url: str, key: str) -> AsyncIterator[Client]:
    client = Client(url, key)
    try:
        yield client
    finally:
        await client.close()
