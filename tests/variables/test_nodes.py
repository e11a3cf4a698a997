"""Variables that two nodes change at once."""

import asyncio
from functools import partial
from pathlib import Path

from sqlalchemy.exc import IntegrityError
from tests.runs.platform import Platform

from insula.adapters.keyring import KeyRing
from insula.errors import Conflict, NotFound
from insula.storage.opening import open_database
from insula.variables import actions
from insula.variables.schemas import UpdateAppVariableSchema

DATABASES = ("sqlite", "postgres")


async def test_two_nodes_that_change_one_variable_leave_one(
    platform: Platform, database_url: str | None, tmp_path: Path
) -> None:
    """Each change is made or refused as a whole; on PostgreSQL by two processes' connections."""
    acme = platform.acme
    await acme.ok("POST", "/variables", {"key": "A", "value": "0", "secret": False})
    mine = platform.services.database
    theirs = mine if database_url is None else await open_database(database_url, tmp_path, "NORMAL")
    ring = KeyRing([b"1" * 32])

    async def change(number: int) -> int:
        """Change or rename it as one of the two; return 1 if that was refused."""
        fields = {"value": str(number)} if number % 3 else {"key": f"B{number}"}
        wanted = UpdateAppVariableSchema(**fields)
        unit = partial(actions.change, ring=ring, app_id=acme.id, key="A", wanted=wanted)
        try:
            await (mine if number % 2 else theirs).write(unit)
        except (IntegrityError, Conflict, NotFound):  # changed or renamed in the meantime
            return 1
        return 0

    await asyncio.gather(*(change(number) for number in range(1, 21)))
    if theirs is not mine:
        await theirs.close()
    left = await platform.rows("SELECT key FROM variables WHERE until IS NULL")
    assert len(left) == 1
    assert len(await acme.ok("GET", "/variables")) == 1
