"""What tests of any folder may ask for."""

import gc

import pytest
from hypothesis import HealthCheck, settings

from tests.contract import ABSENT, ContractFile
from tests.databases import (
    database_url,
    lender,
    pytest_generate_tests,
    share_compiled,
    tables_url,
)
from tests.nats import nats_server, nats_session
from tests.postgres import postgres_server, postgres_url

__all__ = [
    "database_url",
    "lender",
    "nats_server",
    "nats_session",
    "postgres_server",
    "postgres_url",
    "pytest_generate_tests",
    "tables_url",
]


def pytest_collection_finish() -> None:
    """Leave what was loaded to itself, and look for garbage seldom: a tenth of the time of all
    tests went into looking at what stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


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

share_compiled()
