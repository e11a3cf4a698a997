"""The JavaScript engines by lane."""

from insula.adapters.sandbox.engine import Engine
from insula.engine.ports import Lane


def open_engine(lane: Lane) -> Engine:
    """Return the lane's engine, not yet prepared."""
    # each engine is tens of megabytes, and a process has use for one
    if lane == "v8":
        from insula.adapters.sandbox.v8 import V8

        return V8()
    from insula.adapters.sandbox.quickjs import QuickJs

    return QuickJs()
