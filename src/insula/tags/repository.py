"""Tags in the database, and what they are on. Every function takes a connection."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from insula.errors import BadInput, Conflict, FieldError
from insula.kit.clock import now_ms
from insula.storage.tables import tagged, tags
from insula.storage.together import Question, ask_together
from insula.web.pagination import Page

TAGS_MAX = 1_000
"""Tags of one app."""
OF_THINGS = Question(
    lambda among: (
        select(tags, tagged.c.thing_id)
        .join(tagged, tagged.c.tag_id == tags.c.id)
        .where(among(tagged.c.thing_id, "ids"))
        .order_by(tags.c.name)
    )
)
"""The tags of things, each with its thing's id, in the order of their names."""


def list_own(
    connection: Connection, app_id: str, page: Page
) -> tuple[Sequence[Row[Any]], int, dict[str, object] | None]:
    """Return a page of an app's tags by their names, their number, and where it goes on."""
    query = select(tags).where(tags.c.app_id == app_id).order_by(tags.c.name)
    if (name := page.position("name")) is not None:
        query = query.where(tags.c.name > name)
    rows = connection.execute(query.offset(page.offset).limit(page.take + 1)).all()
    shown = rows[: page.take]
    following: dict[str, object] | None = None
    if len(rows) > page.take:
        following = {"name": shown[-1].name}
    return shown, _count(connection, app_id), following


def find(connection: Connection, app_id: str, tag_id: str) -> Row[Any] | None:
    """Return one tag of an app."""
    query = select(tags).where(tags.c.id == tag_id, tags.c.app_id == app_id)
    return connection.execute(query).first()


def store(connection: Connection, tag_id: str, app_id: str, name: str, color: str | None) -> None:
    """Insert a tag.

    Raises:
        Conflict: the app has one of that name, or too many.
    """
    _check_name(connection, app_id, name, None)
    if _count(connection, app_id) >= TAGS_MAX:
        raise Conflict(f"An app has at most {TAGS_MAX:,} tags. Delete those that are not needed.")
    now = now_ms()
    values = {"id": tag_id, "app_id": app_id, "name": name, "color": color}
    connection.execute(insert(tags).values(**values, created_at=now, updated_at=now))


def change(
    connection: Connection, app_id: str, tag_id: str, values: Mapping[str, object]
) -> Row[Any] | None:
    """Change a tag and return it.

    Raises:
        Conflict: the app has another one of that name.
    """
    if "name" in values:
        _check_name(connection, app_id, str(values["name"]), tag_id)
    mine = and_(tags.c.id == tag_id, tags.c.app_id == app_id)
    connection.execute(update(tags).where(mine).values(**values, updated_at=now_ms()))
    return find(connection, app_id, tag_id)


def remove(connection: Connection, app_id: str, tag_id: str) -> bool:
    """Remove a tag from everything, and itself; say whether it was there."""
    if find(connection, app_id, tag_id) is None:
        return False
    connection.execute(delete(tagged).where(tagged.c.tag_id == tag_id))
    connection.execute(delete(tags).where(tags.c.id == tag_id))
    return True


def remove_of_app(connection: Connection, app_id: str) -> None:
    """Remove every tag of an app."""
    mine = select(tags.c.id).where(tags.c.app_id == app_id)
    connection.execute(delete(tagged).where(tagged.c.tag_id.in_(mine)))
    connection.execute(delete(tags).where(tags.c.app_id == app_id))


def put_on(
    connection: Connection, app_id: str, thing_id: str, tag_ids: Sequence[str], field: str
) -> None:
    """Let a thing have these tags and no others; ``field`` names them in errors.

    Raises:
        BadInput: one entry for each that is none of the app's.
    """
    wanted = list(dict.fromkeys(tag_ids))
    query = select(tags.c.id).where(tags.c.app_id == app_id, tags.c.id.in_(wanted))
    known = set(connection.scalars(query)) if wanted else set()
    errors = [
        FieldError((field, str(place)), "unknown", "no such tag: leave it out")
        for place, tag_id in enumerate(tag_ids)
        if tag_id not in known
    ]
    if errors:
        raise BadInput(f"{field} names tags that do not exist in this app", errors)
    take_off(connection, thing_id)
    if wanted:
        rows = [{"tag_id": tag_id, "thing_id": thing_id} for tag_id in wanted]
        connection.execute(insert(tagged), rows)


def take_off(connection: Connection, thing_id: str) -> None:
    """Take all tags off a thing."""
    connection.execute(delete(tagged).where(tagged.c.thing_id == thing_id))


def of_things(connection: Connection, thing_ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
    """Return the tags of things by the things' ids, in the order of their names."""
    if not thing_ids:
        return {}
    (found,) = ask_together(connection, OF_THINGS.of(ids=thing_ids))
    return by_thing(found)


def by_thing(rows: Sequence[Any]) -> dict[str, list[Row[Any]]]:
    """Return the rows of ``OF_THINGS`` by the things' ids."""
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in rows:
        found[row.thing_id].append(row)
    return found


def has(thing_id: ColumnElement[str], tag_id: str) -> ColumnElement[bool]:
    """Match what has a tag."""
    one = tagged.alias()  # the query around it may look at other tags
    return exists().where(one.c.tag_id == tag_id, one.c.thing_id == thing_id)


def named(connection: Connection, app_id: str, words: Sequence[str]) -> list[str]:
    """Return the ids that are meant by ids or names of tags; what is neither stays as it is."""
    query = select(tags.c.id, tags.c.name).where(tags.c.app_id == app_id, tags.c.name.in_(words))
    by_name = {name: tag_id for tag_id, name in connection.execute(query).all()} if words else {}
    return [by_name.get(word, word) for word in words]


def _count(connection: Connection, app_id: str) -> int:
    query = select(func.count()).select_from(tags).where(tags.c.app_id == app_id)
    return int(connection.execute(query).scalar_one())


def _check_name(connection: Connection, app_id: str, name: str, but: str | None) -> None:
    query = select(tags.c.id).where(tags.c.app_id == app_id, tags.c.name == name)
    found = connection.scalars(query).first()
    if found is not None and found != but:
        raise Conflict("There is a tag of this name already: use it, or choose another name")
