"""How many schedules an app may have."""

from sqlalchemy import Connection

from insula.errors import Conflict
from insula.schedules import repository

SCHEDULES_MAX = 1_000
"""Schedules of one app, those of its workflows' triggers included."""


def check_room(connection: Connection, app_id: str, more: int) -> None:
    """Refuse to go beyond the limit.

    Raises:
        Conflict: the app would have too many.
    """
    if more and repository.count_own(connection, app_id) + more > SCHEDULES_MAX:
        raise Conflict(
            f"An app has at most {SCHEDULES_MAX:,} schedules. Delete those that are not needed."
        )
