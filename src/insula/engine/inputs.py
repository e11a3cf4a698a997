"""A run's input against the fields that are asked for: every field's error, and every file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from insula.engine.document_fields import Field, FileField, ObjectField, default_of
from insula.engine.inputs_kinds import Refusal, check_value, kind_of
from insula.engine.inputs_schema import json_schema
from insula.errors import FieldError
from insula.kit import json

ERRORS_MAX: Final = 1000
_MISSING: Final = object()
_PLAIN: Final = re.compile(r"[A-Za-z0-9_$-]{1,40}")

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class FileSlot:
    """Where a file stands in a checked input, in whatever form; ``path`` is below ``value``.

    ``configured``: it is the workflow's own, and not the caller's.
    """

    path: Path
    value: Any
    field: FileField
    configured: bool = False


@dataclass(frozen=True, slots=True)
class Configured:
    """What of a checked input the workflow's configuration has put there."""

    path: Path
    connection: bool
    """Whether it names a connection; these stand here by themselves, wherever they stand."""


@dataclass(frozen=True, slots=True)
class Checked:
    """An input as the run will see it, what is wrong with it, and the files in it.

    ``value`` shares nothing that ``place`` changes with what was given.
    """

    value: dict[str, Any]
    errors: list[FieldError] = field(default_factory=list)
    files: list[FileSlot] = field(default_factory=list)
    configured: list[Configured] = field(default_factory=list)


def check_input(
    definition: Mapping[str, Field], given: object, default: object, from_text: bool = False
) -> Checked:
    """Check an input; one error a field.

    ``default`` gives the values of ``config`` fields that ``given`` lacks. ``from_text``: numbers,
    booleans, lists and objects may come as text, as in query strings and forms. Keys that the
    definition does not know are kept.
    """
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        message = f"input is {kind_of(given)}; give an object with a value for each field"
        return Checked({}, [FieldError(("input",), "type", message)])
    check = _Check(from_text)
    value = check.members(definition, given, _object(default), ())
    return Checked(value, check.errors, check.files, check.configured)


def place(value: dict[str, Any], path: Path, replacement: Any) -> None:
    """Put a replacement where a file stands, in place."""
    holder: Any = value
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = replacement


class _Check:
    """Goes down a definition and a value at the same time; the definition bounds the depth."""

    def __init__(self, from_text: bool) -> None:
        self.errors: list[FieldError] = []
        self.files: list[FileSlot] = []
        self.configured: list[Configured] = []
        self._within = False
        """Whether what is looked at is the configuration's."""
        self._from_text = from_text

    def members(
        self,
        definition: Mapping[str, Field],
        given: Mapping[str, Any],
        default: Mapping[str, Any],
        path: Path,
    ) -> dict[str, Any]:
        value = dict(given)
        for name, kind in definition.items():
            here = (*path, name)
            inner = _object(default.get(name))
            found, configured = self._found(kind, value.get(name, _MISSING), default.get(name))
            if found is not _MISSING:
                value[name] = self._marked(kind, found, inner, here, configured)
                continue
            if value.get(name) == "":
                del value[name]
            made = self._from_defaults(kind, inner, here)
            if made:
                value[name] = made
            elif not kind.optional and kind.type != "content":
                self._refuse(here, "required", f"is missing; give {_wanted(kind)}")
        return value

    def _found(self, kind: Field, given: object, default: object) -> tuple[object, bool]:
        """Choose between what was given, the configuration, and the field's own default; say
        whether it was the configuration."""
        if given is not _MISSING and given is not None and not self._is_blank(kind, given):
            return given, False
        if kind.config and default is not None:
            return default, True
        own = default_of(kind)
        return (_MISSING if own is None else own), False

    def _marked(
        self, kind: Field, found: object, default: Mapping[str, Any], path: Path, configured: bool
    ) -> Any:
        """Check a field, and note what in it is the configuration's."""
        before = self._within
        connection = kind.type == "connection"
        if (configured and not before) or (before and connection):
            self.configured.append(Configured(path, connection))
        self._within = before or configured
        try:
            return self._field(kind, found, default, path)
        finally:
            self._within = before

    def _is_blank(self, kind: Field, given: object) -> bool:
        """A form sends an empty text for what was not filled in."""
        return self._from_text and given == "" and kind.type != "content"

    def _from_defaults(
        self, kind: Field, default: Mapping[str, Any], path: Path
    ) -> dict[str, Any] | None:
        """Make an object out of configured members alone, if that is all it needs."""
        if not isinstance(kind, ObjectField) or kind.array or not default:
            return None
        errors, files, configured = len(self.errors), len(self.files), len(self.configured)
        value = self.members(kind.fields_, {}, default, path)
        if len(self.errors) == errors:
            return value
        del self.errors[errors:]
        del self.files[files:]
        del self.configured[configured:]
        return None

    def _field(self, kind: Field, given: object, default: Mapping[str, Any], path: Path) -> Any:
        if not kind.array:
            return self._one(kind, given, default, path)
        items = self._decoded(given, "[")
        if self._from_text and not isinstance(items, list):
            items = [items]
        if not isinstance(items, list):
            self._refuse(path, "type", f"is {kind_of(given)}; give a list")
            return given
        return self._items(kind, items, path)

    def _items(self, kind: Field, items: list[Any], path: Path) -> list[Any]:
        value: list[Any] = []
        for index, item in enumerate(items):
            before = len(self.errors)
            value.append(self._one(kind, item, {}, (*path, index)))
            if len(self.errors) > before and not isinstance(kind, ObjectField):
                return value + items[index + 1 :]
        return value

    def _one(self, kind: Field, given: object, default: Mapping[str, Any], path: Path) -> Any:
        if isinstance(kind, ObjectField):
            members = self._decoded(given, "{")
            if isinstance(members, Mapping):
                return self.members(kind.fields_, members, default, path)
            self._refuse(path, "type", f"is {kind_of(given)}; give an object")
            return given
        try:
            taken = self._decoded(given, "{") if isinstance(kind, FileField) else given
            value = check_value(kind, taken, self._from_text)
        except Refusal as refusal:
            self._refuse(path, refusal.code, refusal.message)
            return given
        if isinstance(kind, FileField):
            self.files.append(FileSlot(path, value, kind, self._within))
        return value

    def _decoded(self, given: object, opening: str) -> object:
        """In a form, lists and objects come as JSON text."""
        if not self._from_text or not isinstance(given, str):
            return given
        if not given.lstrip().startswith(opening):
            return given
        try:
            return json.decode(given)
        except json.InvalidJson:
            return given

    def _refuse(self, path: Path, code: str, message: str) -> None:
        if len(self.errors) < ERRORS_MAX:
            names = ("input", *map(str, path))
            self.errors.append(FieldError(names, code, f"{_dotted(names)} {message}"))


def _wanted(kind: Field) -> str:
    return f"a list for this {kind.type} field" if kind.array else f"a value of type {kind.type}"


def _dotted(names: tuple[str, ...]) -> str:
    shown = [n if _PLAIN.fullmatch(n) else repr(n[:40]) for n in names]
    return ".".join(shown)


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


__all__ = ["Checked", "Configured", "FileSlot", "check_input", "json_schema", "place"]
