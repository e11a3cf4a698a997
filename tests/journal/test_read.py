from functools import partial

from tests.journal.rows import create, done, over, started, wire

from insula.journal.journal import Journal
from insula.journal.read import load, load_many
from insula.storage.database import Database
from insula.storage.dialect import driver

DATABASES = ("sqlite", "postgres")


async def test_rows_while_it_runs_and_one_row_after_its_end(
    database: Database, journal: Journal
) -> None:
    log = journal.open(await create(database, "run_a"))
    for event in (started(), done("a"), done("b")):
        log.record(event)
        await log.stored()
    running = await database.read(partial(load, run_id="run_a"))
    assert (wire(running.events), running.seq, running.ended) == (
        wire([started(), done("a"), done("b")]),
        3,
        False,
    )
    await log.end(over())
    ended = await database.read(partial(load, run_id="run_a"))
    assert (wire(ended.events[:3]), ended.seq, ended.ended) == (wire(running.events), 4, True)


async def test_many_are_read_as_each_is(database: Database, journal: Journal) -> None:
    ids = [f"run_{letter}" for letter in "abc"]
    logs = [journal.open(await create(database, run_id)) for run_id in ids]
    for log in logs[:2]:
        log.record(started())
        await log.stored()
        log.record(done("a"))
        await log.stored()
    await logs[0].end(over())
    many = await database.read(partial(load_many, run_ids=[*ids, "run_unknown"]))
    for run_id in ids:
        one = await database.read(partial(load, run_id=run_id))
        assert wire(many[run_id]) == wire(one.events)
    assert [len(many[run_id]) for run_id in ids] == [3, 2, 0]
    assert many["run_unknown"] == []


async def test_output_comes_back_as_the_text_it_was(database: Database, journal: Journal) -> None:
    log = journal.open(await create(database, "run_a"))
    text = b'{"b":  1.50, "a": [null, "\\u00e9"]}'
    log.record(done("a", output=text))
    await log.stored()
    events, _ = await journal.read("run_a")
    assert bytes(events[0].output) == text  # type: ignore[union-attr, arg-type]  # a step's end


async def test_rows_are_read_where_there_is_no_data_row(
    database: Database, journal: Journal
) -> None:
    log = journal.open(await create(database, "run_a"))
    log.record(started())
    await log.stored()
    await database.write(
        lambda connection: driver(connection).execute("DELETE FROM run_data").rowcount
    )
    assert (await journal.read("run_a"))[1] == 1
    assert wire((await journal.read("run_a"))[0]) == wire([started()])
