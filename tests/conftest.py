"""What tests of any folder may ask for."""

from hypothesis import HealthCheck, settings

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

# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("insula", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("insula")
