"""How a step fails: one exception, carrying what the step shows."""

from insula.kit.json import Raw


class StepFailure(Exception):
    """A step, or one of its units, cannot go on.

    ``code`` is stable and for programs (``retry.on`` names it): ``script``, ``limit_cpu``,
    ``limit_wall``, ``limit_memory``, ``limit_output``, ``limit_logs``, ``engine_crash``, ``dns``,
    ``refused``, ``tls``, ``timeout``, ``network``, ``egress``, ``provider``, ``rate_limited``,
    ``child``, ``input``, ``not_available``, ``interrupted``. ``message`` is for people.
    """

    def __init__(
        self,
        message: str,
        code: str = "step",
        logs: Raw | None = None,
        output: Raw | None = None,
        credits: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.logs = logs
        self.output = output
        self.credits = credits
