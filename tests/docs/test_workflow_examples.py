"""The example workflows are sound: nothing wrong with them, nothing to warn of."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from insula.cli.workflow_files import read_workflow
from insula.engine.document import check, fill, warnings

from .pages import REFERENCE, ROOT, Block, blocks

FILES = [*sorted((ROOT / "examples").glob("*.yaml")), ROOT / "benchmarks" / "light.yaml"]
STEPS = [block for block in blocks(REFERENCE / "steps.md") if block.words == ("yaml",)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_examples_have_no_problems(path: Path) -> None:
    workflow = read_workflow(path)
    assert {"name", "description", "key", "steps"} <= workflow.keys()
    document, problems = check(fill(workflow))
    assert problems == []
    assert document is not None
    assert warnings(document) == []


def named(value: Any) -> Iterator[str]:
    """Yield the steps that a piece of a workflow goes on with."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if key in ("destinations", "else"):
            yield from inner
        elif isinstance(inner, dict | list):
            yield from named(inner)


@pytest.mark.parametrize("block", STEPS, ids=range(len(STEPS)))
def test_the_steps_in_the_reference_have_no_problems(block: Block) -> None:
    steps = yaml.safe_load(block.text)
    others = sorted({*named(steps)} - {step["key"] for step in steps})
    assert others
    steps += [{"type": "code", "key": key, "code": "return 1"} for key in others]
    assert check(fill({"name": "Steps", "key": "steps", "steps": steps}))[1] == []


def test_every_example_runs_offline() -> None:
    for path in FILES:
        for step in read_workflow(path)["steps"]:
            assert step["type"] in ("input", "branch", "code", "model")
            if step["type"] == "model":
                assert step["provider"]["provider"] == "mock"
