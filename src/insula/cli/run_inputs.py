"""What a run is given on the command line: JSON, a file of JSON, and files for its fields."""

import base64
import mimetypes
import sys
from pathlib import Path
from typing import Any

from insula.cli.failures import unreadable, usage
from insula.kit.json import InvalidJson, decode

# Base64 adds a third, and JSON bodies end at 32 MiB.
FILES_LIMIT = 23 * 1024 * 1024


def read_input(text: str | None, files: list[str]) -> Any:
    """Return the run's input: ``text`` is JSON, ``@FILE`` or ``@-``; ``files`` are ``FIELD=PATH``.

    Raises:
        CommandFailed: a file cannot be read, or there is no JSON object where one is needed.
    """
    value = None if text is None else _parse(_source(text), text)
    if not files:
        return value
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise usage("--input-file fills a field, so --input has to be a JSON object.")
    left = FILES_LIMIT
    for entry in files:
        field, _, name = entry.partition("=")
        if not field or not name:
            raise usage(f"--input-file {entry!r} does not look like FIELD=PATH.")
        content = _read_file(Path(name), left)
        left -= len(content)
        value[field] = {
            "data": base64.b64encode(content).decode("ascii"),
            "type": mimetypes.guess_type(name)[0] or "application/octet-stream",
            "name": Path(name).name,
            "encoding": "base64",
        }
    return value


def _source(text: str) -> str:
    if not text.startswith("@"):
        return text
    try:
        return sys.stdin.read() if text == "@-" else Path(text[1:]).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(f"The input {text[1:]}", error) from error


def _parse(source: str, given: str) -> Any:
    try:
        return decode(source)
    except InvalidJson as error:
        raise usage(
            f"The input is not JSON: {error}",
            None if given.startswith("@") else "In a file it would be --input @input.json",
        ) from error


def _read_file(path: Path, left: int) -> bytes:
    try:
        if path.stat().st_size > left:
            raise usage(
                f"{path} is too large to be sent inside JSON ({FILES_LIMIT} bytes in all).",
                "Upload it through the files API and give its id as the field's value.",
            )
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
