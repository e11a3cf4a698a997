"""No pattern can be divided over a text in more ways than anybody can wait for.

``re`` holds the interpreter while it matches: one such pattern and one text of a stranger's would
stop a whole node.
"""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest

import insula

_parser: Any = importlib.import_module("re._parser")
_NEVER_GIVEN_BACK = ("POSSESSIVE_REPEAT", "ATOMIC_GROUP", "ASSERT", "ASSERT_NOT")
_FEW = 8
"""Repetitions that there may be inside of others: they multiply by a constant."""


def _patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    for module in pkgutil.walk_packages(insula.__path__, "insula."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            held = value if isinstance(value, list | tuple | set | frozenset) else [value]
            for pattern in held:
                if isinstance(pattern, re.Pattern):
                    yield f"{module.name}.{name}", pattern


def _explodes(parsed: Any, *, repeated: bool = False) -> bool:
    """Say whether something is repeated inside a repetition, and both can be given back."""
    for operation, details in parsed:
        inside = repeated
        if str(operation) in ("MAX_REPEAT", "MIN_REPEAT"):
            varies = details[1] != details[0] and details[1] > _FEW
            if varies and repeated:
                return True
            inside = repeated or varies
        elif str(operation) in _NEVER_GIVEN_BACK:
            inside = False
        if any(_explodes(each, repeated=inside) for each in _parts(details)):
            return True
    return False


def _parts(details: Any) -> Iterator[Any]:
    """Yield the patterns inside of what was parsed."""
    if isinstance(details, _parser.SubPattern):
        yield details
    elif isinstance(details, list | tuple):
        for each in details:
            yield from _parts(each)


def test_no_repetition_inside_another_is_given_back() -> None:
    found = dict(_patterns())
    assert len(found) > 30
    wrong = [
        name
        for name, pattern in found.items()
        if _explodes(_parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG))
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("pattern", "explodes"),
    [
        (r"(?:a+)*b", True),
        (r"(?:(x)|(?:a.*?c\s*))+b", True),
        (r"(?:a+)*+b", False),
        (r"(?>a.*?c\s*)*b", False),
        (r"(?:a{1,32}){0,2}b", False),
        (r"a*b*c", False),
    ],
)
def test_which_patterns_explode(pattern: str, explodes: bool) -> None:
    assert _explodes(_parser.parse(pattern)) is explodes
