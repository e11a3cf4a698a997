"""Looking at collections and records: their rows, and what stands around them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, bindparam, select

from insula.collections import record_repository, repository
from insula.collections.render import (
    Around,
    collection_members,
    config_raw,
    followed,
    record_members,
)
from insula.collections.repository import Shown
from insula.collections.rows import Config, RecordRow, RuleRow
from insula.collections.services import RecordServices
from insula.kit import json
from insula.kit.clock import iso
from insula.kit.json import Raw
from insula.runs.reading import Stored, look_many, stored_many
from insula.runs.render import run_members
from insula.runs.rows import run_row
from insula.storage.tables import keys, runs, workflows
from insula.storage.together import Asked, Question, ask_together
from insula.tags import repository as tags
from insula.web.auth import unknown
from insula.workflows import repository as workflow_repository
from insula.workflows.render import discovered_bytes, workflow_bytes

LIST_MAX = 32 * 1024 * 1024
"""Bytes of one page of records; it ends before the record that is beyond."""
_RUNS_AT_ONCE = 100
_LATEST = Question(
    lambda among: select(workflows.c.id, workflows.c.latest_version_id).where(
        among(workflows.c.id, "ids"), workflows.c.app_id == bindparam("app")
    )
)


async def collection_bytes(services: RecordServices, app_id: str, collection_id: str) -> bytes:
    """Encode ``ExtendedCollectionSchema``.

    Raises:
        NotFound: there is no such collection.
    """
    query = partial(repository.show, app_id=app_id, collection_id=collection_id)
    shown = await services.runs.database.read(query)
    if shown is None:
        raise unknown()
    config = await extended_config(services, app_id, shown.config)
    return json.encode(collection_members(shown, base_of(services), config))


def listed(connection: Connection, shown: Sequence[Shown], base: str) -> list[dict[str, Any]]:
    """Make ``CollectionSchema`` of each."""
    app_id = shown[0].row.app_id if shown else ""
    raws = configs_raw(connection, app_id, {one.config.id: one.config for one in shown})
    return [collection_members(one, base, raws[one.config.id]) for one in shown]


def configs_raw(connection: Connection, app_id: str, configs: dict[str, Config]) -> dict[str, Raw]:
    """Encode configs of an app, with the versions that rules on its own workflows mean now."""
    (latest,) = ask_together(connection, _latest(app_id, configs))
    return _raws(configs, latest)


def _latest(app_id: str, configs: dict[str, Config]) -> Asked:
    wanted = {rule["workflow_id"] for config in configs.values() for rule in config.rules}
    return _LATEST.of(ids=sorted(wanted), app=app_id)


def _raws(configs: dict[str, Config], latest: Sequence[Any]) -> dict[str, Raw]:
    versions = {row.id: row.latest_version_id for row in latest}
    return {key: config_raw(config, followed(config, versions)) for key, config in configs.items()}


def base_of(services: RecordServices) -> str:
    """Return where this installation is."""
    return services.runs.files.store.urls.base


def _key_names(connection: Connection, ids: Iterable[str]) -> dict[str, str]:
    if not (wanted := sorted(ids)):
        return {}
    query = select(keys.c.id, keys.c.name).where(keys.c.id.in_(wanted))
    return {row.id: row.name for row in connection.execute(query).all()}


def _newer(connection: Connection, run_ids: Sequence[str]) -> dict[str, Any]:
    """Return what has become of runs that had not ended when their records were told."""
    found: dict[str, Any] = {}
    columns = (runs.c.id, runs.c.status, runs.c.started_at, runs.c.updated_at)
    for at in range(0, len(run_ids), 500):
        query = select(*columns).where(runs.c.id.in_(run_ids[at : at + 500]))
        for run_id, status, started, updated in connection.execute(query).all():
            found[run_id] = {
                "status": status,
                "started_at": None if started is None else iso(started),
                "updated_at": iso(updated),
            }
    return found


class Seen(NamedTuple):
    """Records as they are shown, and what stands around them, of the same moment."""

    rows: list[RecordRow]
    around: Around


def see_many(
    connection: Connection, rows: Sequence[RecordRow], base: str, within: int = LIST_MAX
) -> Seen:
    """Read what stands around as many records, from the first on, as are ``within`` bytes, and
    around one in any case."""
    ids = [row.id for row in rows]
    held, named, labels = ask_together(
        connection,
        record_repository.SIZES.of(ids=ids),
        repository.NAMED_CONFIGS.of(ids=sorted({row.config_id for row in rows})),
        tags.OF_THINGS.of(ids=ids),
    )
    fits = record_repository.fitting(rows, held, within)
    known = repository.with_lost(connection, fits, repository.configs_of(named))
    configs = {config.id: config for config, _ in known}
    ruled, latest = ask_together(
        connection,
        record_repository.RULES.of(ids=[row.id for row in fits]),
        _latest(rows[0].app_id if rows else "", configs),
    )
    rules = record_repository.by_record(ruled)
    running = [rule.run_id for held in rules.values() for rule in held if rule.status == "RUNNING"]
    around = Around(
        base,
        rules,
        _raws(configs, latest),
        {config.collection_id: name for config, name in known},
        _key_names(connection, {row.created_by for row in fits if row.created_by}),
        tags.by_thing(labels),
        _newer(connection, [run_id for run_id in running if run_id is not None]),
    )
    return Seen(fits, around)


async def encode_many(
    services: RecordServices, seen: Seen, within: int = LIST_MAX, *, verbose: bool = False
) -> list[bytes]:
    """Encode ``RecordSchema`` of as many records, from the first on, as are ``within`` bytes, and
    of one in any case; ``verbose``: with the rules' runs, whole."""
    rows, found = seen
    encoded: list[bytes] = []
    for row in rows:
        mine = found
        if verbose:
            rules = {row.id: found.rules.get(row.id, [])}
            mine = await _with_runs(services, row.app_id, replace(found, rules=rules))
        one = json.encode(record_members(row, mine))
        within -= len(one)
        if within < 0 and encoded:
            break
        encoded.append(one)
    return encoded


async def record_bytes(
    services: RecordServices,
    app_id: str,
    collection_id: str | None,
    record_id: str,
    *,
    verbose: bool = False,
    extended: bool = False,
) -> bytes:
    """Encode ``RecordSchema``, or ``ExtendedRecordSchema``.

    Raises:
        NotFound: there is no such record.
    """

    def query(connection: Connection) -> tuple[RecordRow, Around, Config] | None:
        row = record_repository.find(connection, app_id, collection_id, record_id)
        if row is None:
            return None
        config = repository.config_of(connection, row)
        return row, see_many(connection, [row], base_of(services)).around, config

    read = await services.runs.database.read(query)
    if read is None:
        raise unknown()
    row, found, config = read
    if verbose:
        found = await _with_runs(services, app_id, found)
    shown = record_members(row, found, extended=extended)
    if extended:
        shown["config"] = await extended_config(services, app_id, config)
    return json.encode(shown)


async def _with_runs(services: RecordServices, app_id: str, found: Around) -> Around:
    """Read the runs of the rules that are shown, some at a time."""
    held: list[RuleRow] = [rule for rules in found.rules.values() for rule in rules]
    ids = [rule.run_id for rule in held if rule.run_id is not None]
    whole: dict[str, Any] = {}
    for at in range(0, len(ids), _RUNS_AT_ONCE):
        some = ids[at : at + _RUNS_AT_ONCE]
        query = select(runs).where(runs.c.id.in_(some), runs.c.app_id == app_id)
        stored = await services.runs.database.read(partial(_stored, query=query))
        for look in await look_many(services.runs, stored, app_id):
            whole[look.row.id] = run_members(look.row, look.state, look.input, look.sight)
    return replace(found, runs={**found.runs, **whole})


def _stored(connection: Connection, query: Select[Any]) -> list[Stored]:
    return stored_many(connection, [run_row(row) for row in connection.execute(query).all()])


async def extended_config(services: RecordServices, app_id: str, config: Config) -> Raw:
    """Encode ``ExtendedCollectionConfigSchema``: with each rule's workflow and version."""
    resolver = services.runs.resolver
    wanted = sorted({rule["workflow_id"] for rule in config.rules})
    latest: dict[str, str | None] = {}
    seen: dict[str, str | None] = {}
    for workflow_id in wanted:
        facts = await resolver.facts(workflow_id)
        if facts is not None and facts.app_id == app_id:
            latest[workflow_id] = seen[workflow_id] = facts.latest_version_id
        elif facts is not None and await resolver.may_run(
            app_id, workflow_id, facts.public_version_id
        ):
            latest[workflow_id] = seen[workflow_id] = facts.public_version_id
    rules = followed(config, latest)
    shown = await services.runs.database.read(lambda c: _workflows(c, app_id, seen))
    ids = {rule["workflow_version_id"] for rule in rules}
    ids -= await _hidden(services, app_id, rules)
    versions = await resolver.versions_for_runs(ids, app_id)
    return config_raw(
        config,
        [
            {
                **rule,
                "workflow": shown.get(rule["workflow_id"]) or _gone(rule),
                "workflow_version": versions.get(rule["workflow_version_id"])
                or _gone_version(rule, app_id),
            }
            for rule in rules
        ],
    )


async def _hidden(
    services: RecordServices, app_id: str, rules: Sequence[dict[str, Any]]
) -> set[str]:
    """Return the versions that rules name and that this app could not run itself: of another's
    workflow those that are withdrawn, or all, where it is closed or this app is blocked."""
    resolver = services.runs.resolver
    named = {(rule["workflow_id"], rule["workflow_version_id"]) for rule in rules}
    hidden: set[str] = set()
    for workflow_id, version_id in sorted(named):
        facts = await resolver.facts(workflow_id)
        if facts is not None and facts.app_id == app_id:
            continue
        if not await resolver.may_run(app_id, workflow_id, version_id):
            hidden.add(version_id)
    return hidden


def _workflows(connection: Connection, app_id: str, seen: dict[str, str | None]) -> dict[str, Raw]:
    """Encode workflows as this app may see them, by their ids."""
    columns = workflow_repository.COLUMNS
    query = select(*columns).where(workflows.c.id.in_(sorted(seen)))
    rows = [workflow_repository.Workflow(*row) for row in connection.execute(query).all()]
    pairs = [(row, seen[row.id]) for row in rows]
    found = {}
    for shown in workflow_repository.complete(connection, pairs, app_id):
        own = shown.workflow.app_id == app_id
        text = workflow_bytes(shown) if own else discovered_bytes(shown)
        found[shown.workflow.id] = Raw(text)
    return found


_EMPTY: dict[str, Any] = {
    "key": "",
    "input": None,
    "input_default": None,
    "input_options": None,
    "steps": [],
}


def _gone(rule: dict[str, Any]) -> dict[str, Any]:
    """Stand for a workflow that this app does not find any more."""
    return {
        "id": rule["workflow_id"],
        "name": rule["name"],
        "description": None,
        "app": {"id": "", "name": "", "verified": False},
        "version": None,
        "tags": [],
        "template_id": None,
        "runs_count": 0,
        "retention": None,
        "enabled": False,
        "deleted": True,
        "created_at": None,
        "updated_at": None,
        **_EMPTY,
    }


def _gone_version(rule: dict[str, Any], app_id: str) -> dict[str, Any]:
    """Stand for a version that this app does not find any more."""
    return {
        "id": rule["workflow_version_id"],
        "app_id": app_id,
        "workflow_id": rule["workflow_id"],
        "description": None,
        "version": 0,
        "notes": None,
        "created_at": None,
        **_EMPTY,
    }
