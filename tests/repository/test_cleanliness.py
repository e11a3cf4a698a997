"""The repository speaks of the product alone: no machine's paths, no registries, no loose ends."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BINARY = {".png", ".jpg", ".ico", ".woff2", ".pdf", ".docx", ".xlsx", ".pptx", ".gz", ".db"}
NOT_OURS = {
    ".git",
    ".venv",
    ".hypothesis",
    "__pycache__",
    "build",
    "dist",
    "node_modules",
    "data",
    "insula-data",
}
SIZE_LIMIT = 1024 * 1024

# Written in pieces, so that this file does not find itself.
FORBIDDEN = {
    "a path of one machine": r"(?<![\w.])/(?:ho" r"me|ro" r"ot|Us" r"ers|wo" r"rk)/[A-Za-z.]",
    "the host of a package registry": r"files\.python"
    r"hosted|py"
    r"pi\.org|registry\.np"
    r"mjs|"
    r"deb\.deb"
    r"ian\.org",
    "something left to do": r"\b(?:TO" r"DO|FIX" r"ME|X" r"XX)\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE" r" KEY-----",
    "a merge conflict": r"^(?:<{7} |>{7} )",
}


def ours(folder: Path = ROOT) -> Iterator[Path]:
    """Yield the files of the checkout, without what is built, installed, cached or stored."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if path.name not in NOT_OURS and not path.name.endswith((".egg-info", "_cache")):
                yield from ours(path)
        elif path.is_file():
            yield path


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {
        str(path.relative_to(ROOT)): path.read_text("utf-8")
        for path in ours()
        if path.suffix not in BINARY
    }


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_that_does_not_belong(what: str, texts: dict[str, str]) -> None:
    pattern = re.compile(FORBIDDEN[what], re.MULTILINE)
    found = [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match.group()}"
        for name, text in texts.items()
        for match in pattern.finditer(text)
    ]
    assert not found, f"{what}: {found}"


def test_no_generated_or_large_files() -> None:
    unwanted = [
        str(path.relative_to(ROOT))
        for path in ours()
        if path.suffix in {".pyc", ".db", ".log", ".orig", ".rej"}
        or path.stat().st_size > SIZE_LIMIT
    ]
    assert not unwanted


def test_every_source_file_is_small_and_says_what_it_owns() -> None:
    wrong = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        text = path.read_text("utf-8")
        page = path.name == "tables.py"  # the data model, which stays on one page
        if text.count("\n") > 450 and not page:
            wrong.append(f"{path.relative_to(ROOT)}: over 450 lines")
        if not text.startswith('"""'):
            wrong.append(f"{path.relative_to(ROOT)}: no module docstring")
    assert not wrong
