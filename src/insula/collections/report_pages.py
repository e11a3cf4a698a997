"""The pages of a report: the verdicts in one table, then each rule with what it says.

Loaded at the first report: what draws takes its room.
"""

import io
import math
import time
from collections.abc import Callable
from typing import Any

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import CondPageBreak, Flowable, HRFlowable, SimpleDocTemplate, Spacer

from insula.collections import report_blocks
from insula.collections.report_room import ROWS_MAX, Room
from insula.collections.report_text import LINE, paragraph, plain, styles, table

SECONDS = 20.0
"""Of processor time, for a report: others wait for it."""
_MARGIN = 48
_PADDING = 6  # of what stands within the margins
_WIDTH = A4[0] - 2 * (_MARGIN + _PADDING)
_SECTIONS_MAX = 200
_SHARES = (0.06, 0.34, 0.14, 0.46)
_HEADED = 90
"""Points below a rule's heading without which it goes to the next page."""
_COLORS = {"PASSED": "#2f9e44", "FAILED": "#c92a2a", "WARN": "#e67700"}
_WORDS = {"PASSED": "Passed", "FAILED": "Failed", "WARN": "Warning", "DRAFT": "—"}
_MESSAGES = ("message", "reason", "summary", "explanation", "why")


class TakesTooLongError(Exception):
    """What is to be drawn takes more than ``SECONDS``."""


class _Document(SimpleDocTemplate):  # type: ignore[misc]  # it has no types
    until: float

    def handle_flowable(self, flowables: list[Flowable]) -> None:
        """Take the next part, unless there has been enough."""
        if time.thread_time() > self.until:
            raise TakesTooLongError
        super().handle_flowable(flowables)


def draw(record: dict[str, Any], *, blocks: bool = True) -> bytes:
    """Draw the report of a record in the shape of ``RecordSchema``.

    Raises:
        TakesTooLongError: its blocks do.
    """
    until = time.thread_time() + SECONDS if blocks else math.inf
    rules = {rule["key"]: rule for rule in record["config"]["rules"]}
    parts = _head(record)
    parts += _summary(record, rules)
    if blocks:
        parts += _sections(record, rules)
    else:
        words = "What the rules say has no room here; the record itself has it."
        parts.append(paragraph(words, "small"))
    target = io.BytesIO()
    document = _Document(
        target,
        pagesize=A4,
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=str(record["name"] or record["id"])[:200],
        author=record["collection_name"],
        creator="Insula",
    )
    document.until = until
    footer = _footer(record)
    document.build(parts, onFirstPage=footer, onLaterPages=footer)
    return target.getvalue()


def _footer(record: dict[str, Any]) -> Callable[[Canvas, Any], None]:
    def write(canvas: Canvas, document: Any) -> None:
        canvas.saveState()
        canvas.setFont(styles()["small"].fontName, 7.5)
        canvas.setFillColor(colors.HexColor("#6a737d"))
        canvas.drawString(_MARGIN + _PADDING, 28, record["id"])
        canvas.drawRightString(A4[0] - _MARGIN - _PADDING, 28, f"Page {document.page}")
        canvas.restoreState()

    return write


def _head(record: dict[str, Any]) -> list[Flowable]:
    when = record["updated_at"][:16].replace("T", " ")
    counts = (
        f"{record['rules_count']} rules: {record['rules_pass_count']} passed, "
        f"{record['rules_fail_count']} failed, {record['rules_warn_count']} with a warning"
    )
    words = f"{record['collection_name']} · {record['status'].capitalize()} · {when} UTC"
    return [
        paragraph(record["name"] or "Record", "title", 300),
        paragraph(words, "small"),
        Spacer(0, 8),
        paragraph(counts),
        Spacer(0, 8),
    ]


def _summary(record: dict[str, Any], rules: dict[str, Any]) -> list[Flowable]:
    rows = []
    marks = []
    for number, (key, rule) in enumerate(rules.items(), start=1):
        held = record["rules"].get(key, {"status": "DRAFT"})
        rows.append((str(number), rule["name"], _verdict(rule, held), _why(held)))
        marks.append(_COLORS.get(held["status"]))
    if not rows:
        return [paragraph("The record has no rules.")]
    # More rows than one table shows go on in the next.
    made: list[Flowable] = []
    for at in range(0, len(rows), ROWS_MAX):
        some = slice(at, at + ROWS_MAX)
        part: Any = table(("#", "Rule", "Verdict", "Why"), rows[some], _WIDTH, _SHARES)
        part.setStyle(
            [
                ("LINEBEFORE", (0, row), (0, row), 3, colors.HexColor(color))
                for row, color in enumerate(marks[some], start=1)
                if color is not None
            ]
        )
        made.append(part)
    return [*made, Spacer(0, 10)]


def _verdict(rule: dict[str, Any], held: dict[str, Any]) -> str:
    return "Disabled" if rule.get("disabled") else _WORDS.get(held["status"], "Running")


def _why(held: dict[str, Any]) -> str:
    if held.get("error"):
        return str(held["error"])
    result = held.get("result")
    if isinstance(result, dict):
        found = [result[name] for name in _MESSAGES if isinstance(result.get(name), str)]
        return found[0] if found else ""
    return result if isinstance(result, str) else ""


def _sections(record: dict[str, Any], rules: dict[str, Any]) -> list[Flowable]:
    """Say what the rules say: first of the whole record, then each for itself."""
    room = Room()
    held = {key: _fitting(record["rules"][key], room) for key in rules if key in record["rules"]}
    shown = list(held)[:_SECTIONS_MAX]
    parts: list[Flowable] = []
    for key in held:
        parts += report_blocks.of_record(held[key], _WIDTH)
    for key in shown:
        parts += _section(rules[key], held[key])
    if room.full or len(shown) < len(held):
        words = "Not all that the rules say has room here; the record itself has it."
        parts += [Spacer(0, 10), paragraph(words, "small")]
    return parts


def _fitting(held: dict[str, Any], room: Room) -> dict[str, Any]:
    shown = {name: held.get(name) for name in ("display", "result", "input")}
    return {**held, **dict.fromkeys(shown), **(room.fitting(shown) or {})}


def _section(rule: dict[str, Any], held: dict[str, Any]) -> list[Flowable]:
    run = held.get("run")
    told = [_verdict(rule, held), f"key {rule['key']}"]
    if run is not None:
        told.append(f"run {run['id']}")
    parts: list[Flowable] = [
        CondPageBreak(_HEADED),
        paragraph(rule["name"], "h2", 300),
        paragraph(" · ".join(told), "small"),
        HRFlowable(width="100%", color=LINE, spaceBefore=3, spaceAfter=5),
    ]
    if held.get("error"):
        parts += [*plain(str(held["error"])), Spacer(0, 4)]
    parts += report_blocks.of_rule(held, _WIDTH)
    given = held.get("input")
    if given:
        rows = [(str(name), report_blocks.words(value)) for name, value in given.items()]
        parts += [Spacer(0, 4), table(("Input", "Value"), rows, _WIDTH, (0.3, 0.7))]
    return parts
