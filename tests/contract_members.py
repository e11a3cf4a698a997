"""Which members of the contract's answers have been seen, and which there are.

A member is named by the schema that it stands in, ``RunSchema.id``; in a schema without a name of
its own by the way to it, ``RunSchema.workflow_version.notes``.
"""

from collections.abc import Iterator
from typing import Any

from tests.contract import OUTPUTS, document, is_valid, operations

_COMPONENTS = "/components/schemas/"


def answer_place(method: str, path: str) -> str | None:
    """Return where the schema of an operation's answer stands, ``None`` if it has none."""
    content = document()["paths"][path][method.lower()]["responses"]["200"].get("content", {})
    if not content.get("application/json", {}).get("schema"):
        return None
    escaped = path.replace("~", "~0").replace("/", "~1")
    tail = "/responses/200/content/application~1json/schema"
    return f"/paths/{escaped}/{method.lower()}{tail}"


def all_members() -> set[str]:
    """Return every member of every answer of the contract."""
    found: set[str] = set()
    known: set[str] = set()
    for method, path in operations():
        place = answer_place(method, path)
        if place is not None:
            _collect(place, "", found, known)
    return found


def _at(place: str) -> dict[str, Any]:
    schema: Any = document()
    for part in place.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        schema = schema[int(name)] if isinstance(schema, list) else schema[name]
    found: dict[str, Any] = schema
    return found


def _parts(place: str, named: str) -> Iterator[tuple[str, str]]:
    """Yield the schemas that one is made of, or chosen from, or refers to, with their names."""
    schema = _at(place)
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        yield _COMPONENTS + name, name
    for union in ("allOf", "anyOf"):
        for number in range(len(schema.get(union, ()))):
            yield f"{place}/{union}/{number}", named


def _collect(place: str, named: str, found: set[str], known: set[str]) -> None:
    if place in known:
        return
    known.add(place)
    schema = _at(place)
    for part, name in _parts(place, named):
        _collect(part, name, found, known)
    for member in schema.get("properties", {}):
        found.add(f"{named}.{member}")
        _collect(f"{place}/properties/{member}", f"{named}.{member}", found, known)
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            _collect(f"{place}/{inner}", named, found, known)


class Seen:
    """Collects members that answers had, with something in them."""

    def __init__(self) -> None:
        self.members: set[str] = set()

    def answer(self, value: object, method: str, path: str) -> None:
        """Look through an operation's answer, which is known to be right."""
        place = answer_place(method, path)
        if place is not None:
            self._look(value, place, "")

    def _look(self, value: object, place: str, named: str) -> None:
        if value is None:
            return
        schema = _at(place)
        chosen = "anyOf" in schema
        for part, name in _parts(place, named):
            if not chosen or is_valid(value, part):
                self._look(value, part, name)
        if isinstance(value, list) and isinstance(schema.get("items"), dict):
            for one in value:
                self._look(one, f"{place}/items", named)
        if isinstance(value, dict):
            self._members(value, schema, place, named)

    def _members(self, value: dict[str, Any], schema: Any, place: str, named: str) -> None:
        known = schema.get("properties", {})
        for name, one in value.items():
            if name in known and one is not None:
                self.members.add(f"{named}.{name}")
                if name == "output" and value.get("type") in OUTPUTS:
                    # The contract's choice holds a schema that everything fits.
                    for each in one if isinstance(one, list) else [one]:
                        kind = OUTPUTS[value["type"]]
                        self._look(each, _COMPONENTS + kind, kind)
                else:
                    self._look(one, f"{place}/properties/{name}", f"{named}.{name}")
            elif name not in known and isinstance(schema.get("additionalProperties"), dict):
                self._look(one, f"{place}/additionalProperties", named)
