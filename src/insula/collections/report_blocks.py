"""Display blocks of a result, as a report shows them: Markdown, tables, variants.

A result may say what is to be shown: as ``rule_display`` or ``display`` under its rule, as
``record_display`` above all rules; each also as ``…_blocks``. A value is Markdown, a block, or a
list of those; what is neither is shown as names and values.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from reportlab.lib import colors
from reportlab.platypus import Flowable, Spacer, Table

from insula.collections.report_text import BLOCKS_MAX, markdown, paragraph, styles, table
from insula.kit import json

_RULE = ("rule_display", "rule_display_blocks", "display", "display_blocks")
_RECORD = ("record_display", "record_display_blocks")
_TEXTS = ("markdown", "content", "text", "value", "message")
_VARIANTS = {
    "success": "#2f9e44",
    "info": "#1971c2",
    "warning": "#e67700",
    "warn": "#e67700",
    "error": "#c92a2a",
    "danger": "#c92a2a",
}
_DEPTH = 4


def of_rule(result: Any, width: float) -> list[Flowable]:
    """Return what a rule's result shows under it; without blocks, what stands in the result."""
    found = _named(result, _RULE, width)
    if found or result is None:
        return found
    if isinstance(result, dict):
        hidden = {*_RULE, *_RECORD}
        rows = [(str(name), words(value)) for name, value in result.items() if name not in hidden]
        return [table(("Field", "Value"), rows, width, (0.3, 0.7))] if rows else []
    return markdown(result, width) if isinstance(result, str) else [paragraph(words(result))]


def of_record(result: Any, width: float) -> list[Flowable]:
    """Return what a rule's result shows of the whole record."""
    return _named(result, _RECORD, width)


def words(value: Any) -> str:
    """Return a value as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "—"
    if isinstance(value, Mapping) and isinstance(value.get("filename"), str):
        return str(value["filename"])  # a file
    try:
        return json.encode(value).decode()
    except json.InvalidJson:
        return str(value)


def _named(result: Any, names: Sequence[str], width: float) -> list[Flowable]:
    if not isinstance(result, Mapping):
        return []
    made: list[Flowable] = []
    for name in names:
        made += _blocks(result.get(name), width, 0)
    return made[:BLOCKS_MAX]


def _blocks(value: Any, width: float, depth: int) -> list[Flowable]:
    if value is None or depth > _DEPTH:
        return []
    if isinstance(value, str):
        return markdown(value, width)
    if isinstance(value, list):
        return [part for each in value[:BLOCKS_MAX] for part in _blocks(each, width, depth + 1)]
    if isinstance(value, Mapping):
        return _block(value, width, depth)
    return [paragraph(words(value))]


def _block(block: Mapping[str, Any], width: float, depth: int) -> list[Flowable]:
    made: list[Flowable] = []
    if isinstance(block.get("title"), str):
        made.append(paragraph(block["title"], "h3", 500))
    rows = block.get("rows")
    inner = block.get("blocks") or block.get("children")
    texts = [block[name] for name in _TEXTS if block.get(name) is not None]
    if isinstance(rows, list):
        made += _table(block, rows, width)
    elif texts:
        made += _blocks(texts[0], width - 12, depth + 1)
    elif not inner:
        made += _members(block, width)
    made += _blocks(inner, width - 12, depth + 1)
    color = _VARIANTS.get(str(block.get("variant") or block.get("status")).lower())
    return made if color is None or not made else _barred(made, color, width)


def _members(block: Mapping[str, Any], width: float) -> list[Flowable]:
    hidden = ("type", "title", "variant")
    rows = [(str(name), words(value)) for name, value in block.items() if name not in hidden]
    return [table(("Field", "Value"), rows, width - 12, (0.3, 0.7))] if rows else []


def _table(block: Mapping[str, Any], rows: list[Any], width: float) -> list[Flowable]:
    columns = block.get("columns") or block.get("headers")
    if not isinstance(columns, list) or not columns:
        first = rows[0] if rows else []
        columns = list(first) if isinstance(first, Mapping) else [""] * len(first or [""])
    keys, head = [], []
    for number, column in enumerate(columns):
        named = column if isinstance(column, Mapping) else {"key": column}
        keys.append(named.get("key", named.get("id", number)))
        label = named.get("label") or named.get("name") or named.get("header") or keys[-1]
        head.append(words(label))
    body = [[words(value) for value in _cells(row, keys)] for row in rows]
    return [table(head, body, width - 12), Spacer(0, 4)]


def _cells(row: Any, keys: Sequence[Any]) -> list[Any]:
    if isinstance(row, Mapping):
        held = row.get("cells")
        return held if isinstance(held, list) else [row.get(key) for key in keys]
    return row if isinstance(row, list) else [row]


def _barred(made: list[Flowable], color: str, width: float) -> list[Flowable]:
    """Put a bar of the variant's colour beside each part."""
    styles()
    barred: list[Flowable] = []
    for part in made:
        row = Table([[part]], [width], splitInRow=1)
        row.setStyle(
            [
                ("LINEBEFORE", (0, 0), (0, -1), 3, colors.HexColor(color)),
                ("LEFTPADDING", (0, 0), (-1, -1), 9),
                ("TOPPADDING", (0, 0), (-1, -1), 1),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 1),
            ]
        )
        barred.append(row)
    return barred
