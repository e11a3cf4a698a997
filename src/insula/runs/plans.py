"""The plans of what runs start from, kept: a version never changes."""

import asyncio
from dataclasses import dataclass, field

from insula.engine.graph import Plan, plan
from insula.workflows.resolve import Runnable

_KEPT = 2_000
_LARGE = 200
"""Steps beyond which laying out a run may take longer than the event loop can wait."""


@dataclass(slots=True)
class Plans:
    """Those of versions, by version and first step; a draft keeps its own."""

    _kept: dict[tuple[str, str | None], Plan] = field(default_factory=dict)

    async def lay_out(self, runnable: Runnable, from_step_key: str | None) -> Plan:
        """Return the plan as ``plan_of`` does; a large one is made away from the event loop.

        Raises:
            BadInput: no run can start from that step.
        """
        if len(runnable.document.steps) > _LARGE and self._planned(runnable, from_step_key) is None:
            self._keep(
                runnable,
                from_step_key,
                await asyncio.to_thread(plan, runnable.document, from_step_key),
            )
        return self.plan_of(runnable, from_step_key)

    def plan_of(self, runnable: Runnable, from_step_key: str | None) -> Plan:
        """Return the plan of a version or a draft, made at its first use.

        Raises:
            BadInput: no run can start from that step.
        """
        found = self._planned(runnable, from_step_key)
        if found is None:
            found = plan(runnable.document, from_step_key)
            self._keep(runnable, from_step_key, found)
        return found

    def _planned(self, runnable: Runnable, from_step_key: str | None) -> Plan | None:
        if runnable.version_id is None:
            return runnable.plans.get(from_step_key)
        return self._kept.get((runnable.version_id, from_step_key))

    def _keep(self, runnable: Runnable, from_step_key: str | None, made: Plan) -> None:
        if runnable.version_id is None:
            runnable.plans[from_step_key] = made
            return
        if len(self._kept) >= _KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[(runnable.version_id, from_step_key)] = made
