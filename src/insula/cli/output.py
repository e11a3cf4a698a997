"""What a person or a script is shown: results on stdout, everything else on stderr."""

import re
import sys
from collections.abc import Iterable, Sequence

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from insula.cli.failures import CommandFailed
from insula.kit.json import encode

# Names and errors come from strangers: a terminal must not obey them.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_WIDE = 200


def _console(stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDE
    return Console(stderr=stderr, width=width, highlight=False, markup=False, soft_wrap=True)


def printable(text: str) -> str:
    """Replace what would move a terminal's cursor, recolour it or reverse its text."""
    return _CONTROL.sub("\ufffd", text)


def say(text: str) -> None:
    """Tell the person something, on stderr."""
    _console(stderr=True).print(printable(text))


def show(text: str) -> None:
    """Print a result, on stdout."""
    _console(stderr=False).print(printable(text))


def show_json(value: object) -> None:
    """Print a value as indented JSON, on stdout."""
    sys.stdout.write(msgspec.json.format(encode(value), indent=2).decode() + "\n")
    sys.stdout.flush()


def show_json_line(value: object) -> None:
    """Print a value as one line of JSON, at once."""
    sys.stdout.write(encode(value).decode() + "\n")
    sys.stdout.flush()


def show_table(headings: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Print rows under headings, or say that there are none."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable("" if cell is None else str(cell))) for cell in row))
    if table.row_count:
        _console(stderr=False).print(table)
    else:
        say(empty)


def say_failure(failure: CommandFailed) -> None:
    """Tell the person why a command failed, and what to do."""
    console = _console(stderr=True)
    console.print(Text(printable(failure.message), style="red"))
    if failure.hint:
        console.print(Text(printable(failure.hint)))
