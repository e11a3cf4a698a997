"""Many stored records: how long a page of each list of them takes, walked by its cursor.

python benchmarks/records.py [RECORDS] [sqlite|postgresql]
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.client import walk
from benchmarks.databases import Kind, database
from benchmarks.rows import Row
from benchmarks.server import Server, serving
from benchmarks.stored import PostgresStored, SqliteStored, Stored
from insula.collections.rows import RecordRow, RuleRow, names, values
from insula.kit.clock import now_ms
from insula.kit.ids import new_id

_BATCH = 5_000
_PAGES = 50
_SLOT = 15
_RULES = ("income", "identity", "address")
_FAILED, _TAGGED, _RARE = 10, 10, 20_000
"""One in so many is FAILED, has the tag, has the rare word in its name."""
_JUDGE = {
    "name": "Judge",
    "steps": [{"type": "code", "key": "judge", "code": "return true"}],
}


def lists(tag: str) -> dict[str, dict[str, str]]:
    """Return what is asked of each list."""
    return {
        "all": {},
        "by status": {"status": "FAILED"},
        "by tag": {"tags": tag},
        "by tag and status": {"tags": tag, "status": "FAILED"},
        "by a word that most have": {"search": "case"},
        "by a word and status": {"search": "case 7", "status": "FAILED"},
        "by a word that few have": {"search": "rare"},
    }


class Filling:
    """Puts records straight into a database."""

    def __init__(self, stored: Stored, app_id: str, collection: dict[str, Any], tag: str) -> None:
        self._stored = stored
        self._app_id = app_id
        self._collection_id = collection["id"]
        self._config_id = collection["config"]["id"]
        self._tag = tag

    def fill(self, count: int) -> None:
        """Insert so many records with their rules and results, tagged and counted."""
        for start in range(0, count, _BATCH):
            rows = [self._record(n) for n in range(start, min(start + _BATCH, count))]
            rules = [self._rule(row.id, n) for row in rows for n in range(len(_RULES))]
            labelled = [(self._tag, row.id) for row in rows[::_TAGGED]]
            self._insert("records", names(RecordRow), [tuple(values(row).values()) for row in rows])
            self._insert(
                "record_rules", names(RuleRow), [tuple(values(rule).values()) for rule in rules]
            )
            self._insert("tagged", ("tag_id", "thing_id"), labelled)
        failed = -(-count // _FAILED)
        counted = [
            ("records", self._collection_id, status, "", _SLOT, number)
            for status, number in (("FAILED", failed), ("COMPLETED", count - failed))
        ]
        columns = ("app_id", "workflow_id", "status", "origin", "slot", "count")
        self._insert("counters", columns, counted)

    def _insert(self, table: str, columns: Sequence[str], rows: list[Any]) -> None:
        self._stored.insert(table, columns, rows)

    def _record(self, number: int) -> RecordRow:
        now = now_ms()
        return RecordRow(
            id=new_id("rec"),
            app_id=self._app_id,
            collection_id=self._collection_id,
            config_id=self._config_id,
            name=f"Case {number}" + (" rare" if number % _RARE == 0 else ""),
            status="COMPLETED" if number % _FAILED else "FAILED",
            source="API",
            rules_count=len(_RULES),
            pass_count=len(_RULES),
            fail_count=0,
            warn_count=0,
            analysis=1,
            entity=None,
            created_by=None,
            cancel_requested_at=None,
            cancel_requested_by=None,
            created_at=now,
            updated_at=now,
        )

    def _rule(self, record_id: str, place: int) -> RuleRow:
        now = now_ms()
        outcome = {"result": {"passed": True, "message": "x" * 300}}
        return RuleRow(
            record_id=record_id,
            key=_RULES[place],
            place=place,
            phase=1,
            disabled=False,
            due=False,
            status="PASSED",
            input=b'{"text": "what was looked at"}',
            run_id=None,
            ended="COMPLETED",
            outcome=json.dumps(outcome).encode(),
            ran=None,
            credits=0.0,
            created_at=now,
            updated_at=now,
        )


async def measure(count: int, kind: Kind = "sqlite") -> dict[str, Any]:
    """Return how long a page of 20 records takes in each list, in milliseconds."""
    with tempfile.TemporaryDirectory() as name:
        async with database(kind) as settings:
            return await _measure(count, Path(name), settings)


async def _measure(count: int, folder: Path, settings: dict[str, str]) -> dict[str, Any]:
    url = settings.get("database_url")
    stored: Stored = SqliteStored(folder / "insula.db") if url is None else PostgresStored(url)
    async with serving(folder, **settings) as server:
        key = await server.app("Bench")
        collection, tag = await _prepare(server, key)
    ((app_id,),) = stored.rows(f"SELECT app_id FROM collections WHERE id = '{collection['id']}'")
    await asyncio.to_thread(Filling(stored, app_id, collection, tag).fill, count)
    if url is not None:
        await asyncio.to_thread(stored.rows, "VACUUM ANALYZE")  # as autovacuum does in its time
    async with serving(folder, **settings) as server:
        path = f"/apps/c/collections/{collection['id']}/records"
        return {
            "stored": count,
            **{
                name: await walk(server.port, path, key, query, _PAGES)
                for name, query in lists(tag).items()
            },
        }


async def _prepare(server: Server, key: str) -> tuple[dict[str, Any], str]:
    workflow_id = await server.deploy(key, _JUDGE)
    made = await server.call(key, "POST", "/collections", {"name": "Bench"})
    rules = [{"name": name, "key": name, "workflow_id": workflow_id} for name in _RULES]
    path = f"/collections/{made['id']}"
    collection = await server.call(key, "PATCH", f"{path}/config", {"rules": rules})
    tag = await server.call(key, "POST", "/tags", {"name": "urgent"})
    return collection, tag["id"]


def rows_of(found: dict[str, Any], on: str = "") -> list[Row]:
    """Return what many stored records cost; ``on`` names the database."""
    rows = []
    for name, pages in found.items():
        if name == "stored":
            continue
        label = f"list of 20 records {name}, {found['stored']:,} stored{on}"
        rows.append(Row(f"{label}, p50", pages["p50_ms"], "ms", "<= 10", pages["p50_ms"] <= 10))
        rows.append(Row(f"{label}, p99", pages["p99_ms"], "ms", "", None))
    return rows


if __name__ == "__main__":
    asked = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    chosen: Kind = "postgresql" if "postgresql" in sys.argv[2:] else "sqlite"
    print(json.dumps(asyncio.run(measure(asked, chosen)), indent=1))
