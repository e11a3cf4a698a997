"""What a form's texts and files become: the values that a model's fields want."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from typing_extensions import TypeAliasType

from insula.errors import BadInput, FieldError
from insula.web.forms import Form, UploadedPart, bad_form

_ENTRY = re.compile(r"\[?(\d{1,6})\]?(?:\.|\[)(\w+)(?:\[\])?\]?(?:\[\])?")
_INNER = re.compile(r"\[([^\[\]]*)\]|\.([^.\[\]]+)")


def values(form: Form, model: type[BaseModel], parse: Callable[[bytes], Any]) -> dict[str, Any]:
    """Turn a form into what the model validates.

    Raises:
        BadInput: a field that must be an object or a list is not JSON text.
    """
    wants = _wants(model)
    found: dict[str, Any] = {}
    for name, text in form.texts:
        if _stands_inside(name, wants):
            _place(found, name, _value(name, text, _ANYTHING, parse), wants)
            continue
        want = wants.get(name, _ANYTHING)
        value = _value(name, text, want, parse)
        if want.items and not isinstance(value, list | dict | NoneType):
            value = [*found[name], value] if isinstance(found.get(name), list) else [value]
        if value is not _ABSENT:
            found[name] = value
    for name, part in form.files:
        _place(found, name, part, wants)
    return found


def entries(form: Form, parse: Callable[[bytes], Any]) -> Any:
    """Turn a form that stands for a list into the list.

    Raises:
        BadInput: it is neither one part of JSON text, nor parts named ``0[name]`` and so on.
    """
    if form.files:
        raise bad_form("it holds a file, where a list of objects is wanted")
    if len(form.texts) == 1 and _ENTRY.fullmatch(form.texts[0][0]) is None:
        return parse(form.texts[0][1].encode())
    found: dict[int, dict[str, Any]] = {}
    for name, text in form.texts:
        match = _ENTRY.fullmatch(name)
        if match is None:
            raise bad_form(f"the part {name[:100]!r} belongs to no entry of the list")
        entry, field = found.setdefault(int(match[1]), {}), match[2]
        value = _value(field, text, _PLAIN, parse)
        if field not in entry:
            entry[field] = value
        else:
            held = entry[field] if isinstance(entry[field], list) else [entry[field]]
            entry[field] = [*held, value]
    return [found[number] for number in sorted(found)]


@dataclass(frozen=True, slots=True)
class _Want:
    """What a field's type admits: text, null, lists, and anything that is written as JSON."""

    text: bool
    null: bool
    items: bool
    json: bool


_ANYTHING = _Want(text=True, null=True, items=False, json=True)
_PLAIN = _Want(text=True, null=False, items=False, json=False)
_ABSENT = object()
_LISTS = frozenset({list, tuple, set, frozenset})


def _is_structure(leaf: Any) -> bool:
    """Objects and lists: written as JSON in a form."""
    return leaf in _LISTS or (isinstance(leaf, type) and issubclass(leaf, dict | BaseModel))


def _is_text(leaf: Any) -> bool:
    """Text, and what is written as text: a time, an enumeration. Neither numbers nor files."""
    return not _is_structure(leaf) and leaf not in (int, float, bool, NoneType, UploadedPart)


@lru_cache(maxsize=256)
def _wants(model: type[BaseModel]) -> dict[str, _Want]:
    found = {}
    for name, info in model.model_fields.items():
        leaves = set(_leaves(info.annotation))
        anything = bool(leaves & {Any, object})
        found[info.alias or name] = _Want(
            text=anything or any(_is_text(leaf) for leaf in leaves),
            null=anything or NoneType in leaves,
            items=bool(leaves & _LISTS),
            json=anything or any(_is_structure(leaf) for leaf in leaves),
        )
    return found


def _leaves(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if isinstance(annotation, TypeAliasType):
        yield from _leaves(annotation.__value__)
    elif origin is Annotated:
        yield from _leaves(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for inner in get_args(annotation):
            yield from _leaves(inner)
    elif origin is Literal:
        yield from {type(value) for value in get_args(annotation)}
    else:
        yield origin or annotation


def _value(name: str, text: str, want: _Want, parse: Callable[[bytes], Any]) -> Any:
    bare = text.strip()
    if want.json and bare[:1] in ("{", "["):
        try:
            return parse(bare.encode())
        except BadInput as error:
            if want.text:
                return text
            problem = FieldError((name,), "json", error.errors[0].message)
            raise BadInput(f"{name}: {error.message}", [problem]) from error
    if want.text:
        return text
    if bare in ("", "null"):
        return None if want.null else _ABSENT
    return text


def _stands_inside(name: str, wants: dict[str, _Want]) -> bool:
    """Say whether a name such as ``input[a]`` means a member of one of the model's fields."""
    return name not in wants and _INNER.split(name, maxsplit=1)[0] in wants


def _place(found: dict[str, Any], name: str, part: Any, wants: dict[str, _Want]) -> None:
    """Put a part where its name says: a field, a list of them, or inside an object."""
    if name in wants or not (inner := _INNER.findall(name)):
        if wants.get(name, _ANYTHING).items:
            held = found.get(name)
            found[name] = [*held, part] if isinstance(held, list) else [part]
        else:
            found[name] = part
        return
    top = _INNER.split(name, maxsplit=1)[0]
    at = found.setdefault(top, {})
    path = [bracketed or dotted for bracketed, dotted in inner][:20]
    for key in path[:-1]:
        if not isinstance(at, dict):
            break
        at = at.setdefault(key, {})
    if not isinstance(at, dict):
        raise bad_form(f"the part {name[:100]!r} does not stand inside an object")
    last = path[-1]
    if last in at:
        held = at[last] if isinstance(at[last], list) else [at[last]]
        at[last] = [*held, part]
    else:
        at[last] = part
