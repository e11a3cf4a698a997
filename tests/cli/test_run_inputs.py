"""What a run is given on the command line."""

import base64
from pathlib import Path

import pytest

from insula.cli import run_inputs
from insula.cli.failures import CommandFailed, ExitCode
from insula.cli.run_inputs import read_input


def test_json_a_file_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "input.json"
    path.write_text('{"a": [1]}')
    assert read_input('{"a": 1}', []) == {"a": 1}
    assert read_input(f"@{path}", []) == {"a": [1]}
    assert read_input(None, []) is None


def test_files_fill_fields(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir")
    assert read_input('{"a": 1}', [f"letter={path}"]) == {
        "a": 1,
        "letter": {
            "data": base64.b64encode(b"Dear Sir").decode(),
            "type": "text/plain",
            "name": "letter.txt",
            "encoding": "base64",
        },
    }


@pytest.mark.parametrize(
    ("text", "files", "words"),
    [
        ("{nope", [], "not JSON"),
        ("@absent.json", [], "cannot be read"),
        ("[1]", ["a=b"], "JSON object"),
        (None, ["letter"], "FIELD=PATH"),
        (None, ["a=absent.pdf"], "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_said(text: str | None, files: list[str], words: str) -> None:
    with pytest.raises(CommandFailed, match=words):
        read_input(text, files)


def test_a_missing_file_is_not_found_and_another_one_unusable(tmp_path: Path) -> None:
    for text, files in (("@absent.json", []), (None, ["a=absent.pdf"])):
        with pytest.raises(CommandFailed, match="No such file") as caught:
            read_input(text, files)
        assert caught.value.code == ExitCode.NOT_FOUND
    (tmp_path / "input").write_bytes(b"\xff")
    with pytest.raises(CommandFailed, match="it is not text in UTF-8") as caught:
        read_input(f"@{tmp_path / 'input'}", [])
    assert caught.value.code == ExitCode.USAGE


def test_all_files_together_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"x" * 60)
    monkeypatch.setattr(run_inputs, "FILES_LIMIT", 100)
    assert len(read_input(None, [f"a={path}"])["a"]["data"]) == 80
    with pytest.raises(CommandFailed, match="too large"):
        read_input(None, [f"a={path}", f"b={path}"])
