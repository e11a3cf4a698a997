"""The log of a process: a line each on standard error, with time and level."""

import logging
import sys

import structlog


def log_plainly(level: int) -> None:
    """Log to standard error, and tracebacks without the values of variables: they hold inputs,
    outputs and keys. An embedder that has configured its log keeps it.
    """
    if structlog.is_configured():
        return
    told: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    shown = structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *told, shown],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    # The engine knows the standard library's log alone: its lines look like all others.
    lines = logging.StreamHandler(sys.stderr)
    without = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    lines.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=told, processors=[without, shown])
    )
    logging.getLogger("insula").addHandler(lines)
