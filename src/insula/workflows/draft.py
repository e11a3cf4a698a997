"""A workflow's body on its way in: filled, checked, and kept as the bytes that are stored."""

import asyncio
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from insula.engine.document import Problem, check, fill, warnings
from insula.errors import BadInput, FieldError
from insula.kit.json import InvalidJson, decode, encode
from insula.workflows.render import BODY

_KEY_LENGTH = 64
_TAKEN = frozenset(
    """
    arguments await break case catch class const continue debugger default delete do else enum env
    eval export extends false finally for function if implements import in index input instanceof
    interface item let new null package private protected public return secrets static super switch
    this throw true try typeof util var variables void while with yield args console
    """.split()  # noqa: SIM905  # a list of forty quoted words says less
)


@dataclass(frozen=True, slots=True)
class Draft:
    """A body that may be stored, and what a deploy would refuse in it; both JSON."""

    body: bytes
    problems: bytes


async def prepare(parts: Mapping[str, Any]) -> Draft:
    """Fill and check a body, away from the event loop: a large one takes a while.

    Raises:
        BadInput: it is no workflow; one entry for each problem.
    """
    return await asyncio.to_thread(_prepare, parts)


def _prepare(parts: Mapping[str, Any]) -> Draft:
    given = {name: parts[name] for name in BODY if parts.get(name) is not None}
    filled = fill(given)
    document, problems = check(filled)
    if document is None or problems:
        raise refuse(problems)
    try:
        body = encode({name: filled.get(name) for name in BODY})
    except InvalidJson as error:
        raise BadInput(f"The workflow cannot be stored as JSON: {error}") from error
    listed = [
        {"path": list(problem.path), "code": problem.code, "message": problem.message}
        for problem in warnings(document)
    ]
    return Draft(body, encode(listed))


def refuse(problems: Sequence[Problem]) -> BadInput:
    """Make the answer that names every problem of a body."""
    number = len(problems)
    words = "a problem" if number == 1 else f"{number} problems"
    errors = [FieldError(each.path, each.code, each.message) for each in problems]
    first = f": {problems[0].message}" if problems else ""
    return BadInput(f"The workflow has {words}{first}", errors)


def merged(body: bytes, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored body's parts with some of them replaced."""
    parts: dict[str, Any] = decode(body)
    return {**parts, **changes}


def key_from(name: str) -> str:
    """Make a key, which is a JavaScript identifier, from a name."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.findall(r"[a-z0-9]+", plain.lower())
    key = "_".join(words)[:_KEY_LENGTH].rstrip("_") or "workflow"
    return f"workflow_{key}" if key[0].isdigit() or key in _TAKEN else key
