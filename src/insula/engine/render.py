"""The settings of a step, filled in: all their templates at once, expressions in one evaluation."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from insula.engine.failures import StepFailure
from insula.engine.scope import Scope
from insula.engine.template import (
    FileValue,
    Filling,
    Kind,
    Template,
    compile_template,
    render,
    render_parts,
    render_value,
)
from insula.kit.json import Raw

Evaluate = Callable[[Sequence[str]], Awaitable[Sequence[Raw | None]]]


@dataclass(frozen=True, slots=True)
class Slot:
    """A setting that waits for its values; ``first`` is the number of its first expression."""

    template: Template
    first: int


class Renderer:
    """Takes settings in with ``text`` and ``tree``, evaluates once, then gives them back filled:
    all of them together up to ``SETTINGS_MAX`` bytes."""

    def __init__(self, scope: Scope, evaluate: Evaluate) -> None:
        self._filling = Filling(scope.lookup)
        self._evaluate = evaluate
        self._scripts: list[str] = []
        self._values: Sequence[Raw | None] = ()

    def text(self, text: str, kind: Kind = "text") -> Slot:
        """Take one setting in.

        Raises:
            StepFailure: the template does not parse.
        """
        template = compile_template(text, kind)
        if template.error is not None:
            raise StepFailure(f"The template does not parse: {template.error}", "script")
        slot = Slot(template, len(self._scripts))
        self._scripts += template.scripts
        return slot

    def tree(self, value: Any) -> Any:
        """Take nested objects and lists in: every text in them becomes a slot."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.tree(part) for key, part in value.items()}
        if isinstance(value, list):
            return [self.tree(part) for part in value]
        return value

    async def evaluate(self) -> None:
        """Evaluate every expression taken in so far."""
        if self._scripts:
            self._values = await self._evaluate(self._scripts)

    def filled_text(self, slot: Slot) -> str:
        """Give one setting back as text."""
        return render(slot.template, self._filling, self._mine(slot))

    def filled_parts(self, slot: Slot) -> list[str | FileValue]:
        """Give one setting back as pieces of text, and the files that stand between them."""
        return render_parts(slot.template, self._filling, self._mine(slot))

    def filled_value(self, slot: Slot) -> Raw:
        """Give one setting back as JSON; exactly one hole keeps its value's type."""
        return render_value(slot.template, self._filling, self._mine(slot))

    def filled_tree(self, value: Any) -> Any:
        """Give nested settings back; texts that are one hole keep their values' types."""
        if isinstance(value, Slot):
            return self.filled_value(value)
        if isinstance(value, dict):
            return {key: self.filled_tree(part) for key, part in value.items()}
        if isinstance(value, list):
            return [self.filled_tree(part) for part in value]
        return value

    def _mine(self, slot: Slot) -> Sequence[Raw | None]:
        return self._values[slot.first : slot.first + len(slot.template.scripts)]
