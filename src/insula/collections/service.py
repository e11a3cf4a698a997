"""``COLLECTIONS.*``: what *service* steps do with records. They are those of the app whose run it
is; another app's workflow finds only what it is given the ids of.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection

from insula.collections import records, repository
from insula.collections.cancel import cancel, stop
from insula.collections.listing import RecordFilter, list_records
from insula.collections.reading import (
    LIST_MAX,
    Seen,
    base_of,
    encode_many,
    record_bytes,
    see_many,
)
from insula.collections.remove import remove_record
from insula.collections.schemas import CreateRecord, Mode, UpdateRecord
from insula.collections.services import RecordServices
from insula.engine.failures import StepFailure, plain
from insula.engine.ports import Activity, ServiceCall
from insula.errors import InsulaError, NotFound
from insula.files.actions_input import Given
from insula.kit import json
from insula.kit.json import Raw
from insula.kit.tasks import uninterrupted
from insula.web.auth import Principal
from insula.web.body import invalid
from insula.web.idempotency import Idempotency, claim, made_before
from insula.web.pagination import Page

M = TypeVar("M", bound=BaseModel)

FOUND_MAX = 100
"""Records that one search returns."""

_STATUSES = ("ALL", "DRAFT", "QUEUED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED")


class RecordActions:
    """Implements ``engine.ports.Services`` for the type COLLECTIONS."""

    def __init__(self, services: RecordServices) -> None:
        self._services = services
        self._actions: dict[str, Callable[[ServiceCall, Given], Awaitable[Raw]]] = {
            "RECORDS_SEARCH": self._search,
            "RECORDS_GET": self._get,
            "RECORDS_CREATE": self._create,
            "RECORDS_UPDATE": self._update,
            "RECORDS_DELETE": self._delete,
            "RECORDS_ANALYZE": self._analyze,
            "RECORDS_CANCEL": self._cancel,
            "RULES_UPDATE": self._update_rule,
            "RULES_UPDATE_ALL": self._update_rules,
        }

    async def call(self, call: ServiceCall, activity: Activity) -> Raw:
        """Do it; return what the step gives. Raises ``StepFailure``."""
        action = self._actions.get(call.action)
        if action is None:
            known = ", ".join(sorted(self._actions))
            raise StepFailure(
                f"There is no action COLLECTIONS.{plain(call.action, 60)}; there are: {known}",
                "not_available",
            )
        activity.effect_possible = call.action not in ("RECORDS_SEARCH", "RECORDS_GET")
        try:
            output = await action(call, Given(call.input))
        except ValidationError as error:
            raise StepFailure(invalid(error).message, "input") from None
        except InsulaError as error:
            told = "; ".join(each.message for each in error.errors[:3])
            words = f"{error.message}: {told}" if told else error.message
            raise StepFailure(words, "input") from error
        activity.effect_possible = False
        return output

    async def _search(self, call: ServiceCall, given: Given) -> Raw:
        collection_id = given.optional("collection_id")
        if collection_id is None and call.workflow_app_id != call.app_id:
            raise StepFailure("collection_id is missing: this is another app's workflow", "input")
        status = given.choice("status", _STATUSES, "ALL")
        wanted = RecordFilter(
            app_id=call.app_id,
            collection_id=collection_id,
            search=given.optional("search"),
            status=None if status == "ALL" else status,
            tag_ids=_tag_ids(given, "tag_ids") or (),
        )

        def query(connection: Connection) -> tuple[int, Seen]:
            known = collection_id is None or repository.find(connection, call.app_id, collection_id)
            if not known:
                raise NotFound(f"{plain(collection_id or '', 60)} is no collection of this app")
            page = Page(take=FOUND_MAX)
            rows = list_records(connection, wanted, page).rows
            return len(rows), see_many(connection, rows, base_of(self._services))

        number, seen = await self._services.runs.database.read(query)
        shown = await encode_many(self._services, seen)
        if len(shown) < number:
            words = f"The records that match have more than {LIST_MAX:,} bytes; search for fewer"
            raise StepFailure(words, "limit_output")
        return Raw(b"[" + b",".join(shown) + b"]")

    async def _get(self, call: ServiceCall, given: Given) -> Raw:
        return await self._shown(call, given, given.text("record_id"))

    async def _shown(self, call: ServiceCall, given: Given, record_id: str) -> Raw:
        collection_id = given.optional("collection_id")
        return Raw(await record_bytes(self._services, call.app_id, collection_id, record_id))

    async def _create(self, call: ServiceCall, given: Given) -> Raw:
        fields = _checked(
            CreateRecord,
            name=given.optional("name"),
            run=given.optional("run"),
            tags_ids=_tag_ids(given, "tags_ids"),
            rules=_object(given, "rules"),
        )
        made = await records.create(
            self._services,
            _caller(call),
            given.text("collection_id"),
            fields,
            _once(call),
            source="WORKFLOW",
        )
        return await self._shown(call, given, made)

    async def _update(self, call: ServiceCall, given: Given) -> Raw:
        values = {
            "name": given.optional("name"),
            "tags_ids": _tag_ids(given, "tag_ids"),
            "rules": _object(given, "rules"),
        }
        return await self._change(call, given, values)

    async def _update_rule(self, call: ServiceCall, given: Given) -> Raw:
        rules = {given.text("rule_key"): _object(given, "rule_input")}
        return await self._change(call, given, {"rules": rules})

    async def _update_rules(self, call: ServiceCall, given: Given) -> Raw:
        return await self._change(call, given, {"rules": _object(given, "rules") or {}})

    async def _change(self, call: ServiceCall, given: Given, values: dict[str, Any]) -> Raw:
        record_id = given.text("record_id")
        sent = {name: value for name, value in values.items() if value is not None}
        fields = _checked(UpdateRecord, **sent)
        collection_id = given.optional("collection_id")
        await records.update(self._services, _caller(call), collection_id, record_id, fields)
        return await self._shown(call, given, record_id)

    async def _delete(self, call: ServiceCall, given: Given) -> Raw:
        record_id, database = given.text("record_id"), self._services.runs.database
        key, caller = _once(call), _caller(call)
        begun = await made_before(database, caller, key)
        if begun is None:
            # Found first: what an earlier attempt deleted is gone, what never was is an error.
            await self._get(call, given)
            note = partial(claim, principal=caller, idempotency=key, resource_id=record_id)
            await database.write(note)
        try:
            await remove_record(self._services, caller, given.optional("collection_id"), record_id)
        except NotFound:
            if begun is None:
                raise
        return json.raw({"record_id": record_id, "deleted": True})

    async def _cancel(self, call: ServiceCall, given: Given) -> Raw:
        record_id = given.text("record_id")
        await cancel(self._services, _caller(call), given.optional("collection_id"), record_id)
        return await self._shown(call, given, record_id)

    async def _analyze(self, call: ServiceCall, given: Given) -> Raw:
        record_id = given.text("record_id")
        mode = cast(Mode, given.choice("rules_scope", ("all", "changed"), "all"))
        waits = given.choice("execution_type", ("sync", "async"), "sync") == "sync"
        if waits and self._services.runs.only_asked:
            words = "Records are analysed by a server, and none holds the data: start one"
            raise StepFailure(words, "not_available")
        key, caller = _once(call), _caller(call)
        begun = await made_before(self._services.runs.database, caller, key)
        if begun is None:
            number = await records.run(
                self._services,
                caller,
                given.optional("collection_id"),
                record_id,
                mode,
                also=partial(claim, principal=caller, idempotency=key, resource_id=record_id),
            )
        else:  # by an attempt that was interrupted: what is going on now is what it began
            found = await records.read(
                self._services, call.app_id, given.optional("collection_id"), record_id
            )
            number = found.row.analysis
        if waits:
            await self._rested(call, record_id, number)
        return await self._shown(call, given, record_id)

    async def _rested(self, call: ServiceCall, record_id: str, analysis: int) -> None:
        """Wait for the end of an analysis. Who is cancelled meanwhile cancels it, unless the
        process goes down: then whoever goes on with the run waits on."""
        try:
            await self._services.rested(record_id, analysis)
        except asyncio.CancelledError:
            live = self._services.runs.live.get(call.run_id)
            kind = None if live is None else live.ports.stop.kind
            if kind != "shutdown" and not self._services.runs.draining:
                await uninterrupted(stop(self._services, record_id, call.run_id, analysis))
            raise


def _caller(call: ServiceCall) -> Principal:
    return Principal(call.app_id, call.run_id)


def _once(call: ServiceCall) -> Idempotency:
    """Return what names a call, however often it is attempted."""
    path, nothing = f"/COLLECTIONS/{call.action}", hashlib.sha256(b"").digest()
    return Idempotency(call.idempotency_key, "CALL", path, nothing)


def _checked(model: type[M], **values: Any) -> M:
    return model.model_validate(values)


def _object(given: Given, name: str) -> Any:
    """Return an object, which may be given as JSON text; ``None`` if it is absent."""
    try:
        value = given.value(name)
    except StepFailure:
        return None
    if isinstance(value, str):
        try:
            value = json.decode(value)
        except json.InvalidJson:
            raise StepFailure(f"{name} must be an object", "input") from None
    if not isinstance(value, dict):
        raise StepFailure(f"{name} must be an object", "input")
    return value


def _tag_ids(given: Given, name: str) -> list[str] | None:
    try:
        value = given.value(name)
    except StepFailure:
        return None
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise StepFailure(f"{name} must be a list of ids of tags", "input")
    return value
