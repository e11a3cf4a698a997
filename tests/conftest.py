"""What tests of any folder may ask for."""

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
