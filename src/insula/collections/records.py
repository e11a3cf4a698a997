"""Making and changing records: their inputs, their rules, their tags."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection

from insula.collections import analysis, mappings, record_repository, repository
from insula.collections.analysis import Chosen
from insula.collections.entities import entity_of, given_by
from insula.collections.rows import CollectionRow, Config, RecordRow, RuleRow
from insula.collections.rule_inputs import taken_in
from insula.collections.schemas import CreateRecord, Mode, UpdateRecord
from insula.collections.services import RecordServices
from insula.errors import Conflict
from insula.files.repository import FileRow, delete_file
from insula.files.store import Also
from insula.kit import json
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.tags import repository as tags
from insula.web.auth import Principal, unknown
from insula.web.idempotency import Idempotency, claim, made_before

_log = structlog.get_logger(__name__)

LOST = "the rules that the record stood on are gone; update-rules gives it those of its collection"
"""What is said of rules whose config the database does not hold any more."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A record with its rules and their config."""

    row: RecordRow
    rules: list[RuleRow]
    config: Config


def stored(
    connection: Connection, app_id: str, collection_id: str | None, record_id: str
) -> Stored | None:
    """Read a record of an app with its rules."""
    row = record_repository.find(connection, app_id, collection_id, record_id)
    if row is None:
        return None
    config = repository.config_of(connection, row)
    rules = record_repository.rules_of(connection, [row.id]).get(row.id, [])
    return Stored(row, rules, config)


async def read(
    services: RecordServices, app_id: str, collection_id: str | None, record_id: str
) -> Stored:
    """Read a record of an app.

    Raises:
        NotFound: there is none.
    """
    query = partial(stored, app_id=app_id, collection_id=collection_id, record_id=record_id)
    found = await services.runs.database.read(query)
    if found is None:
        raise unknown()
    return found


async def create(
    services: RecordServices,
    principal: Principal,
    collection_id: str,
    fields: CreateRecord,
    idempotency: Idempotency | None = None,
    *,
    source: str | None = None,
    from_text: bool = False,
) -> str:
    """Make a record, and with ``run`` begin to analyse it; return its id.

    Raises:
        BadInput: an input names no rule, holds a file that cannot be used, or, with ``run``, lacks
            anything.
        NotFound: there is no such collection.
        Conflict: the rules were changed in the meantime.
    """
    database, app_id = services.runs.database, principal.app_id
    earlier = await made_before(database, principal, idempotency)
    if earlier is not None:
        return earlier
    taken = await database.read(lambda c: _collection(c, app_id, collection_id))
    if taken is None:
        raise unknown()
    collection, config = taken
    record_id = new_id("rec")
    entity = None if fields.entity is None else entity_of(collection, fields.entity, record_id)
    given = dict(fields.rules or {})
    if entity is not None:
        known = {rule["key"] for rule in config.rules}
        seen = given_by(collection, entity)
        given = mappings.merged({key: seen[key] for key in known & seen.keys()}, given)
    blank = _blank(principal, collection, record_id, fields, source, entity)
    async with _storing(services, blank, is_new=True) as also:
        rules = await taken_in(services, blank, config, [], given, from_text=from_text, also=also)
        chosen = await _chosen(services, blank, Stored(blank, rules, config), fields.run)
        unit = partial(_store, services, principal, fields, blank, rules, chosen, idempotency)
        made = await database.write(unit)
    if chosen is not None:
        services.wake(made)
    return made


def _collection(
    connection: Connection, app_id: str, collection_id: str
) -> tuple[CollectionRow, Config] | None:
    row = repository.find(connection, app_id, collection_id)
    config = None if row is None else repository.config(connection, row.config_id)
    return None if row is None or config is None else (row, config)


def _blank(
    principal: Principal,
    collection: CollectionRow,
    record_id: str,
    fields: CreateRecord,
    source: str | None,
    entity: Mapping[str, Any] | None,
) -> RecordRow:
    now = now_ms()
    return RecordRow(
        id=record_id,
        app_id=principal.app_id,
        collection_id=collection.id,
        config_id=collection.config_id,
        name=fields.name,
        status="DRAFT",
        source=source or ("TRIGGER" if entity is not None else fields.source),
        rules_count=0,
        pass_count=0,
        fail_count=0,
        warn_count=0,
        analysis=0,
        entity=None if entity is None else json.encode(entity),
        created_by=None if source == "WORKFLOW" else principal.key_id,
        cancel_requested_at=None,
        cancel_requested_by=None,
        created_at=now,
        updated_at=now,
    )


def _store(
    services: RecordServices,
    principal: Principal,
    fields: CreateRecord,
    row: RecordRow,
    rules: list[RuleRow],
    chosen: Chosen | None,
    idempotency: Idempotency | None,
    connection: Connection,
) -> str:
    if idempotency is not None:
        earlier = claim(connection, principal, idempotency, row.id)
        if earlier is not None:
            return earlier
    _check_current(_collection(connection, row.app_id, row.collection_id), row.config_id)
    for name, number in record_repository.tally(rules).items():
        setattr(row, name, number)
    record_repository.store(connection, row, rules)
    if fields.tags_ids:
        tags.put_on(connection, row.app_id, row.id, fields.tags_ids, "tags_ids")
    services.told(connection, "record.created", row)
    if chosen is not None:
        analysis.begin(connection, row, rules, chosen)
    return row.id


async def update(
    services: RecordServices,
    principal: Principal,
    collection_id: str | None,
    record_id: str,
    fields: UpdateRecord,
    *,
    from_text: bool = False,
    also: Callable[[Connection], object] | None = None,
) -> int:
    """Change a record's name, tags or inputs, and with ``run`` begin to analyse it; ``also`` is
    done in the same unit. Returns the number of its last analysis.

    Raises:
        BadInput: as ``create``.
        NotFound: there is no such record.
        Conflict: its rules are being run, or it was changed meanwhile.
    """
    before = await read(services, principal.app_id, collection_id, record_id)
    works = fields.rules is not None or fields.run is not None
    if works:
        _check_rests(before.row)
        _check_there(before.config)

    def unit(connection: Connection, after: Stored, chosen: Chosen | None) -> int:
        row = record_repository.find(connection, principal.app_id, collection_id, record_id)
        if row is None:
            raise unknown()
        if works:
            check_unchanged(row, before.row)
        for rule in _changed(before, after):
            record_repository.change_rule(connection, row.id, rule.key, {"input": rule.input})
        given = fields.model_fields_set
        record_repository.change(connection, row, {"name": fields.name} if "name" in given else {})
        if fields.tags_ids is not None:
            tags.put_on(connection, row.app_id, row.id, fields.tags_ids, "tags_ids")
        if chosen is not None:
            analysis.begin(connection, row, after.rules, chosen)
        if also is not None:
            also(connection)
        return row.analysis

    async with _storing(services, before.row) as file_too:
        after = await _after(services, before, fields, file_too, from_text=from_text)
        chosen = await _chosen(services, before.row, after, fields.run)
        number = await services.runs.database.write(partial(unit, after=after, chosen=chosen))
    if chosen is not None:
        services.wake(record_id)
    return number


async def _after(
    services: RecordServices, before: Stored, fields: UpdateRecord, also: Also, *, from_text: bool
) -> Stored:
    """Return a record with the inputs that are sent."""
    if fields.rules is None:
        return before
    config, held = before.config, before.rules
    rules = await taken_in(
        services, before.row, config, held, fields.rules, from_text=from_text, also=also
    )
    return Stored(before.row, rules, before.config)


def _changed(before: Stored, after: Stored) -> list[RuleRow]:
    inputs = {rule.key: rule.input for rule in before.rules}
    return [rule for rule in after.rules if rule.input != inputs.get(rule.key)]


async def run(
    services: RecordServices,
    principal: Principal,
    collection_id: str | None,
    record_id: str,
    mode: Mode,
    *,
    also: Callable[[Connection], object] | None = None,
) -> int:
    """Begin to analyse a record: all of its rules, or those that changed; return the number of the
    analysis.

    Raises:
        BadInput: an input lacks anything; one entry for each.
        NotFound, Conflict: as ``update``.
    """
    fields = UpdateRecord(run=mode)
    return await update(services, principal, collection_id, record_id, fields, also=also)


async def reset(
    services: RecordServices, principal: Principal, collection_id: str | None, record_id: str
) -> None:
    """Clear a record's results; its inputs stay.

    Raises:
        NotFound, Conflict: as ``update``.
    """

    def unit(connection: Connection) -> None:
        found = stored(connection, principal.app_id, collection_id, record_id)
        if found is None:
            raise unknown()
        _check_rests(found.row)
        keys = [rule.key for rule in found.rules]
        record_repository.clear(connection, record_id, keys, analysis.CLEARED)
        for rule in found.rules:
            rule.status = "DRAFT"
        tally = record_repository.tally(found.rules)
        changed = {"status": "DRAFT", **analysis.UNCANCELLED, **tally}
        record_repository.change(connection, found.row, changed)

    await services.runs.database.write(unit)


async def update_rules(
    services: RecordServices, principal: Principal, collection_id: str | None, record_id: str
) -> None:
    """Let a record stand on the rules that its collection has now.

    A rule that stays keeps its verdict, and of its input what is not its default's; ``changed``
    runs it if it differs.

    Raises:
        NotFound, Conflict: as ``update``; the collection's rules were changed meanwhile.
    """
    before = await read(services, principal.app_id, collection_id, record_id)
    _check_rests(before.row)
    taken = await services.runs.database.read(
        lambda c: _collection(c, principal.app_id, before.row.collection_id)
    )
    if taken is None:
        raise unknown()
    config = taken[1]
    kept = {each["key"] for each in config.rules}
    held = [rule for rule in before.rules if rule.key in kept]

    def unit(connection: Connection, rules: list[RuleRow]) -> None:
        row = record_repository.find(connection, principal.app_id, collection_id, record_id)
        if row is None:
            raise unknown()
        check_unchanged(row, before.row)
        _check_current(_collection(connection, row.app_id, row.collection_id), config.id)
        record_repository.remove_rules(connection, row.id, [rule.key for rule in before.rules])
        record_repository.store_rules(connection, rules)
        asked = [rule.status for rule in rules if not rule.disabled]
        changed = {"config_id": config.id, **record_repository.tally(rules)}
        if asked:  # what was cancelled, has failed, or was not run yet may be gone
            waits = "DRAFT" in asked
            changed["status"] = "DRAFT" if waits else analysis.ended_as(rules)
            changed |= analysis.UNCANCELLED
        record_repository.change(connection, row, changed)
        repository.drop_config(connection, before.row.config_id)

    if config.id != before.row.config_id:
        held_on = None if before.config.is_lost else before.config
        async with _storing(services, before.row) as also:
            rules = await taken_in(
                services, before.row, config, held, {}, held_on=held_on, also=also
            )
            await services.runs.database.write(partial(unit, rules=rules))


def _check_rests(row: RecordRow) -> None:
    if row.is_live:
        raise Conflict("The record's rules are being run: wait, or cancel the record first")


def _check_there(config: Config) -> None:
    if config.is_lost:
        raise Conflict(f"The record cannot be analysed: {LOST}")


def _check_current(taken: tuple[CollectionRow, Config] | None, config_id: str) -> None:
    """Refuse to let a record stand on rules that its collection has no more, for they are dropped
    with the last that stands on them."""
    if taken is None:
        raise unknown()
    if taken[0].config_id != config_id:
        raise Conflict("The rules were changed meanwhile; try again", retry_after=1)


def check_unchanged(row: RecordRow, before: RecordRow) -> None:
    """Refuse to go on from what was read if the record is another by now.

    Raises:
        Conflict: it is.
    """
    _check_rests(row)
    if row.updated_at != before.updated_at:
        raise Conflict("The record was changed meanwhile: read it again")


async def _chosen(
    services: RecordServices, record: RecordRow, after: Stored, mode: str | None
) -> Chosen | None:
    if mode is None:
        return None
    return await analysis.choose(services.runs, record.app_id, after.config, after.rules, mode)


@asynccontextmanager
async def _storing(
    services: RecordServices, record: RecordRow, *, is_new: bool = False
) -> AsyncIterator[Also]:
    """Give what is done with each file that is stored for a record; if what it is stored for does
    not come about, the file goes. For a record that was deleted meanwhile none is stored."""
    stored: set[str] = set()

    def also(connection: Connection, file: FileRow) -> None:
        if not is_new and record_repository.by_id(connection, record.id) is None:
            raise unknown()
        stored.add(file.id)

    try:
        yield also
    except BaseException:
        if stored:
            drop = partial(_drop_files, record=record, file_ids=stored)
            await services.runs.files.remove(await services.runs.database.write(drop))
        raise


def _drop_files(connection: Connection, *, record: RecordRow, file_ids: set[str]) -> list[str]:
    """Remove those of some files that no input of a record names; for a commit may have been made
    of which nobody was told."""
    rules = record_repository.rules_of(connection, [record.id]).get(record.id, [])
    named = {each for each in file_ids for rule in rules if each.encode() in (rule.input or b"")}
    return remove_files(connection, record.app_id, sorted(file_ids - named))


def remove_files(connection: Connection, app_id: str, file_ids: Sequence[str]) -> list[str]:
    """Remove the rows of files; return the keys of the bytes to delete then."""
    return [key for file_id in file_ids for key in delete_file(connection, app_id, file_id)]
