"""Reads JavaScript into a tree: is it an expression or a function body, and where is it broken."""

from dataclasses import dataclass

import tree_sitter_javascript
from tree_sitter import Language, Node, Parser

_language = Language(tree_sitter_javascript.language())
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Parsed:
    """A tree. ``span`` is where the expression stands, in bytes, if the source is just one."""

    root: Node
    span: tuple[int, int] | None = None
    error: str | None = None


def parse(source: bytes) -> Parsed:
    """Read a function body or a bare expression."""
    root = _tree(source)
    expression = None if root.has_error else _expression(root)
    if expression is not None:
        return Parsed(root, (expression.start_byte, expression.end_byte))
    if source.lstrip().startswith(b"{"):
        wrapped = _wrapped(source)
        if wrapped is not None:
            return wrapped
    return Parsed(root, error=_problem(root) if root.has_error else None)


def _tree(source: bytes) -> Node:
    # A parser keeps state while it parses; one each keeps threads apart, and costs microseconds.
    return Parser(_language).parse(source).root_node


def _expression(root: Node) -> Node | None:
    """Return the expression, if the program is nothing else but directives and comments."""
    statements = [child for child in root.named_children if child.type != "comment"]
    while len(statements) > 1 and _is_directive(statements[0]):
        statements.pop(0)
    statements = [statement for statement in statements if statement.type != "empty_statement"]
    if len(statements) != 1 or statements[0].type != "expression_statement":
        return None
    inner = [child for child in statements[0].named_children if child.type != "comment"]
    return inner[0] if len(inner) == 1 else None


def _is_directive(statement: Node) -> bool:
    inner = statement.named_children
    is_string = len(inner) == 1 and inner[0].type == "string"
    return statement.type == "expression_statement" and is_string


def _wrapped(source: bytes) -> Parsed | None:
    """Try the source, which begins with a brace, as an object literal and not as a block."""
    bare = source.rstrip(b" \t\r\n;")
    root = _tree(b"(" + bare + b"\n)")
    expression = None if root.has_error else _expression(root)
    whole = expression is not None and expression.type == "parenthesized_expression"
    if not whole or expression is None or expression.end_byte != len(bare) + 3:
        return None
    return Parsed(root, (0, len(bare)))


def _problem(root: Node) -> str:
    """Say where the first error is, in document order."""
    node = root
    while not node.is_missing:
        broken = next((child for child in node.children if child.has_error), None)
        if broken is None:
            break
        node = broken
    line, column = node.start_point.row + 1, node.start_point.column + 1
    if node.is_missing:
        return f'line {line}, column {column}: "{node.type}" is missing'
    text = (node.text or b"").decode("utf-8", "replace").split("\n")[0]
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return f'line {line}, column {column}: cannot read "{shown}"'
