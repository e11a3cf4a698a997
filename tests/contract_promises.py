"""Does our document promise what the contract promises? Schemas are compared by their structure:
whatever one allows has to be allowed by the other.
"""

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]
Document = dict[str, Any]

_WORDS = {"description", "title", "default", "examples", "deprecated"}
_INTEGERS = ("integer", "number")


class Comparison:
    """Whether what ``inner`` allows is allowed by ``outer``: two documents.

    With ``answers``, members that only ``outer`` knows are told, too. Places in ``passed`` are
    not looked at.
    """

    def __init__(
        self, inner: Document, outer: Document, passed: frozenset[str], *, answers: bool
    ) -> None:
        self._inner = inner
        self._outer = outer
        self._passed = passed
        self._answers = answers
        self._known: set[tuple[str, str]] = set()

    def problems(self, inner: Schema, outer: Schema, place: str) -> Iterator[str]:
        """Yield what is wrong, by its place."""
        pair = (str(inner.get("$ref", id(inner))), str(outer.get("$ref", id(outer))))
        if place in self._passed or pair in self._known:
            return
        self._known.add(pair)
        place = outer.get("$ref", place).rpartition("/")[2] if "$ref" in outer else place
        if place in self._passed:
            return
        choices = list(_alternatives(self._outer, outer))
        for one in _alternatives(self._inner, inner):
            yield from self._best(one, choices, place)

    def _best(self, one: Schema, choices: list[Schema], place: str) -> Iterator[str]:
        """Tell what is wrong with an alternative where it fits none of the others best."""
        told: list[list[str]] = []
        for choice in choices:
            known = set(self._known)
            found = list(self._simple(one, choice, place))
            if not found:
                return
            self._known = known
            told.append(found)
        if not told:
            yield f"{place}: there is nothing that it may be"
            return
        yield from min(told, key=lambda found: (any(map(_of_kind, found)), len(found)))

    def _simple(self, one: Schema, choice: Schema, place: str) -> Iterator[str]:
        if not choice.keys() - _WORDS:
            return
        kinds = one.get("type"), choice.get("type")
        if kinds[0] != kinds[1] and kinds not in (_INTEGERS, _INTEGERS[::-1]):
            yield f"{place}: {kinds[0] or 'anything'} is another kind"
            return
        if "enum" in choice:
            more = set(one.get("enum", ["anything"])) - set(choice["enum"])
            if more:
                yield f"{place}: may be {', '.join(sorted(map(str, more)))}; another kind"
                return
        if choice.get("type") == "object":
            yield from self._objects(one, choice, place)
        if choice.get("type") == "array" and choice.get("items"):
            yield from self.problems(one.get("items", {}), choice["items"], f"{place}[]")

    def _objects(self, one: Schema, choice: Schema, place: str) -> Iterator[str]:
        have, wanted = one.get("properties", {}), choice.get("properties", {})
        for name in choice.get("required", ()):
            if name not in one.get("required", ()) and f"{place}.{name}" not in self._passed:
                yield f"{place}.{name}: need not be there"
        for name, member in wanted.items():
            if name in have:
                yield from self.problems(have[name], member, f"{place}.{name}")
            elif self._answers and f"{place}.{name}" not in self._passed:
                yield f"{place}.{name}: is not described"
        others = choice.get("additionalProperties")
        if isinstance(others, dict) and not wanted:
            inner = one.get("additionalProperties")
            inner = inner if isinstance(inner, dict) else {}
            yield from self.problems(inner, others, f"{place}{{}}")
        if others is False and have.keys() - wanted.keys():
            yield f"{place}: {', '.join(sorted(have.keys() - wanted.keys()))} is refused"


def _of_kind(problem: str) -> bool:
    return problem.endswith("another kind") and ".type: " in problem


def _alternatives(document: Document, schema: Schema) -> Iterator[Schema]:
    """Yield the simple schemas of which a value fits one."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for union in ("anyOf", "oneOf"):
        if union in schema:
            for option in schema[union]:
                yield from _alternatives(document, option)
            return
    if "allOf" in schema:
        yield _merged([next(_alternatives(document, part)) for part in schema["allOf"]])
    elif isinstance(schema.get("type"), list):
        for kind in schema["type"]:
            yield {**schema, "type": kind}
    else:
        yield _typed(schema)


def _merged(parts: list[Schema]) -> Schema:
    merged: Schema = {"type": "object", "properties": {}, "required": []}
    for part in parts:
        merged["properties"] = {**merged["properties"], **part.get("properties", {})}
        merged["required"] = [*merged["required"], *part.get("required", ())]
    return merged


def _typed(schema: Schema) -> Schema:
    """Write a constant as a choice of one, and say of a choice of texts that they are texts."""
    if "const" in schema:
        schema = {**schema, "enum": [schema["const"]]}
    if "enum" in schema and "type" not in schema:
        schema = {**schema, "type": "string"}
    return schema
