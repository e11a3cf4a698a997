"""The command line from end to end: real commands, a real server, the examples as they are."""

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.harness import Served, environment
from tests.acceptance.kinds import KINDS
from tests.acceptance.loopback import Loopback

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
WAIT = 60.0
INPUTS: dict[str, tuple[dict[str, Any], Any]] = {
    "triage": (
        {"text": "The site is down", "customer": "Ada"},
        {"way": "page", "page": "on-call", "because": ["down"]},
    ),
    "batch": (
        {"lines": [{"name": "a", "price": 2}, {"name": "b", "price": 3, "count": 2}]},
        {"lines": 2, "total": 8},
    ),
    "agent": ({"question": "Where is my order?"}, None),
    "fields-extraction": ({"text": "Invoice NW-1042", "currency": "EUR"}, None),
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Shell:
    """Runs ``insula`` on a data folder, or with an address and a key."""

    def __init__(self, *options: str, **variables: str) -> None:
        self.options = options
        self.variables = variables

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "insula", *arguments, *self.options),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(self.variables),
            start_new_session=True,
        )

    async def run(self, *arguments: str) -> Ended:
        """Run a command to its end."""
        return await ended(await self.start(*arguments))

    async def ok(self, *arguments: str) -> Ended:
        """Run a command that must succeed."""
        done = await self.run(*arguments)
        assert done.code == 0, (arguments, done)
        return done


async def ended(process: asyncio.subprocess.Process) -> Ended:
    async with asyncio.timeout(WAIT):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


@pytest.fixture
async def shell(served: Served) -> Shell:
    """An app of its own, reached through the folder of the server that holds it."""
    data = ("--data", str(served.data))
    made = (await Shell(*data).ok("apps", "create", "Acme", "--json")).json()
    assert made.keys() == {"app_id", "name", "key"}
    return Shell(INSULA_URL=served.url, INSULA_KEY=made["key"])


async def _push(shell: Shell, file: Path) -> str:
    workflow_id = (await shell.ok("workflows", "push", str(file), "--deploy")).out.strip()
    assert workflow_id.startswith("work_")
    return workflow_id


@pytest.mark.parametrize("name", INPUTS)
async def test_the_examples_run(shell: Shell, name: str) -> None:
    given, result = INPUTS[name]
    workflow_id = await _push(shell, EXAMPLES / f"{name}.yaml")
    done = await shell.ok("run", workflow_id, "--input", json.dumps(given), "--json")
    run = done.json()
    assert run["status"] == "COMPLETED"
    if result is not None:
        assert run["result"] == result
    streamed = await shell.ok("run", workflow_id, "--input", json.dumps(given), "--stream")
    told = streamed.lines()
    assert told[0]["event"] == told[-1]["event"] == "run"
    assert told[-1]["data"]["status"] == "COMPLETED"
    assert told[-1]["data"]["result"] == run["result"]


async def test_all_examples_are_tried() -> None:
    assert {file.stem for file in EXAMPLES.glob("*.yaml")} == set(INPUTS)


async def test_a_workflow_from_file_to_catalogue_and_back(shell: Shell, tmp_path: Path) -> None:
    file = EXAMPLES / "batch.yaml"
    workflow_id = (await shell.ok("workflows", "push", str(file))).out.strip()
    assert (await shell.run("workflows", "publish", workflow_id)).code == 7  # nothing deployed
    assert (await shell.ok("workflows", "deploy", workflow_id)).out == "version 1\n"
    assert (await shell.run("workflows", "deploy", workflow_id)).code == 7  # the same again
    await shell.ok("workflows", "publish", workflow_id)
    listed = (await shell.ok("workflows", "list", "--discover", "--json")).json()
    assert workflow_id in {workflow["id"] for workflow in listed}
    pulled = tmp_path / "pulled.yaml"
    await shell.ok("workflows", "pull", workflow_id, "-o", str(pulled))
    again, before = (yaml.safe_load(path.read_text()) for path in (pulled, file))
    assert [step["key"] for step in again["steps"]] == [step["key"] for step in before["steps"]]
    assert (await shell.ok("workflows", "push", str(pulled))).out.strip() == workflow_id


async def test_a_run_that_is_watched_cancelled_and_replayed(
    shell: Shell, loopback: Loopback, tmp_path: Path
) -> None:
    file = tmp_path / "busy.json"
    steps = KINDS[5].steps(loopback.url)
    file.write_text(json.dumps({"name": "Busy", "key": "busy", "steps": steps}))
    workflow_id = await _push(shell, file)
    background = ("run", workflow_id, "--input", '{"tag": "cli"}', "--background")
    run_id = (await shell.ok(*background)).out.strip()
    await loopback.arrived("cli")
    shown = (await shell.ok("runs", "show", workflow_id, run_id, "--json")).json()
    assert shown["status"] == "RUNNING"
    watching = await shell.start("runs", "watch", workflow_id, run_id, "--stream")
    assert watching.stdout is not None
    assert json.loads(await watching.stdout.readline())["data"]["status"] == "RUNNING"
    cancelled = await shell.ok("runs", "cancel", workflow_id, run_id)
    assert "CANCELLED" in cancelled.out
    assert "Everything had stopped" in cancelled.err
    assert "busy" in cancelled.err
    watched = await ended(watching)
    assert watched.code == 6
    assert watched.lines()[-1]["data"]["status"] == "CANCELLED"
    listed = (await shell.ok("runs", "list", "--status", "cancelled", "--json")).json()
    assert [run["id"] for run in listed] == [run_id]
    replay = ("runs", "replay", workflow_id, run_id, "--step", "first", "--background")
    again = (await shell.ok(*replay)).out.strip()
    await loopback.arrived("cli", 2)
    await shell.ok("runs", "cancel", workflow_id, again)
    assert (await shell.run("runs", "watch", workflow_id, again)).code == 6


async def test_interrupting_a_command_cancels_its_run(
    shell: Shell, loopback: Loopback, tmp_path: Path
) -> None:
    file = tmp_path / "busy.json"
    steps = KINDS[5].steps(loopback.url)
    file.write_text(json.dumps({"name": "Busy", "key": "busy", "steps": steps}))
    workflow_id = await _push(shell, file)
    running = await shell.start("run", workflow_id, "--input", '{"tag": "ctrl-c"}')
    await loopback.arrived("ctrl-c")
    os.kill(running.pid, signal.SIGINT)
    assert (await ended(running)).code == 130
    await loopback.left("ctrl-c")
    (run,) = (await shell.ok("runs", "list", "--json")).json()
    assert run["status"] == "CANCELLED"


async def test_exit_codes(shell: Shell, served: Served, tmp_path: Path) -> None:
    failing = tmp_path / "failing.yaml"
    failing.write_text("name: F\nkey: f\nsteps:\n- {type: code, key: a, code: throw 1}\n")
    workflow_id = await _push(shell, failing)
    unknown = "work_" + "1" * 22
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: B\nsteps: [{type: code, key: a, destinations: [a]}]\n")
    stranger = Shell(INSULA_URL=served.url, INSULA_KEY="ins_wrong")
    nobody = Shell(INSULA_URL="http://127.0.0.1:9", INSULA_KEY="ins_wrong")
    expected = {
        (shell, "run", workflow_id): 1,
        (shell, "workflows", "push", str(broken)): 2,
        (shell, "workflows", "push", str(tmp_path / "none.yaml")): 3,
        (shell, "run", workflow_id, "--input", "{"): 2,
        (shell, "run", unknown): 3,
        (shell, "runs", "cancel", workflow_id, "run_" + "1" * 22): 3,
        (stranger, "workflows", "list"): 4,
        (nobody, "workflows", "list"): 5,
        (Shell(), "serve", "--data", str(served.data), "--port", "0"): 7,
    }
    for (who, *command), code in expected.items():
        done = await who.run(*command)
        assert done.code == code, (command, done)
        assert done.err.strip(), "a failure says why"
        assert "Traceback" not in done.err


async def test_doctor_finds_the_walls(served: Served) -> None:
    done = await Shell("--data", str(served.data)).run("doctor", "--json")
    findings = done.json()
    assert done.code == 0, findings
    assert not [finding for finding in findings if finding["verdict"] == "failed"]


async def test_a_folder_that_nobody_serves_is_served_for_one_command(tmp_path: Path) -> None:
    shell = Shell("--data", str(tmp_path / "own"))
    made = await shell.ok("apps", "create", "Acme")
    listed = await shell.ok("apps", "list")
    assert " live=" not in made.err + listed.err
    assert listed.err == ""  # what a server logs is nothing to whoever asks once
    workflow_id = await _push(shell, EXAMPLES / "triage.yaml")
    done = await shell.ok("run", workflow_id, "--input", '{"text": "hello?"}', "--json")
    assert done.json()["result"]["way"] == "reply"
    assert not (tmp_path / "own" / "server.json").exists()
