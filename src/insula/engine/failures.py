"""How a step fails: one exception, carrying what the step shows."""

from insula.kit.json import Raw

LONGEST_MESSAGE = 10_000


def plain(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """Return a text that any database can hold, whatever was in it: no half surrogates, no U+0000,
    and not too long."""
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


class StepFailure(Exception):
    """A step, or one of its units, cannot go on.

    ``code`` is stable and for programs (``retry.on`` names it): ``script``, ``limit_cpu``,
    ``limit_wall``, ``limit_memory``, ``limit_output``, ``limit_logs``, ``engine_crash``, ``dns``,
    ``refused``, ``tls``, ``timeout``, ``network``, ``egress``, ``provider``, ``rate_limited``,
    ``child``, ``input``, ``not_available``, ``interrupted``, ``limit_iterations``,
    ``limit_settings``, ``limit_requests``, ``internal``.
    ``message`` is for people.
    """

    def __init__(
        self,
        message: str,
        code: str = "step",
        logs: Raw | None = None,
        output: Raw | None = None,
        credits: float = 0.0,
    ) -> None:
        self.message = plain(message)
        super().__init__(self.message)
        self.code = code
        self.logs = logs
        self.output = output
        self.credits = credits
        self.fetched: Raw | None = None
        """What code that failed had asked with ``fetch``, and was answered."""


def timed_out(seconds: float, logs: Raw | None = None, credits: float = 0.0) -> StepFailure:
    """Return the failure of what took longer than its step's ``timeout``."""
    words = f"No result within {seconds:g} s (timeout)"
    return StepFailure(words, "timeout", logs, credits=credits)


class NoRoom(StepFailure):
    """What is asked for of files is more than there is room for."""

    def __init__(self) -> None:
        super().__init__("What is in the files is too much", "input")


class Unanswerable(StepFailure):
    """Code asks for something that nobody can give here: its evaluation ends with this, whatever
    the code would make of a failure."""
