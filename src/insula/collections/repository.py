"""Collections and their configs in the database. Every function takes a connection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Row,
    Select,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    update,
)

from insula.collections import counts
from insula.collections.rows import CollectionRow, Config, RecordRow, values
from insula.kit import json
from insula.kit.clock import now_ms
from insula.storage.tables import apps, collection_configs, collections, records
from insula.storage.together import Question, ask_together
from insula.tags import repository as tags
from insula.web.pagination import REACH, Page

NAMED_CONFIGS = Question(
    lambda among: (
        select(collection_configs, collections.c.name)
        .join(collections, collections.c.id == collection_configs.c.collection_id, isouter=True)
        .where(among(collection_configs.c.id, "ids"))
    )
)
"""Configs, each with its collection's name."""
ONE = Question(
    lambda _: select(collections).where(
        collections.c.id == bindparam("collection"),
        collections.c.app_id == bindparam("app"),
        collections.c.deleting.is_(False),
    )
)
"""One collection of an app, unless it is being deleted."""


class Shown(NamedTuple):
    """A collection with the rows that an answer needs beside its own."""

    row: CollectionRow
    config: Config
    app: Any
    tags: Sequence[Row[Any]]
    records_count: int


@dataclass(frozen=True, slots=True)
class Found:
    """A part of a list: its rows, how long the whole is, and where it goes on."""

    rows: Sequence[Any]
    count: int
    capped: bool
    following: Mapping[str, object] | None


def find(connection: Connection, app_id: str, collection_id: str) -> CollectionRow | None:
    """Return one collection of an app, unless it is being deleted."""
    (found,) = ask_together(connection, ONE.of(collection=collection_id, app=app_id))
    return CollectionRow(*found[0]) if found else None


def show(connection: Connection, app_id: str, collection_id: str) -> Shown | None:
    """Return one collection of an app with what its answer needs."""
    row = find(connection, app_id, collection_id)
    return None if row is None else complete(connection, app_id, [row])[0]


def complete(connection: Connection, app_id: str, rows: Sequence[CollectionRow]) -> list[Shown]:
    """Add to collections of an app what their answers need."""
    ids = [row.id for row in rows]
    configs = configs_by_id(connection, [row.config_id for row in rows])
    app = connection.execute(
        select(apps.c.id, apps.c.name, apps.c.verified).where(apps.c.id == app_id)
    ).first()
    labels = tags.of_things(connection, ids)
    counted = counts.records_of(connection, ids)
    return [
        Shown(row, configs[row.config_id], app, labels.get(row.id, ()), counted.get(row.id, 0))
        for row in rows
    ]


def list_own(
    connection: Connection, app_id: str, search: str | None, tag_ids: Sequence[str], page: Page
) -> Found:
    """List an app's collections, newest first."""
    query = select(collections).where(
        collections.c.app_id == app_id, collections.c.deleting.is_(False)
    )
    words = (search or "").split()
    for word in words:
        query = query.where(
            or_(
                collections.c.name.icontains(word, autoescape=True),
                collections.c.description.icontains(word, autoescape=True),
            )
        )
    for tag_id in tag_ids:
        query = query.where(tags.has(collections.c.id, tag_id))
    count, capped = counts.owned(connection, app_id), False
    if words or tag_ids:
        count, capped = count_matches(connection, query)
    if (before := page.position()) is not None:
        query = query.where(collections.c.id < before)
    ordered = query.order_by(collections.c.id.desc())
    rows = connection.execute(ordered.offset(page.offset).limit(page.take + 1)).all()
    shown = [CollectionRow(*row) for row in rows[: page.take]]
    following = {"before": shown[-1].id} if len(rows) > page.take else None
    return Found(complete(connection, app_id, shown), count, capped, following)


def count_matches(connection: Connection, query: Select[Any]) -> tuple[int, bool]:
    """Count the rows of a query exactly up to 10,000; the flag says that there are more."""
    bounded = query.with_only_columns(query.selected_columns[0]).limit(REACH + 1).subquery()
    found = int(connection.execute(select(func.count()).select_from(bounded)).scalar_one())
    return min(found, REACH), found > REACH


def store(connection: Connection, row: CollectionRow, config: Config) -> None:
    """Insert a collection with its first config, and count it."""
    store_config(connection, config)
    connection.execute(insert(collections).values(values(row)))
    counts.change_owned(connection, row.app_id, 1)


def change(connection: Connection, row: CollectionRow, changed: Mapping[str, Any]) -> None:
    """Change a collection that was read in this unit."""
    at = max(now_ms(), row.updated_at + 1)
    statement = update(collections).where(collections.c.id == row.id)
    connection.execute(statement.values(updated_at=at, **changed))


def close(connection: Connection, app_id: str, collection_id: str) -> bool:
    """Let nobody find a collection any more, and nothing begin in it; say whether it was there.

    One that is being deleted already counts as there: whoever began may have died.
    """
    mine = (collections.c.id == collection_id) & (collections.c.app_id == app_id)
    statement = update(collections).where(mine, collections.c.deleting.is_(False))
    if connection.execute(statement.values(deleting=True)).rowcount:
        counts.change_owned(connection, app_id, -1)
    return connection.execute(select(collections.c.id).where(mine)).first() is not None


def remove(connection: Connection, collection_id: str) -> None:
    """Remove a collection that has no records any more, and its configs."""
    mine = collection_configs.c.collection_id == collection_id
    connection.execute(delete(collection_configs).where(mine))
    tags.take_off(connection, collection_id)
    connection.execute(delete(collections).where(collections.c.id == collection_id))


def closing(connection: Connection) -> list[tuple[str, str]]:
    """Return (app id, collection id) of some collections whose deletion was begun."""
    query = select(collections.c.app_id, collections.c.id).where(text("deleting"))
    return [(app_id, found) for app_id, found in connection.execute(query.limit(100)).all()]


def ids_of_app(connection: Connection, app_id: str) -> list[str]:
    """Return ids of some collections of an app."""
    query = select(collections.c.id).where(collections.c.app_id == app_id).limit(100)
    return list(connection.scalars(query))


def store_config(connection: Connection, config: Config) -> None:
    """Insert a config."""
    connection.execute(
        insert(collection_configs).values(
            id=config.id,
            collection_id=config.collection_id,
            rules=json.encode(config.rules),
            mappings=json.encode(config.mappings),
            created_at=config.created_at,
        )
    )


def config(connection: Connection, config_id: str) -> Config | None:
    """Return one config."""
    return configs_by_id(connection, [config_id]).get(config_id)


def configs_by_id(connection: Connection, config_ids: Sequence[str]) -> dict[str, Config]:
    """Return configs by their ids."""
    return {found.id: found for found, _ in named_configs(connection, config_ids)}


def named_configs(connection: Connection, config_ids: Sequence[str]) -> list[tuple[Config, str]]:
    """Return configs, each with its collection's name: none where that is gone."""
    wanted = list(dict.fromkeys(config_ids))
    (found,) = ask_together(connection, NAMED_CONFIGS.of(ids=wanted))
    return configs_of(found)


def configs_of(rows: Sequence[Any]) -> list[tuple[Config, str]]:
    """Return the rows of ``NAMED_CONFIGS`` as configs, each with its collection's name."""
    return [
        (
            Config(
                row.id,
                row.collection_id,
                json.decode(row.rules),
                json.decode(row.mappings),
                row.created_at,
            ),
            row.name or "",
        )
        for row in rows
    ]


def config_of(connection: Connection, row: RecordRow) -> Config:
    """Return the config that a record stands on, as ``of_records`` does."""
    return of_records(connection, [row])[0][0]


def of_records(connection: Connection, rows: Sequence[RecordRow]) -> list[tuple[Config, str]]:
    """Return the configs that records stand on, each with its collection's name."""
    found = named_configs(connection, [row.config_id for row in rows])
    return with_lost(connection, rows, found)


def with_lost(
    connection: Connection, rows: Sequence[RecordRow], found: list[tuple[Config, str]]
) -> list[tuple[Config, str]]:
    """Return the configs that were found for records, and what stands for those that were not.

    A database may hold records whose config was dropped while they were given it. A config without
    rules stands for such a one, so that the record can be read, and be given another.
    """
    there = {config.id for config, _ in found}
    lost = {row.config_id: row for row in rows if row.config_id not in there}
    return [*found, *_lost(connection, list(lost.values()))] if lost else found


def _lost(connection: Connection, rows: Sequence[RecordRow]) -> list[tuple[Config, str]]:
    ids = {row.collection_id for row in rows}
    query = select(collections.c.id, collections.c.name).where(collections.c.id.in_(ids))
    named = {row.id: row.name for row in connection.execute(query).all()}
    return [
        (
            Config(row.config_id, row.collection_id, [], [], row.created_at, is_lost=True),
            named.get(row.collection_id, ""),
        )
        for row in rows
    ]


def drop_config(connection: Connection, config_id: str) -> None:
    """Remove a config on which nothing stands any more."""
    held = select(records.c.id).where(records.c.config_id == config_id).limit(1)
    mine = collection_configs.c.id == config_id
    its = select(collection_configs.c.collection_id).where(mine).scalar_subquery()
    current = select(collections.c.id).where(
        collections.c.id == its, collections.c.config_id == config_id
    )
    if connection.execute(held).first() is None and connection.execute(current).first() is None:
        connection.execute(delete(collection_configs).where(mine))
