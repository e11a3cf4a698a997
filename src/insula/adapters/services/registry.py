"""Which services there are: each type of action has one implementation of the port."""

from collections.abc import Mapping

from insula.engine.failures import StepFailure, plain
from insula.engine.ports import Activity, ServiceCall, Services
from insula.kit.json import Raw


class ServiceRegistry:
    """Implements ``Services`` by handing each call to the service of its type."""

    def __init__(self, services: Mapping[str, Services]) -> None:
        self._services = dict(services)

    def add(self, type_: str, service: Services) -> None:
        """Make a type known: what stands above hands itself in after it was made."""
        self._services[type_] = service

    async def call(self, call: ServiceCall, activity: Activity) -> Raw:
        """Do it. Raises ``StepFailure``: ``not_available``, or what the service raises."""
        service = self._services.get(call.type)
        if service is None:
            known = ", ".join(sorted(self._services)) or "none"
            raise StepFailure(
                f"There is no service {plain(call.type, 100)} here; there are: {known}",
                "not_available",
            )
        return await service.call(call, activity)
