"""The documentation as data: its pages, their fenced blocks and their links."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"

_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]\n]+\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: the words after the fence, and what stands in it."""

    words: tuple[str, ...]
    text: str


def pages() -> list[Path]:
    """Return every Markdown page of the repository."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found = _BLOCK.findall(page.read_text("utf-8"))
    return [Block(tuple(words.split()), text) for words, text in found]


def links(page: Path) -> list[str]:
    """Return the targets of a page's links; what stands in code is no link."""
    prose = re.sub(r"`[^`\n]+`", "", _BLOCK.sub("", page.read_text("utf-8")))
    return _LINK.findall(prose)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as forges make them."""
    prose = _BLOCK.sub("", page.read_text("utf-8"))
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def reference() -> str:
    """Return the text of all reference pages."""
    return "\n".join(page.read_text("utf-8") for page in sorted(REFERENCE.glob("*.md")))
