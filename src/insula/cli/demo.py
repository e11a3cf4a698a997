"""``insula demo``: the main job of the product, start to end, with visible progress."""

from insula.cli.failures import CommandFailed, ExitCode
from insula.cli.options import perform


def demo() -> None:
    """Publish a workflow, find it, run it, cancel it in mid-run and replay it."""
    perform(_demo())


async def _demo() -> ExitCode:
    raise CommandFailed("The demo is not available yet.", ExitCode.FAILED)
