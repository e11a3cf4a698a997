"""What ``insula doctor`` finds of the keys that encrypt stored secrets."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Literal

from insula.adapters.keyring import FILE, missing, open_ring
from insula.adapters.sealed_rows import TABLES
from insula.settings import Settings, SettingsError
from insula.storage.migrate import ForeignFile, check_file
from insula.storage.opening import FILE as DATABASE

_BUSY_SECONDS = 5.0


def look_at_keys(data: Path, settings: Settings) -> tuple[Literal["ok", "warning", "failed"], str]:
    """Return a verdict and its words; nothing is made or changed.

    What PostgreSQL stores is looked at when the server starts, and not here.
    """
    file = data / FILE
    keys = settings.secret_keys
    try:
        needed = _needed(data) if settings.database_url is None else []
        if keys is None and not file.exists():
            if needed:
                return "failed", missing(needed)
            return "ok", "one will be made at the first start"
        ring = open_ring(data, None if keys is None else keys.get_secret_value())
    except (SettingsError, ForeignFile) as error:
        return "failed", str(error)
    except OSError as error:
        return "failed", f"{error.filename}: {error.strerror}"
    except sqlite3.DatabaseError as error:
        return "failed", f"{data / DATABASE} cannot be read: {error}"
    absent = sorted(set(needed) - ring.ids)
    if absent:
        return "failed", missing(absent)
    if file.exists() and file.stat().st_mode & 0o077:
        return "warning", f"others can read {file}: chmod 600 {file}"
    count = len(ring.ids)
    return "ok", f"{count} key{'' if count == 1 else 's'}"


def _needed(data: Path) -> list[str]:
    """Return the ids of the keys that the folder's database needs."""
    file = data / DATABASE
    if not file.exists():
        return []
    check_file(file)
    address = f"{file.absolute().as_uri()}?mode=ro"
    found: set[str] = set()
    with closing(sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS)) as connection:
        for one in TABLES:
            name = one.table.name
            query = f"SELECT DISTINCT key_id FROM {name} WHERE key_id IS NOT NULL"  # noqa: S608  # ours
            try:
                found |= {key_id for (key_id,) in connection.execute(query)}
            except sqlite3.OperationalError:  # from before there were secrets
                continue
    return sorted(found)
