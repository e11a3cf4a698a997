"""What a node needs to say something to the others, and under which names it says it."""

from dataclasses import dataclass

from insula.jobs.jobs import Jobs
from insula.jobs.signals import NoAnswer, Signals
from insula.journal.lease import node_of

RUN = "run"
"""The kind of the hints that a run waits to begin."""
SWEEP = "sweep"
"""Told to all: runs have just lost their owner."""
CHANGED = "changed"
"""Told to all, with a workflow's id: what is kept of it is out of date."""
KEYS = "keys"
"""Told to all, with an app's id: keys of it were revoked."""


@dataclass(slots=True)
class Cluster:
    """The messages between nodes and the hints of waiting work; both may be away at any time."""

    signals: Signals
    jobs: Jobs
    nodes: int = 1
    """How many there are, as the last sweep found."""

    async def ask_owner(self, owner: str, what: str, run_id: str, within: float) -> bool:
        """Ask the node that executes a run for something; say whether it has done it."""
        try:
            subject = f"node.{node_of(owner)}.{what}"
            await self.signals.ask(subject, run_id.encode(), within)
        except NoAnswer:
            return False
        return True
