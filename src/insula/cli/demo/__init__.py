"""``insula demo``: the main job of the product, start to end, with visible progress."""

from insula.cli.demo.story import tell
from insula.cli.options import perform


def demo() -> None:
    """Publish a workflow, find it, run it, cancel it in mid-run and replay it."""
    perform(tell())
