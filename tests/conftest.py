"""What tests of any folder may ask for."""

from tests.nats import nats_server, nats_session
from tests.postgres import postgres_server, postgres_url

__all__ = ["nats_server", "nats_session", "postgres_server", "postgres_url"]
