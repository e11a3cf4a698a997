"""Links lead somewhere, and the decisions have their form."""

from pathlib import Path

import pytest

from .pages import ROOT, anchors, links, pages

DECISIONS = ROOT / "docs" / "decisions"
PARTS = ["## Context", "## Choice", "## Price", "## What would change it"]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in links(page):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_decision_is_in_the_index_and_has_its_parts() -> None:
    index = (DECISIONS / "README.md").read_text("utf-8")
    wrong = []
    for page in sorted(DECISIONS.glob("[0-9]*.md")):
        text = page.read_text("utf-8")
        headings = [line for line in text.splitlines() if line.startswith("## ")]
        if f"({page.name})" not in index:
            wrong.append(f"{page.name} is not in the index")
        if headings != PARTS:
            wrong.append(f"{page.name} has {headings}")
        if not text.startswith(f"# {page.name[:4]}: "):
            wrong.append(f"{page.name} does not begin with its number")
    assert not wrong
