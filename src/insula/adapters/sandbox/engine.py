"""A JavaScript engine as the worker sees it: one small protocol behind both lanes.

An engine serves one evaluation with each context, so that nothing of one evaluation is seen by the
next. It has no time limit of its own: time is the parent's, who kills.
"""

from importlib import resources
from typing import Protocol

OUT_OF_MEMORY = "out of memory"

Given = str | int | bool
"""What trusted code is given as an argument."""


class EngineError(Exception):
    """The engine itself has given up; ``out of memory`` if that is why."""


class Engine(Protocol):
    """One JavaScript engine in a worker."""

    background: bool
    """Whether it may settle promises by itself, some time later."""

    def preload(self) -> None:
        """Load libraries, in the zygote, without starting a thread."""
        ...

    def prepare(self) -> None:
        """Drop the last context and make a fresh one with the prelude."""
        ...

    def begin(self, memory: int) -> None:
        """Bound the context's memory, in bytes."""
        ...

    def define(self, name: str, text: bytes, pristine: bool) -> None:
        """Make a JSON text's value a global of this name, in place of any former one.

        ``pristine`` says that no script has run in this context yet.
        """
        ...

    def call(
        self, code: str, a: Given = "", b: Given = "", c: Given = "", d: Given = ""
    ) -> bytes | float | None:
        """Run trusted code with the prelude's captures; without code, a script (see prelude.js).

        Returns text as UTF-8, a number (also for a boolean), or ``None`` for undefined and null.

        Raises:
            EngineError: JavaScript could not answer, not even with an error.
        """
        ...

    def drain(self) -> None:
        """Run what promises have queued.

        Raises:
            EngineError: as ``call``.
        """
        ...


def source(name: str) -> str:
    """Return a JavaScript file of this folder, without comment lines and indentation.

    The files have no text that spans lines. What is compiled for each evaluation should be short.
    """
    text = (resources.files(__package__) / name).read_text("utf-8")
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))
