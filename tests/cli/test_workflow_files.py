"""Workflow files: what is written is read back, and YAML reinterprets nothing."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insula.cli.failures import CommandFailed, ExitCode
from insula.cli.workflow_files import read_workflow, write_workflow

texts = st.text(st.characters(codec="utf-8"), max_size=30) | st.sampled_from(
    [
        "on",
        "yes",
        "null",
        "~",
        "1e5",
        "010",
        "0x1f",
        "12:30",
        "2026-01-31",
        "<<",
        "=",
        ".inf",
        "1_0",
    ]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(["name", "key", "input", "steps"]), values))
@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_what_is_written_is_read_back(
    suffix: str, tmp_path_factory: pytest.TempPathFactory, workflow: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("files") / f"workflow{suffix}"
    path.write_bytes(write_workflow(workflow, as_json=suffix == ".json").encode())
    assert read_workflow(path) == workflow


def test_what_the_server_keeps_is_left_out() -> None:
    text = write_workflow({"id": "work_1", "name": "Batch", "runs_count": 3, "steps": []}, False)
    assert text == "id: work_1\nname: Batch\nsteps: []\n"


def test_scripts_stay_readable() -> None:
    text = write_workflow({"steps": [{"code": "const a = 1\nreturn a\n"}]}, False)
    assert text == "steps:\n- code: |\n    const a = 1\n    return a\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not well formed"),
        ("- a\n", "does not hold a workflow"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("a: !!python/object/apply:os.getcwd []\n", "not well formed"),
        ("a: " + "[" * 5000, "not well formed"),
    ],
)
def test_bad_files_are_usage_errors(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "workflow.yaml"
    path.write_text(text)
    with pytest.raises(CommandFailed, match=words) as caught:
        read_workflow(path)
    assert caught.value.code == ExitCode.USAGE


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"absent.yaml cannot be read: No such file") as caught:
        read_workflow(tmp_path / "absent.yaml")
    assert caught.value.code == ExitCode.NOT_FOUND
