"""The example workflows are sound: nothing wrong with them, nothing to warn of."""

from pathlib import Path

import pytest

from insula.cli.workflow_files import read_workflow
from insula.engine.document import check, fill, warnings

from .pages import ROOT

FILES = [*sorted((ROOT / "examples").glob("*.yaml")), ROOT / "benchmarks" / "light.yaml"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_examples_have_no_problems(path: Path) -> None:
    workflow = read_workflow(path)
    assert {"name", "description", "key", "steps"} <= workflow.keys()
    document, problems = check(fill(workflow))
    assert problems == []
    assert document is not None
    assert warnings(document) == []


def test_every_example_runs_offline() -> None:
    for path in FILES:
        for step in read_workflow(path)["steps"]:
            assert step["type"] in ("input", "branch", "code", "model")
            if step["type"] == "model":
                assert step["provider"]["provider"] == "mock"
