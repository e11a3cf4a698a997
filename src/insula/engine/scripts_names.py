"""Which identifiers of a script are free: nothing in the script declares them where they stand."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tree_sitter import Node

DEPTH_MAX: Final = 250
"""Functions and blocks inside one another."""
STEP_PROPERTIES: Final = frozenset(("output", "status", "error", "logs"))
_FUNCTIONS: Final = frozenset(
    (
        "function_declaration",
        "function_expression",
        "generator_function",
        "generator_function_declaration",
        "arrow_function",
        "method_definition",
        "class_static_block",
    )
)
_BLOCKS: Final = frozenset(
    ("statement_block", "for_statement", "for_in_statement", "catch_clause", "switch_body", "class")
)
_NAMED_OUTSIDE: Final = frozenset(
    ("function_declaration", "generator_function_declaration", "class_declaration")
)
_NAMED_INSIDE: Final = frozenset(("function_expression", "generator_function", "class"))
_ESCAPE: Final = re.compile(r"\\u(?:\{([0-9a-fA-F]{1,6})\}|([0-9a-fA-F]{4}))")


@dataclass(slots=True, eq=False)
class _Scope:
    """A function or a block, and what is declared right in it."""

    parent: "_Scope | None"
    depth: int
    function: bool
    outside: bool
    """Whether it stands outside of every function."""
    declared: set[str] = field(default_factory=set)
    mentioned: set[str] = field(default_factory=set)
    stepwise: set[str] = field(default_factory=set)
    assigned: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Names:
    """What was found. ``references`` are declared nowhere, and read as ``NAME.output`` or so."""

    free: frozenset[str] = frozenset()
    references: frozenset[str] = frozenset()
    error: str | None = None


_Visit = tuple[Node, _Scope, "_Scope | None"]
"""A node, the scope that it stands in, and the scope in which its names are being declared."""


def find_names(root: Node, see: Callable[[Node, bool], None]) -> Names:
    """Walk the tree once, without recursion; ``see`` is shown every node, and told whether it
    stands outside of every function."""
    top = _Scope(None, 0, function=True, outside=True)
    scopes = [top]
    waiting: list[_Visit] = [(root, top, None)]
    while waiting:
        node, scope, binding = waiting.pop()
        see(node, scope.outside)
        if not node.child_count:
            _leaf(node, scope, binding)
            continue
        inner = _enter(node, scope)
        if inner is not scope:
            if inner.depth > DEPTH_MAX:
                return Names(error=f"it nests more than {DEPTH_MAX} functions and blocks")
            scopes.append(inner)
        waiting += _children(node, scope, inner, binding)
    return _resolve(scopes)


def _enter(node: Node, scope: _Scope) -> _Scope:
    kind = node.type
    if kind in _FUNCTIONS:
        return _Scope(scope, scope.depth + 1, function=True, outside=False)
    if kind in _BLOCKS:
        return _Scope(scope, scope.depth + 1, function=False, outside=scope.outside)
    return scope


def _leaf(node: Node, scope: _Scope, binding: _Scope | None) -> None:
    kind = node.type
    if kind not in (
        "identifier",
        "shorthand_property_identifier",
        "shorthand_property_identifier_pattern",
    ):
        return
    name = _name(node)
    if binding is not None:
        binding.declared.add(name)
    else:
        scope.mentioned.add(name)


def _children(node: Node, scope: _Scope, inner: _Scope, binding: _Scope | None) -> list[_Visit]:
    kind = node.type
    if kind in ("member_expression", "subscript_expression"):
        _note_step(node, inner)
    elif kind == "assignment_expression":
        _note_assignment(node, inner)
    if binding is not None and kind != "computed_property_name":
        return _pattern(node, inner, binding)
    bound = _bound(node, scope, inner)
    if not bound:
        return [(child, inner, None) for child in node.children]
    return [(child, inner, bound.get(child.id)) for child in node.children]


def _pattern(node: Node, scope: _Scope, binding: _Scope) -> list[_Visit]:
    """Visit a pattern that declares names; its default values are ordinary expressions."""
    if node.type in ("assignment_pattern", "object_assignment_pattern"):
        right = node.child_by_field_name("right")
        skipped = None if right is None else right.id
        return [(c, scope, None if c.id == skipped else binding) for c in node.children]
    return [(child, scope, binding) for child in node.children]


def _bound(node: Node, scope: _Scope, inner: _Scope) -> dict[int, _Scope]:
    """Say which children declare names, and in which scope."""
    kind = node.type
    if kind == "variable_declarator":
        target = _function_of(scope) if _is_var(node) else scope
        return _fields(node, target, "name")
    if kind in _NAMED_OUTSIDE:
        bound = _fields(node, scope, "name")
    elif kind in _NAMED_INSIDE:
        bound = _fields(node, inner, "name")
    elif kind == "catch_clause":
        return _fields(node, inner, "parameter")
    elif kind == "for_in_statement":
        return _loop(node, inner)
    else:
        bound = {}
    if kind in _FUNCTIONS:
        bound |= _fields(node, inner, "parameters", "parameter")
    return bound


def _fields(node: Node, scope: _Scope, *names: str) -> dict[int, _Scope]:
    found = (node.child_by_field_name(name) for name in names)
    return {child.id: scope for child in found if child is not None}


def _loop(node: Node, inner: _Scope) -> dict[int, _Scope]:
    declares = node.child_by_field_name("kind")
    if declares is None:
        return {}
    return _fields(node, _function_of(inner) if declares.type == "var" else inner, "left")


def _is_var(declarator: Node) -> bool:
    parent = declarator.parent
    return parent is not None and parent.type == "variable_declaration"


def _function_of(scope: _Scope) -> _Scope:
    while not scope.function and scope.parent is not None:
        scope = scope.parent
    return scope


def _note_step(node: Node, scope: _Scope) -> None:
    """Remember ``NAME.output`` and ``NAME["output"]``."""
    owner = node.child_by_field_name("object")
    if owner is None or owner.type != "identifier":
        return
    member = node.child_by_field_name("property") or node.child_by_field_name("index")
    if member is None:
        return
    text = (member.text or b"").decode()
    named = text[1:-1] if member.type == "string" else text
    if member.type in ("property_identifier", "string") and named in STEP_PROPERTIES:
        scope.stepwise.add(_name(owner))


def _note_assignment(node: Node, scope: _Scope) -> None:
    """Remember names that come to be by assignment alone: they are no steps."""
    left = node.child_by_field_name("left")
    if left is not None and left.type == "identifier":
        scope.assigned.add(_name(left))


def _resolve(scopes: list[_Scope]) -> Names:
    free: set[str] = set()
    stepwise: set[str] = set()
    anywhere: set[str] = set()
    for scope in scopes:
        anywhere |= scope.declared | scope.assigned
        stepwise |= scope.stepwise
    # Inner scopes come after outer ones: what is open in one is asked of the next further out.
    for scope in reversed(scopes):
        open_names = scope.mentioned - scope.declared
        if scope.parent is None:
            free = open_names
        else:
            scope.parent.mentioned |= open_names
        scope.mentioned = set()
    return Names(frozenset(free), frozenset((stepwise & free) - anywhere))


def _name(node: Node) -> str:
    text = (node.text or b"").decode()
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda m: _character(int(m[1] or m[2], 16)), text)


def _character(point: int) -> str:
    return chr(point) if point < 0x110000 else ""
