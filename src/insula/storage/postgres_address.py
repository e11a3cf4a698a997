"""The URL of a PostgreSQL database: checked, and shown without its password."""

from typing import Any

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

_SCHEMES = ("postgresql://", "postgres://")
_FORM = (
    "is no URL of PostgreSQL: postgresql://user:password@host:5432/database, "
    "with special characters of the password percent-encoded"
)


class DatabaseUnusable(Exception):
    """There is no database at this address that this program could use; says what to do."""


class DatabaseAway(DatabaseUnusable):
    """The server does not answer, or refuses; it may be otherwise later."""


def parse(url: str) -> dict[str, Any]:
    """Return the parts of a URL.

    Raises:
        ValueError: it is none of PostgreSQL's; says why, and nothing of the URL.
    """
    if not url.startswith(_SCHEMES):
        raise ValueError("must begin with postgresql://")
    try:
        parts = conninfo_to_dict(url)
    except ProgrammingError:  # its words may hold the password
        raise ValueError(_FORM) from None
    # What stands before it is the end of the password; at the start it is a socket without a name.
    if any("@" in host[1:] for host in str(parts.get("host", "")).split(",")):
        raise ValueError(_FORM)
    if not parts.get("dbname"):
        raise ValueError("must end with the name of the database: postgresql://host:5432/database")
    return parts


def describe(url: str) -> str:
    """Say which database it is: who, where, which; never the password."""
    parts = parse(url)
    user = f"{parts['user']}@" if "user" in parts else ""
    host = parts.get("host", "localhost")
    port = f":{parts['port']}" if "port" in parts else ""
    return f"{user}{host}{port}/{parts['dbname']}"
