"""Rows and events for the tests of the journal."""

from typing import Any

from sqlalchemy import Connection, insert, select

from insula.engine.events import (
    Chunk,
    Event,
    RunEnded,
    RunStarted,
    StepEnded,
    encode_events,
)
from insula.kit.json import Raw
from insula.storage.counters import bump
from insula.storage.database import Database
from insula.storage.dialect import driver
from insula.storage.tables import run_data, runs

TOKEN = "node_this"
ORIGIN = "ENDPOINT"


async def create(database: Database, run_id: str, owner: str | None = TOKEN, **columns: Any) -> str:
    def unit(connection: Connection) -> None:
        row = {
            "id": run_id,
            "app_id": "app_a",
            "workflow_app_id": "app_a",
            "workflow_id": "work_a",
            "root_id": run_id,
            "status": "RUNNING",
            "origin": ORIGIN,
            "owner": owner,
            "created_at": 1,
            "updated_at": 1,
            **columns,
        }
        connection.execute(insert(runs).values(row))
        connection.execute(insert(run_data).values(run_id=run_id, input=b"{}"))
        if not row.get("hidden"):
            bump(connection, "app_a", "work_a", row["status"], ORIGIN, 1)

    await database.write(unit)
    return run_id


async def run_row(database: Database, run_id: str) -> Any:
    return await database.read(
        lambda connection: connection.execute(select(runs).where(runs.c.id == run_id)).one()
    )


async def event_rows(database: Database, run_id: str) -> list[tuple[int, bytes]]:
    return await database.read(
        lambda connection: (
            driver(connection)
            .execute("SELECT seq, events FROM run_events WHERE run_id = ? ORDER BY seq", (run_id,))
            .fetchall()
        )
    )


async def kept_journal(database: Database, run_id: str) -> bytes | None:
    def query(connection: Connection) -> bytes | None:
        kept: bytes | None = connection.scalar(
            select(run_data.c.events).where(run_data.c.run_id == run_id)
        )
        return kept

    return await database.read(query)


async def steal(database: Database, run_id: str, owner: str = "node_other") -> None:
    await database.write(
        lambda connection: (
            driver(connection)
            .execute("UPDATE runs SET owner = ? WHERE id = ?", (owner, run_id))
            .rowcount
        )
    )


def started(at: int = 10) -> RunStarted:
    return RunStarted(at=at)


def done(key: str, at: int = 20, output: bytes = b'{"a":1}') -> StepEnded:
    return StepEnded(at=at, key=key, status="COMPLETED", output=Raw(output))


def chunk(text: str, key: str = "ask", index: int | None = None) -> Chunk:
    return Chunk(at=15, key=key, provider="mock", model="m", text=text, index=index)


def over(at: int = 30) -> RunEnded:
    return RunEnded(at=at, status="COMPLETED")


def wire(events: list[Event]) -> bytes:
    """Events as bytes, which can be compared where they carry JSON text."""
    return encode_events(events)
