"""How a command ends: its exit codes, and the one exception that carries words and a code."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """What the shell is told; each is explained in ``docs/reference/exit-codes.md``."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    UNREACHABLE = 5
    CANCELLED = 6
    CONFLICT = 7
    INTERRUPTED = 130


class CommandFailed(Exception):
    """A command cannot go on; ``hint`` says what to do about it, ``errors`` are the server's."""

    def __init__(
        self,
        message: str,
        code: ExitCode,
        hint: str | None = None,
        errors: Sequence[dict[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint
        self.errors = errors


class FolderInUse(CommandFailed):
    """Another process holds the data folder."""


def usage(message: str, hint: str | None = None) -> CommandFailed:
    """Build the failure for something the caller wrote."""
    return CommandFailed(message, ExitCode.USAGE, hint)


def unreadable(file: object, error: OSError | UnicodeDecodeError) -> CommandFailed:
    """Build the failure for a file that the caller named."""
    why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
    missing = isinstance(error, FileNotFoundError)
    code = ExitCode.NOT_FOUND if missing else ExitCode.USAGE
    return CommandFailed(f"{file} cannot be read: {why}.", code)


def code_of_status(status: int) -> ExitCode:
    """Translate an HTTP status that is no success."""
    if status in (401, 403):
        return ExitCode.NOT_ALLOWED
    if status == 404:
        return ExitCode.NOT_FOUND
    if status in (409, 429):
        return ExitCode.CONFLICT
    return ExitCode.UNREACHABLE if status >= 500 else ExitCode.USAGE


def code_of_run(status: str) -> ExitCode:
    """Translate a run's status."""
    return {"FAILED": ExitCode.FAILED, "CANCELLED": ExitCode.CANCELLED}.get(status, ExitCode.OK)
