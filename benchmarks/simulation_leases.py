"""Nodes that renew their leases, sweep for the lost and take over from the dead, all through one
database whose cores they share. What each statement costs is a parameter, measured elsewhere.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from benchmarks.simulation_clock import SharedCores, Simulation, quantile, stream


@dataclass(frozen=True)
class Costs:
    """Core-seconds of the database, as PostgreSQL 15 took them for these very statements:

    8 connections renewing leases by themselves; the search among 100,000 live runs of 1,000 nodes
    (22 ms); the same by owner, one descent of the index each (7 ms).
    """

    statement: float = 0.00013
    """One statement in a transaction of its own: a renewal, a claim."""
    row: float = 0.00000022
    """One index entry looked at in a longer statement."""
    probe: float = 0.000007
    """One descent of an index."""


@dataclass(frozen=True)
class Lease:
    """The constants of the product, and how its nodes look for the lost.

    ``search``: ``runs`` looks at every live run and asks whether its owner lives; ``owners`` looks
    at each owner once. ``sweeps`` bounds how many sweeps a second all nodes make together (0: each
    node sweeps every ``sweep_every`` seconds, however many there are).
    """

    seconds: float = 6.0
    renewed_every: float = 2.0
    grace: float = 1.0
    sweep_every: float = 1.0
    claimed_at_once: int = 16
    search: Literal["runs", "owners"] = "runs"
    sweeps: float = 0.0


@dataclass(frozen=True)
class Cluster:
    """How many nodes, what each runs, and what goes wrong."""

    nodes: int
    live_runs: int
    """Live runs on each node."""
    pending: int = 0
    """Runs that wait, of which each sweep reads up to ``offered``."""
    offered: int = 1_000
    deaths: int = 1
    """Nodes that are killed during the time that is looked at."""
    cores: float = 8.0
    """Cores of the database that leases and sweeps may use."""


@dataclass
class Traffic:
    """What was seen in ``seconds``."""

    seconds: float
    renewals: int = 0
    sweeps: int = 0
    rows: int = 0
    claims: int = 0
    useless_claims: int = 0
    lapses: int = 0
    """Leases of living nodes that ran out because the database answered too late."""
    renewed_in: list[float] = field(default_factory=list)
    takeovers: list[float] = field(default_factory=list)
    left: int = 0
    """Runs of dead nodes that nobody had taken at the end."""
    core_seconds: float = 0.0

    @property
    def statements(self) -> float:
        """Return statements a second."""
        return (self.renewals + self.sweeps + self.claims) / self.seconds

    def takeover(self, share: float) -> float:
        """Return a quantile of the time from a node's death to a run's new owner."""
        return quantile(self.takeovers, share)

    @property
    def cores(self) -> float:
        """Return how many cores of the database this kept busy."""
        return self.core_seconds / self.seconds


@dataclass(eq=False, slots=True)
class _Node:
    number: int
    alive: bool = True
    expires: float = 0.0
    died: float = 0.0


@dataclass(eq=False, slots=True)
class _Lost:
    """A run of a dead node."""

    owner: _Node
    taken: bool = False


class Leases:
    """One simulated cluster's leases."""

    def __init__(self, cluster: Cluster, lease: Lease, costs: Costs, seed: int) -> None:
        self._cluster, self._lease, self._costs = cluster, lease, costs
        self._time = Simulation()
        self._database = SharedCores(self._time, cluster.cores)
        self._luck = stream(seed, "leases")
        self._nodes = [_Node(number, expires=lease.seconds) for number in range(cluster.nodes)]
        self._lost: list[_Lost] = []
        self._seen = Traffic(0.0)
        self._interval = lease.sweep_every
        if lease.sweeps:
            self._interval = max(lease.sweep_every, cluster.nodes / lease.sweeps)

    def run(self, seconds: float) -> Traffic:
        """Let so much time pass; nodes die in its first half."""
        for node in self._nodes:
            self._time.after(
                self._luck.random() * self._lease.renewed_every, partial(self._renew, node)
            )
            self._time.after(self._luck.random() * self._interval, partial(self._sweep, node))
        for node in self._luck.sample(self._nodes, min(self._cluster.deaths, len(self._nodes) - 1)):
            self._time.after(self._luck.uniform(0.1, 0.5) * seconds, partial(self._die, node))
        self._time.run(seconds)
        self._seen.seconds = seconds
        self._seen.core_seconds = self._database.busy
        self._seen.left = sum(not run.taken for run in self._lost)
        return self._seen

    def _renew(self, node: _Node) -> None:
        if node.alive:
            self._seen.renewals += 1
            sent = self._time.now
            # The renewal itself, and a look at which of the own runs are to be cancelled.
            work = 2 * self._costs.statement + self._cluster.live_runs * self._costs.row
            self._database.submit(work, partial(self._renewed, node, sent))

    def _renewed(self, node: _Node, sent: float) -> None:
        now = self._time.now
        self._seen.renewed_in.append(now - sent)
        if node.alive:
            self._seen.lapses += now > node.expires
            node.expires = sent + self._lease.seconds
            self._time.after(self._lease.renewed_every, partial(self._renew, node))

    def _sweep(self, node: _Node) -> None:
        if not node.alive:
            return
        rows, work = self._search()
        self._seen.sweeps += 1
        self._seen.rows += rows
        self._database.submit(work, partial(self._found, node))

    def _search(self) -> tuple[int, float]:
        """Return the rows that a sweep looks at, and what that costs."""
        cluster, costs = self._cluster, self._costs
        offered = min(cluster.offered, cluster.pending)
        if self._lease.search == "owners":
            rows = 2 * cluster.nodes + offered
            work = cluster.nodes * (costs.probe + costs.row) + offered * costs.row
        else:
            rows = cluster.nodes * (cluster.live_runs + 1) + offered
            work = rows * costs.row
        return rows, work + 2 * costs.statement

    def _found(self, node: _Node) -> None:
        now = self._time.now
        self._lost = [run for run in self._lost if not run.taken]
        seen = [run for run in self._lost if run.owner.expires + self._lease.grace < now]
        for run in self._luck.sample(seen, min(len(seen), self._lease.claimed_at_once)):
            self._seen.claims += 1
            self._database.submit(self._costs.statement, partial(self._claim, run))
        # Jitter, so that nodes which were started together do not sweep together for ever.
        delay = self._interval * self._luck.uniform(0.9, 1.1)
        # Who finds as much as it may take looks again soon.
        if len(seen) > self._lease.claimed_at_once:
            delay = min(delay, self._lease.sweep_every)
        self._time.after(delay, partial(self._sweep, node))

    def _claim(self, run: _Lost) -> None:
        if run.taken:
            self._seen.useless_claims += 1
        else:
            run.taken = True
            self._seen.takeovers.append(self._time.now - run.owner.died)

    def _die(self, node: _Node) -> None:
        node.alive, node.died = False, self._time.now
        self._lost += [_Lost(node) for _ in range(self._cluster.live_runs)]
