"""Finds the holes of a template: where ``{{`` begins one, and which ``}}`` ends it."""

import re
from dataclasses import dataclass
from typing import Final

HOLES_MAX: Final = 10_000
HOLE_MAX: Final = 64 * 1024
"""Characters of one hole."""

_TOKEN: Final = re.compile(
    r"""
    (?P<space>\s++)
  | (?P<word>[\w$]++)
  | (?P<string>"(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+')
  | (?P<comment>//(?:(?!\}\})[^\n])*+|/\*(?:[^*]|\*(?!/))*+\*/)
  | (?P<open>[{(\[])
  | (?P<close>[})\]])
  | (?P<tick>`)
  | (?P<slash>/)
  | (?P<quote>["'])
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_LITERAL: Final = re.compile(r"(?:[^`\\$]|\\.|\$(?!\{))*+(`|\$\{)", re.DOTALL)
"""The rest of a template literal, up to its end or its next substitution."""
_REGEX: Final = re.compile(r"/(?![*/])(?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*+\])++/\w*+")
_BEFORE_REGEX: Final = frozenset(
    ("return", "typeof", "in", "of", "void", "delete", "instanceof", "new", "case", "await")
)
_PAIRS: Final = {"}": "{", ")": "(", "]": "["}
_SUBSTITUTION: Final = "${"


@dataclass(frozen=True, slots=True)
class Gap:
    """What stands between ``{{`` and ``}}``, and in which line."""

    source: str
    line: int


class BadTemplate(ValueError):
    """The text is no template."""


def split(text: str) -> list[str | Gap]:
    """Split a text into literal text and holes, in time proportional to its length.

    Raises:
        BadTemplate: a hole does not end, is too long, or there are too many.
    """
    parts: list[str | Gap] = []
    position, line, holes = 0, 1, 0
    while (start := text.find("{{", position)) >= 0:
        literal = text[position:start]
        line += literal.count("\n")
        holes += 1
        if holes > HOLES_MAX:
            raise BadTemplate(f"there are more than {HOLES_MAX} {{{{…}}}}; use an expression")
        try:
            end = _Scanner(text, start + 2).end()
        except BadTemplate as error:
            raise BadTemplate(f"line {line}: {error}") from error
        if literal:
            parts.append(literal)
        parts.append(Gap(text[start + 2 : end], line))
        line += text.count("\n", start, end)
        position = end + 2
    if position < len(text):
        parts.append(text[position:])
    return parts


class _Scanner:
    """Reads the tokens of JavaScript from behind ``{{`` on, until ``}}`` stands outside of all."""

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._limit = min(len(text), start + HOLE_MAX)
        self._position = start
        self._open: list[str] = []
        self._after_value = False

    def end(self) -> int:
        """Return the position of the closing braces."""
        while match := _TOKEN.match(self._text, self._position, self._limit):
            kind, found = match.lastgroup, match[0]
            if kind == "close":
                if not self._open and self._text.startswith("}}", self._position):
                    return self._position
                self._position = match.end()
                self._close(found)
                continue
            if kind == "slash" and not self._after_value:
                self._regex()
                continue
            self._position = match.end()
            self._take(kind, found)
        if self._limit < len(self._text):
            raise BadTemplate(f"a {{{{ has no }}}} within {HOLE_MAX} characters")
        raise BadTemplate("a {{ has no }}")

    def _take(self, kind: str | None, found: str) -> None:
        match kind:
            case "space" | "comment":
                return
            case "quote":
                raise BadTemplate(f"a text in a {{{{…}}}} has no closing {found}")
            case "open":
                self._open.append(found)
            case "tick":
                self._literal()
        after_word = kind == "word" and found not in _BEFORE_REGEX
        self._after_value = after_word or kind == "string" or (kind == "tick" and self._closed())

    def _closed(self) -> bool:
        return not self._open or self._open[-1] != _SUBSTITUTION

    def _close(self, found: str) -> None:
        opener = self._open.pop() if self._open else ""
        self._after_value = True
        if opener == _SUBSTITUTION and found == "}":
            self._literal()
            self._after_value = self._closed()
        elif opener != _PAIRS[found]:
            raise BadTemplate(f"a {found} in a {{{{…}}}} has no opening {_PAIRS[found]}")

    def _literal(self) -> None:
        match = _LITERAL.match(self._text, self._position, self._limit)
        if match is None:
            raise BadTemplate("a text in a {{…}} has no closing `")
        self._position = match.end()
        if match[1] == _SUBSTITUTION:
            self._open.append(_SUBSTITUTION)

    def _regex(self) -> None:
        match = _REGEX.match(self._text, self._position, self._limit)
        if match is None:
            raise BadTemplate("a / in a {{…}} begins a regular expression that does not end")
        self._position = match.end()
        self._after_value = True
