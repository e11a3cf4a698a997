"""Display blocks: what the deciding code step wants shown with its result.

They stand beside ``result`` in its output, or in the result itself: ``display``, ``rule_display``,
``record_display`` and whatever ends in ``_blocks``. Each is Markdown, a block (an object: a table
has ``rows``, any may have a ``variant``), or a list of these. What is neither is left out: a block
that is wrong must not cost anybody the result.
"""

from collections.abc import Mapping
from typing import Any

from insula.engine.state import RunState, output_is_object, size_of
from insula.kit import json
from insula.kit.json import Raw

NAMES = ("display", "rule_display", "record_display")
BLOCKS = "_blocks"
BLOCKS_MAX = 1_000
"""Blocks of one list that are kept, and rows of one table."""
BYTES_MAX = 1024 * 1024
"""Of all members together; those that would go beyond are left out."""
_DEPTH = 8
_LISTS = ("rows", "columns", "blocks", "children")
_TEXTS = ("type", "variant", "title")
_HINTS = (b'display"', b'_blocks"')


def display_of(state: RunState) -> dict[str, Raw]:
    """Return the display members of a run's result, each as JSON; empty where there are none."""
    step = None if state.result_key is None else state.steps[state.result_key]
    if step is None or step.type != "code" or step.looped or step.output is None:
        return {}
    text = bytes(step.output)
    if not output_is_object(step.output) or not any(hint in text for hint in _HINTS):
        return {}
    output = json.decode(text)
    inner = output.get("result")
    shown: dict[str, Raw] = {}
    left = BYTES_MAX
    for name, value in {**(inner if isinstance(inner, dict) else {}), **output}.items():
        if name not in NAMES and not name.endswith(BLOCKS):
            continue
        block = _value(value, 0)
        encoded = None if block is None else json.raw(block)
        if encoded is not None and size_of(encoded) <= left:
            left -= size_of(encoded)
            shown[name] = encoded
    return shown


def _value(value: Any, depth: int) -> Any:
    """Return what can be shown of a value, ``None`` for nothing."""
    if depth > _DEPTH:
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        found = [_value(each, depth + 1) for each in value[:BLOCKS_MAX]]
        return [each for each in found if each is not None]
    return _block(value, depth) if isinstance(value, Mapping) else None


def _block(block: Mapping[str, Any], depth: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in block.items():
        if name in _LISTS:
            if isinstance(value, list):
                cut = value[:BLOCKS_MAX]
                kept[name] = cut if name in ("rows", "columns") else _value(cut, depth + 1)
        elif name not in _TEXTS or isinstance(value, str):
            kept[name] = value
    return kept
