"""What tests of any folder may ask for."""

import pytest
from hypothesis import HealthCheck, settings

from tests.contract import ABSENT, ContractFile
from tests.nats import nats_server, nats_session
from tests.postgres import (
    database_url,
    postgres_server,
    postgres_template,
    postgres_url,
    pytest_generate_tests,
)

__all__ = [
    "database_url",
    "nats_server",
    "nats_session",
    "postgres_server",
    "postgres_template",
    "postgres_url",
    "pytest_generate_tests",
]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what is not looked at in a plain clone, where tests pass all the same."""
    if not ContractFile.present:
        terminalreporter.write_line(
            f"Not checked against the contract: {ABSENT}. Tests of shapes alone are skipped; in "
            "tests/acceptance others ran without checking the shapes of their answers."
        )


# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("insula", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("insula")
