from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Integer, bindparam, func, insert, select

from insula.storage.database import Database
from insula.storage.postgres import open_postgres
from insula.storage.tables import facts, files
from insula.storage.together import Question, ask_together

DATABASES = ("sqlite", "postgres")
FEW = Question(
    lambda among: (
        select(files.c.id, files.c.run_id, files.c.size, func.length(files.c.filename))
        .where(among(files.c.id, "ids"), files.c.size > bindparam("least"))
        .order_by(files.c.id)
        .limit(bindparam("most", type_=Integer()))
    )
)
COUNT = Question(lambda _: select(func.count()).select_from(files).where(files.c.app_id == "app"))
FACT = Question(lambda _: select(facts.c.value).where(facts.c.name == bindparam("name")))
WRONG = Question(
    lambda _: select(func.substr(files.c.id, 1, bindparam("cut", type_=Integer()))).where(
        files.c.id == "a"
    )
)


def fill(connection: Connection) -> None:
    row = {"app_id": "app", "mimetype": "", "storage": "", "visibility": "", "created_at": 1}
    rows = [
        {**row, "id": name, "filename": "\u20ac", "size": 2**40 + place, "run_id": run}
        for place, (name, run) in enumerate([("a", None), ("b", "run"), ("c", None)])
    ]
    connection.execute(insert(files), rows)
    connection.execute(insert(facts).values(name="x", value=b"\0\xff"))


async def test_each_question_is_answered_in_its_place(database: Database) -> None:
    await database.write(fill)

    def ask(connection: Connection) -> list[Any]:
        few = FEW.of(ids=["c", "a", "b", "b"], least=2**40, most=1)
        return ask_together(
            connection, few, COUNT.of(), FEW.of(ids=[], least=0, most=9), FACT.of(name="x")
        )

    for _ in range(2):
        few, count, none, fact = await database.read(ask)
        assert [tuple(row) for row in few] == [("b", "run", 2**40 + 1, 1)]
        assert (few[0].id, few[0].run_id, few[0].size) == ("b", "run", 2**40 + 1)
        assert [tuple(row) for row in count] == [(3,)]
        assert list(none) == []
        assert [bytes(row.value) for row in fact] == [b"\0\xff"]


async def test_a_unit_sees_what_it_has_stored(database: Database) -> None:
    def unit(connection: Connection) -> list[Any]:
        fill(connection)
        return ask_together(connection, COUNT.of(), FACT.of(name="x"))

    count, fact = await database.write(unit)
    assert (count[0][0], bytes(fact[0].value)) == (3, b"\0\xff")


async def test_after_one_that_fails_others_are_answered(postgres_url: str) -> None:
    database = await open_postgres(postgres_url, readers=1)
    await database.write(fill)

    def fails(connection: Connection) -> list[Any]:
        return ask_together(connection, COUNT.of(), WRONG.of(cut=-1), COUNT.of())

    for _ in range(2):
        with pytest.raises(psycopg.DataError):
            await database.read(fails)
        ((count,),) = await database.read(lambda c: ask_together(c, COUNT.of()))
        assert tuple(count) == (3,)
    await database.close()
