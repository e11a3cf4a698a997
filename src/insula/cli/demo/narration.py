"""How the demo speaks: numbered chapters, requests as they are sent, tables, one big number."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from insula.cli.output import printable
from insula.cli.progress import LiveProgress, PlainProgress, RunProgress

_WIDTH = 100
_INDENT = "   "
# Each digit in three lines of three cells.
_DIGITS = {
    "0": ("█▀█", "█ █", "▀▀▀"),
    "1": ("▀█ ", " █ ", "▀▀▀"),
    "2": ("▀▀█", "█▀▀", "▀▀▀"),
    "3": ("▀▀█", " ▀█", "▀▀▀"),
    "4": ("█ █", "▀▀█", "  ▀"),
    "5": ("█▀▀", "▀▀█", "▀▀▀"),
    "6": ("█▀▀", "█▀█", "▀▀▀"),
    "7": ("▀▀█", "  █", "  ▀"),
    "8": ("█▀█", "█▀█", "▀▀▀"),
    "9": ("█▀█", "▀▀█", "▀▀▀"),
}


class Narrator:
    """Writes to stdout: in colour and moving on a terminal, in plain lines elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        width = None if sys.stdout.isatty() else _WIDTH
        self.console = console or Console(width=width, highlight=False, markup=False, emoji=False)
        self._chapters = 0

    def chapter(self, title: str) -> None:
        """Begin the next part of the story."""
        self._chapters += 1
        self.console.print()
        self.console.print(Text(f"{self._chapters}  {title}", style="bold cyan"))

    def say(self, text: str, style: str = "") -> None:
        """Tell something, under the chapter's title."""
        for line in text.splitlines():
            self.console.print(Text(_INDENT + printable(line), style=style), soft_wrap=True)

    def request(self, method: str, path: str) -> None:
        """Show a request as it is sent."""
        self.say(f"{method} /apps/c/{path}", "dim")

    def progress(self, progress: RunProgress) -> LiveProgress | PlainProgress:
        """Return what shows a run while it goes on."""
        if self.console.is_terminal:
            return LiveProgress(progress, console=self.console)
        return PlainProgress(self.say)

    def number(self, number: int, unit: str, meaning: str) -> None:
        """Show a number so that nobody overlooks it."""
        self.console.print()
        if not self.console.is_terminal:
            self.say(f">>>  {number} {unit}  {meaning}")
        else:
            lines = [" ".join(_DIGITS[digit][row] for digit in str(number)) for row in range(3)]
            after = ("", f" {unit}", f"    {meaning}")
            for line, words in zip(lines, after, strict=True):
                self.console.print(Text(_INDENT + line, style="bold green").append(words))
        self.console.print()

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Show rows under headings."""
        table = Table.grid(padding=(0, 3))
        table.add_row(*(Text(heading, style="dim") for heading in ("", *headings)))
        for row in rows:
            table.add_row("", *(Text(printable(cell)) for cell in row))
        self.console.print(table)
