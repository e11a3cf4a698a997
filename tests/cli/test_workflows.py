"""``insula workflows``: push, pull, list, deploy, publish."""

import json
from pathlib import Path

import pytest

from insula.cli.failures import ExitCode

from .conftest import Invoke
from .fake_server import Answer, FakeServer

WORKFLOW = {
    "id": "work_1",
    "name": "Triage",
    "key": "triage",
    "app": {"name": "Acme"},
    "version": {"version": 3},
    "runs_count": 7,
    "steps": [{"type": "code", "key": "a", "code": "return 1\nreturn 2"}],
    "problems": [{"path": ["steps", "0", "code"], "code": "script", "message": "is odd"}],
}
ONE = "/apps/c/workflows/work_1"
ALL = "/apps/c/workflows"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "triage.yaml"
    path.write_text("name: Triage\nkey: triage\nsteps: []\n")
    return path


def test_push_makes_a_workflow_that_is_not_there(
    server: FakeServer, invoke: Invoke, file: Path
) -> None:
    server.on("GET", ALL, Answer([]))
    server.on("POST", ALL, Answer(WORKFLOW))
    outcome = invoke("workflows", "push", str(file))
    assert (outcome.code, outcome.out) == (ExitCode.OK, "work_1\n")
    assert "warning: steps.0.code: is odd" in outcome.err
    assert server.asked[-1].body == {"name": "Triage", "key": "triage", "steps": []}


def test_push_saves_the_workflow_with_the_same_key_and_deploys_it(
    server: FakeServer, invoke: Invoke, file: Path
) -> None:
    server.on("GET", ALL, Answer([{"id": "work_0", "key": "other"}, WORKFLOW]))
    server.on("PATCH", ONE, Answer(WORKFLOW))
    server.on("POST", f"{ONE}/versions", Answer({"id": "workv_1", "version": 4}))
    outcome = invoke("workflows", "push", str(file), "--deploy")
    assert outcome.code == ExitCode.OK
    assert "Saved 'Triage', deployed as version 4." in outcome.err


def test_pushing_what_is_deployed_already_is_a_success(
    server: FakeServer, invoke: Invoke, file: Path
) -> None:
    refused = json.loads((Path(__file__).parents[1] / "compat" / "error_409.json").read_text())
    server.on("GET", ALL, Answer([WORKFLOW]))
    server.on("PATCH", ONE, Answer(WORKFLOW))
    server.on("POST", f"{ONE}/versions", Answer(refused, 409))
    outcome = invoke("workflows", "push", str(file), "--deploy")
    assert (outcome.code, outcome.out) == (ExitCode.OK, "work_1\n")
    assert "Saved 'Triage'. Version 1 is this already." in outcome.err
    assert json.loads(invoke("workflows", "push", str(file), "--deploy", "--json").out) == WORKFLOW
    assert invoke("workflows", "deploy", "work_1").code == ExitCode.CONFLICT


def test_pushing_what_is_refused_otherwise_fails(
    server: FakeServer, invoke: Invoke, file: Path
) -> None:
    refused = {"status": 409, "message": "Version 1 is the same already, but its tests failed"}
    server.on("GET", ALL, Answer([WORKFLOW]))
    server.on("PATCH", ONE, Answer(WORKFLOW))
    server.on("POST", f"{ONE}/versions", Answer(refused, 409))
    outcome = invoke("workflows", "push", str(file), "--deploy")
    assert (outcome.code, outcome.out) == (ExitCode.CONFLICT, "")


def test_push_follows_the_id_in_the_file(server: FakeServer, invoke: Invoke, file: Path) -> None:
    file.write_text("id: work_1\nname: Triage\n")
    server.on("PATCH", ONE, Answer(WORKFLOW))
    server.on("POST", ALL, Answer(WORKFLOW))
    assert invoke("workflows", "push", str(file)).code == ExitCode.OK
    assert invoke("workflows", "push", str(file), "--new").code == ExitCode.OK
    assert [asked.method for asked in server.asked] == ["PATCH", "POST"]
    assert server.asked[1].body == {"name": "Triage"}


def test_push_refuses_to_guess(server: FakeServer, invoke: Invoke, file: Path) -> None:
    server.on("GET", ALL, Answer([WORKFLOW, {**WORKFLOW, "id": "work_2"}]))
    outcome = invoke("workflows", "push", str(file))
    assert outcome.code == ExitCode.USAGE
    assert "work_1, work_2" in outcome.err


def test_pull_writes_a_file_that_push_reads(
    server: FakeServer, invoke: Invoke, tmp_path: Path
) -> None:
    server.on("GET", ONE, Answer(WORKFLOW))
    server.on("PATCH", ONE, Answer(WORKFLOW))
    path = tmp_path / "pulled.yaml"
    assert invoke("workflows", "pull", "work_1", "--output", str(path)).code == ExitCode.OK
    assert invoke("workflows", "pull", "work_1").out == path.read_text()
    assert json.loads(invoke("workflows", "pull", "work_1", "--json").out)["key"] == "triage"
    assert invoke("workflows", "push", str(path)).code == ExitCode.OK
    kept = {name: WORKFLOW[name] for name in ("name", "key", "steps")}
    assert server.asked[-1].body == kept


def test_list_of_ones_own_and_of_the_catalogue(server: FakeServer, invoke: Invoke) -> None:
    server.on("GET", ALL, Answer([{**WORKFLOW, "name": "Tri\x1b[31mage"}]))
    server.on("GET", f"{ALL}/discover", Answer([]))
    outcome = invoke("workflows", "list", "--search", "tri")
    assert "work_1" in outcome.out
    assert "\x1b" not in outcome.out
    assert server.asked[0].query == {"search": ["tri"], "take": ["20"], "page": ["1"]}
    assert "There are no workflows." in invoke("workflows", "list", "--discover").err


def test_deploy_and_publish(server: FakeServer, invoke: Invoke) -> None:
    server.on("POST", f"{ONE}/versions", Answer({"id": "workv_1", "version": 4}))
    server.on("PATCH", ONE, Answer(WORKFLOW))
    assert invoke("workflows", "deploy", "work_1", "--notes", "n").out == "version 4\n"
    assert invoke("workflows", "deploy", "work_1", "--force").out == "version 4\n"
    assert invoke("workflows", "publish", "work_1", "--closed").code == ExitCode.OK
    assert invoke("workflows", "unpublish", "work_1").code == ExitCode.OK
    assert [asked.body for asked in server.asked] == [
        {"notes": "n"},
        {"force": True},
        {"discoverable": True, "open": False},
        {"discoverable": False},
    ]
