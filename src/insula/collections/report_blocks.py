"""Display blocks of a rule's run, as a report shows them: Markdown, tables, variants.

A run says beside its result, or in it, what is to be shown: as ``rule_display``, ``display`` or
``…_blocks`` under its rule, as ``record_display`` or ``record_…_blocks`` above all rules. A value
is Markdown, a block, or a list of those; what is neither is shown as names and values.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from reportlab.lib import colors
from reportlab.platypus import Flowable, Spacer, Table

from insula.collections.report_room import ROWS_MAX, columns_of
from insula.collections.report_text import BLOCKS_MAX, markdown, paragraph, plain, styles, table
from insula.engine.display import BLOCKS, NAMES
from insula.kit import json

_RECORD = "record_"
_TEXTS = ("markdown", "content", "text", "value", "message")
_VARIANTS = {
    "success": "#2f9e44",
    "info": "#1971c2",
    "warning": "#e67700",
    "warn": "#e67700",
    "error": "#c92a2a",
    "danger": "#c92a2a",
}
_DEPTH = 8
_NARROWEST = 120.0
_BAR = 15.0
"""What the bar of a variant takes of the width, with the room beside it."""


def of_rule(held: Mapping[str, Any], width: float) -> list[Flowable]:
    """Return what a record's rule shows under it; without blocks, what stands in its result."""
    found = _named(held, width, of_record=False)
    result = held.get("result")
    if found or result is None:
        return found
    if isinstance(result, dict):
        rows = [(str(n), words(value)) for n, value in result.items() if not _displays(n)]
        return [table(("Field", "Value"), rows, width, (0.3, 0.7))] if rows else []
    return markdown(result, width) if isinstance(result, str) else plain(words(result))


def of_record(held: Mapping[str, Any], width: float) -> list[Flowable]:
    """Return what a record's rule shows of the whole record."""
    return _named(held, width, of_record=True)


def _displays(name: str) -> bool:
    return name in NAMES or name.endswith(BLOCKS)


def _named(held: Mapping[str, Any], width: float, *, of_record: bool) -> list[Flowable]:
    result, beside = held.get("result"), held.get("display")
    inside = result if isinstance(result, Mapping) else {}
    shown = {**inside, **(beside if isinstance(beside, Mapping) else {})}
    names = [name for name in shown if _displays(name) and name.startswith(_RECORD) == of_record]
    # The names that are spelled out come first, in their order.
    names.sort(key=lambda name: NAMES.index(name) if name in NAMES else len(NAMES))
    made: list[Flowable] = []
    for name in names:
        made += _blocks(shown[name], width, 0)
    left_out = [paragraph("More is left out here.", "small")] if len(made) > BLOCKS_MAX else []
    return made[:BLOCKS_MAX] + left_out


def words(value: Any) -> str:
    """Return a value as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "—"
    if isinstance(value, Mapping) and isinstance(value.get("file_filename"), str):
        return str(value["file_filename"])
    if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        names = [each.get("file_filename") for each in value]
        if all(isinstance(name, str) for name in names):
            return ", ".join(names)
    try:
        return json.encode(value).decode()
    except json.InvalidJson:
        return str(value)


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
    color = _VARIANTS.get(str(block.get("variant") or block.get("status")).lower())
    within = width if color is None else max(width - _BAR, _NARROWEST)
    if isinstance(block.get("title"), str):
        made.append(paragraph(block["title"], "h3", 500))
    rows = block.get("rows")
    inner = block.get("blocks") or block.get("children")
    texts = [block[name] for name in _TEXTS if block.get(name) is not None]
    if isinstance(rows, list):
        made += _table(block, rows, within)
    elif texts:
        made += _blocks(texts[0], within, depth + 1)
    elif not inner:
        made += _members(block, within)
    made += _blocks(inner, within, depth + 1)
    return made if color is None or not made else _barred(made, color, width)


def _members(block: Mapping[str, Any], width: float) -> list[Flowable]:
    hidden = ("type", "title", "variant")
    rows = [(str(name), words(value)) for name, value in block.items() if name not in hidden]
    return [table(("Field", "Value"), rows, width, (0.3, 0.7))] if rows else []


def _table(block: Mapping[str, Any], rows: list[Any], width: float) -> list[Flowable]:
    keys: list[Any] = []
    head = []
    for number, column in enumerate(columns_of(block, rows)):
        named = column if isinstance(column, Mapping) else {"key": column}
        key = named.get("key", named.get("id", number))
        keys.append(key if isinstance(key, str) else number)
        head.append(words(named.get("label") or named.get("name") or named.get("header") or key))
    # Cut before it is built: a run may name many rows and columns in few bytes.
    body = [[words(value) for value in _cells(row, keys)] for row in rows[:ROWS_MAX]]
    made = [table(head, body, width), Spacer(0, 4)]
    if len(rows) > ROWS_MAX:
        made.append(paragraph(f"{len(rows) - ROWS_MAX:,} more rows are left out here.", "small"))
    return made


def _cells(row: Any, keys: Sequence[Any]) -> list[Any]:
    if isinstance(row, Mapping):
        held = row.get("cells")
        return held[: len(keys)] if isinstance(held, list) else [row.get(key) for key in keys]
    return row[: len(keys)] if isinstance(row, list) else [row]


def _barred(made: list[Flowable], color: str, width: float) -> list[Flowable]:
    """Put a bar of the variant's colour beside each part."""
    styles()
    barred: list[Flowable] = []
    for part in made:
        row = Table([[part]], [width], splitInRow=1, hAlign="LEFT")
        row.keepWithNext = part.getKeepWithNext()
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
