"""Making and changing collections."""

from functools import partial

from sqlalchemy import Connection

from insula.collections import repository
from insula.collections.rows import CollectionRow, Config
from insula.collections.schemas import CreateCollection, UpdateCollection
from insula.errors import BadInput, FieldError
from insula.kit.clock import now_ms
from insula.kit.ids import new_id
from insula.storage.database import Database
from insula.tags import repository as tags
from insula.web.auth import Principal, unknown
from insula.web.idempotency import Idempotency, claim


async def create(
    database: Database,
    principal: Principal,
    fields: CreateCollection,
    idempotency: Idempotency | None = None,
) -> str:
    """Make a collection; return its id.

    Raises:
        BadInput: a tag is unknown, or the collection to copy from is.
    """
    return await database.write(
        partial(_create, principal=principal, fields=fields, idempotency=idempotency)
    )


def _create(
    connection: Connection,
    *,
    principal: Principal,
    fields: CreateCollection,
    idempotency: Idempotency | None,
) -> str:
    collection_id = new_id("col")
    if idempotency is not None:
        earlier = claim(connection, principal, idempotency, collection_id)
        if earlier is not None:
            return earlier
    now = now_ms()
    model = _model(connection, principal.app_id, fields.from_collection_id)
    rules, mappings = ([], []) if model is None else (model.rules, model.mappings)
    config = Config(new_id("conf"), collection_id, rules, mappings, now)
    row = CollectionRow(
        id=collection_id,
        app_id=principal.app_id,
        name=fields.name,
        description=fields.description,
        config_id=config.id,
        triggers=b"[]",
        deleting=False,
        created_at=now,
        updated_at=now,
    )
    repository.store(connection, row, config)
    if fields.tags_ids:
        tags.put_on(connection, row.app_id, row.id, fields.tags_ids, "tags_ids")
    return collection_id


def _model(connection: Connection, app_id: str, collection_id: str | None) -> Config | None:
    if collection_id is None:
        return None
    row = repository.find(connection, app_id, collection_id)
    if row is None:
        words = "names no collection of this app"
        error = FieldError(("from_collection_id",), "unknown", words)
        raise BadInput(f"from_collection_id {words}", [error])
    return repository.config(connection, row.config_id)


async def update(
    database: Database, principal: Principal, collection_id: str, fields: UpdateCollection
) -> None:
    """Change a collection's name, description or tags.

    Raises:
        NotFound: there is no such collection.
        BadInput: a tag is unknown.
    """
    given = fields.model_fields_set
    changed: dict[str, object] = {}
    if fields.name is not None:
        changed["name"] = fields.name
    if "description" in given:
        changed["description"] = fields.description

    def unit(connection: Connection) -> None:
        row = repository.find(connection, principal.app_id, collection_id)
        if row is None:
            raise unknown()
        repository.change(connection, row, changed)
        if fields.tags_ids is not None:
            tags.put_on(connection, row.app_id, row.id, fields.tags_ids, "tags_ids")

    await database.write(unit)
