"""What a piece of JavaScript needs: names, engine, whether it may wait. It is read, never run."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from tree_sitter import Node

from insula.engine.ports import Lane
from insula.engine.scripts_globals import GLOBALS, SCOPE_NAMES
from insula.engine.scripts_names import STEP_PROPERTIES, find_names
from insula.engine.scripts_syntax import parse

SOURCE_MAX: Final = 256 * 1024
"""Characters of one script."""
_CACHED_MAX: Final = 16 * 1024
_LEAVES: Final = frozenset(
    (
        "identifier",
        "property_identifier",
        "shorthand_property_identifier",
        "shorthand_property_identifier_pattern",
        "string_fragment",
    )
)
_V8_NAMES: Final = frozenset(("Intl", "timeZone", "Temporal", "WebAssembly"))
_WAITING: Final = frozenset(("fetch", "Promise", "then", "sleep"))
_WAITING_NODES: Final = frozenset(("await_expression", "async", "await"))
CANNOT_WAIT: Final = "await cannot be used here: only code steps may wait"
"""What is said of a script that awaits where it must not."""
_V8_DIRECTIVE: Final = re.compile(
    r"""\s*+(?://[ \t]*+use v8[ \t]*+$|/\*\s*+use v8\s*+\*/|["']use v8["'])""", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Script:
    """What is known of a script before it runs.

    ``names`` are the identifiers that nothing in the script declares where they stand;
    ``references`` are those of them, declared nowhere in the script, that are read like a step:
    ``NAME.output`` or ``.status``, ``.error``, ``.logs``. ``waits``: it may need the host while it
    runs, for it names ``await``, ``async``, ``fetch``, ``Promise``, ``then`` or ``sleep``.
    ``awaits``: it does so itself, outside of its functions, which is for code steps alone.
    """

    names: frozenset[str] = frozenset()
    references: frozenset[str] = frozenset()
    lane: Lane = "quickjs"
    error: str | None = None
    expression: bool = False
    waits: bool = False
    awaits: bool = False
    span: tuple[int, int] = (0, 0)
    """Of an expression: where it stands in the source, in bytes of UTF-8."""


def analyse(source: str) -> Script:
    """Read a script: a function body with ``return``, or one bare expression."""
    if len(source) > SOURCE_MAX:
        return Script(error=f"it is longer than {SOURCE_MAX} characters; put data into the input")
    return _small(source) if len(source) <= _CACHED_MAX else _large(source)


def function_body(source: str) -> str:
    """Return a script as a function body: a bare expression is returned, a body stays as it is."""
    script = analyse(source)
    if not script.expression:
        return source
    start, end = script.span
    return f"return (\n{source.encode()[start:end].decode()}\n)"


@lru_cache(maxsize=2048)
def _small(source: str) -> Script:
    return _read(source)


@lru_cache(maxsize=32)
def _large(source: str) -> Script:
    return _read(source)


def _read(source: str) -> Script:
    try:
        text = source.encode()
    except UnicodeEncodeError:
        return Script(error="it holds half of a surrogate pair; remove it")
    parsed = parse(text)
    if parsed.error is not None:
        return Script(error=parsed.error)
    traits = _Traits()
    names = find_names(parsed.root, traits.see)
    if names.error is not None:
        return Script(error=names.error)
    v8 = traits.v8 or _V8_DIRECTIVE.match(source) is not None
    return Script(
        names=names.free,
        references=names.references,
        lane="v8" if v8 else "quickjs",
        error=traits.refused,
        expression=parsed.span is not None,
        waits=traits.waits,
        awaits=traits.awaits,
        span=parsed.span or (0, 0),
    )


class _Traits:
    """What single nodes tell of the whole script."""

    def __init__(self) -> None:
        self.v8 = False
        self.waits = False
        self.awaits = False
        self.refused: str | None = None

    def see(self, node: Node, outside: bool) -> None:
        kind = node.type
        if kind in _WAITING_NODES:
            self.waits = True
            self.awaits = self.awaits or (outside and kind == "await")
        elif kind in _LEAVES:
            self._see_leaf(_text(node))
        elif kind in ("import_statement", "export_statement", "import"):
            self.refused = "there are no modules here: import and export cannot be used"
        elif kind.startswith("jsx_"):
            self.refused = "this is JSX, not JavaScript: put markup into a string"

    def _see_leaf(self, text: str) -> None:
        if text in _V8_NAMES or text.startswith("toLocale"):
            self.v8 = True
        elif text in _WAITING or text.startswith("getFile"):
            self.waits = True


def _text(node: Node) -> str:
    return "" if node.text is None else node.text.decode()


__all__ = [
    "CANNOT_WAIT",
    "GLOBALS",
    "SCOPE_NAMES",
    "SOURCE_MAX",
    "STEP_PROPERTIES",
    "Script",
    "analyse",
    "function_body",
]
