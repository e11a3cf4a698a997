"""The workflows behind rules: which version runs, and what its input has to be."""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from insula.engine.inputs import Checked, check_input, place
from insula.errors import BadInput, FieldError, InsulaError
from insula.files.resolve import check_number, file_id_in, resolve_file
from insula.files.store import Also, Wanted
from insula.files.wish import Wish
from insula.kit import json
from insula.runs.services import RunServices
from insula.runs.start import definition_of
from insula.workflows.resolve import Runnable

INPUT_MAX = 1024 * 1024
"""Bytes of a rule's input in a record; files are stored beside it."""

_ROOM = 32


async def resolve(
    services: RunServices, app_id: str, workflow_id: str, selector: object
) -> Runnable:
    """Return what a rule of this app runs: its own workflow, or one from the catalogue.

    Raises:
        NotFound, BadInput, Conflict: as ``Resolver.resolve``.
    """
    facts = await services.resolver.facts(workflow_id)
    through_catalogue = facts is None or facts.app_id != app_id
    return await services.resolver.resolve(app_id, workflow_id, selector, through_catalogue)


async def behind(services: RunServices, app_id: str, rule: Mapping[str, Any]) -> Runnable:
    """Return what a stored rule runs now: the latest version, or the one that it pins.

    Raises:
        NotFound, BadInput, Conflict: as ``resolve``.
    """
    selector = None if rule["workflow_use_latest"] else rule["workflow_version_id"]
    return await resolve(services, app_id, rule["workflow_id"], selector)


def digest(rule: Mapping[str, Any], version_id: str | None, given: bytes | None) -> bytes:
    """Return what differs as soon as a rule, its version or its input does."""
    parts = {name: rule.get(name) for name in ("workflow_id", "step_key", "on_success", "on_fail")}
    text = json.encode([parts, version_id]) + b"\0" + canonical(given or b"null")
    return hashlib.sha256(text).digest()


def canonical(encoded: bytes) -> bytes:
    """Return a value as it is compared: members in order, and files by their ids, for what else is
    shown of a file changes while it stays the same."""
    root = [json.decode(encoded)]
    waiting: list[Any] = [root]  # and no recursion: it may be as deep as JSON may be
    while waiting:
        holder = waiting.pop()
        places = holder.items() if isinstance(holder, dict) else enumerate(holder)
        for name, value in list(places):
            if isinstance(value, dict) and "file_url" in value:
                holder[name] = file_id_in(value) or value
            elif isinstance(value, dict | list):
                waiting.append(value)
    return json.encode_sorted(root[0])


@dataclass(frozen=True, slots=True)
class Ready:
    """How a rule's input fares: what it would be run with, and what is wrong with it.

    ``failure`` says why the rule cannot be run, whatever its input.
    """

    key: str
    definition: Mapping[str, Any]
    checked: Checked | None
    ran: bytes | None
    failure: InsulaError | None = None


async def check_rule(
    services: RunServices, app_id: str, rule: Mapping[str, Any], given: bytes | None
) -> Ready:
    """Check the stored input of a rule against what it runs now."""
    value = {} if given is None else json.decode(given)
    try:
        runnable = await behind(services, app_id, rule)
        definition = await _definition(services, runnable, rule)
    except InsulaError as error:
        return Ready(rule["key"], {}, None, None, error)
    checked = check_input(definition, value, runnable.document.input_default or {})
    return Ready(rule["key"], definition, checked, digest(rule, runnable.version_id, given))


async def _definition(
    services: RunServices, runnable: Runnable, rule: Mapping[str, Any]
) -> dict[str, Any]:
    plan = await services.plans.lay_out(runnable, rule["step_key"])
    return definition_of(runnable.document, plan)


async def taken_in(
    services: RunServices,
    app_id: str,
    record_id: str,
    rule: Mapping[str, Any],
    given: Mapping[str, Any] | None,
    *,
    from_text: bool = False,
    also: Also | None = None,
) -> dict[str, Any] | None:
    """Return a rule's input as a record keeps it: over the rule's default, its files stored, its
    text read where it came from a form. What the workflow gives to it, each run takes from the
    version that it runs; what else is wrong with it is told by ``status``. ``also`` is done in the
    unit of each file that is stored.

    Raises:
        BadInput: a file in it cannot be used, or it is too large.
        TooLarge: a file is over the limit.
    """
    default = rule.get("workflow_input_default")
    if given is None and default is None:
        return None
    value: Any = {**(default or {}), **(given or {})}
    try:
        definition = await _definition(services, await behind(services, app_id, rule), rule)
    except InsulaError:  # `status` says so, and what was sent is kept
        return storable(rule["key"], value)
    checked = check_input(definition, value, {}, from_text=from_text)
    value = {name: found for name, found in checked.value.items() if name in value}
    check_number(checked.files, ("rules", rule["key"]))
    for slot in checked.files:
        if slot.path[0] not in value:
            continue
        wanted = Wanted(
            app_id=app_id,
            run_id=record_id,
            visibility=slot.field.visibility or "PRIVATE",
            allowed_types=slot.field.allowed_types,
            wish=Wish(
                bool(slot.field.extract_contents), bool(slot.field.extract_images), whole=True
            ),
            path=("rules", rule["key"], *(str(part) for part in slot.path)),
        )
        stored = await resolve_file(services.files.store, slot.value, wanted, also)
        place(value, slot.path, stored)
    return await asyncio.to_thread(storable, rule["key"], value)


async def defaults(
    services: RunServices, app_id: str, rule: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return what a rule's default may stand as in a record: as it is, and as it is taken in by
    what the rule runs now, with its files by their ids."""
    given = rule.get("workflow_input_default") or {}
    try:
        definition = await _definition(services, await behind(services, app_id, rule), rule)
    except InsulaError:  # as it is, then
        return [given]
    checked = check_input(definition, json.decode(json.encode(given)), {})
    for slot in checked.files:
        place(checked.value, slot.path, _named(services, slot.value))
    return [given, {name: value for name, value in checked.value.items() if name in given}]


def _named(services: RunServices, value: object) -> str | None:
    """Return the id of the file that a value names by its id or address."""
    if isinstance(value, str) and (ours := services.files.store.urls.read(value)) is not None:
        return ours[0]
    return file_id_in(value)


def storable(key: str, value: dict[str, Any]) -> dict[str, Any]:
    """Return an input that can be stored.

    Raises:
        BadInput: it cannot.
    """
    try:
        size = len(json.encode(value))
    except json.InvalidJson as error:
        message = f"cannot be stored: {str(error)[:200]}"
        raise BadInput(f"The input of {key} {message}", [_about(key, "json", message)]) from error
    if size > INPUT_MAX + _ROOM:
        message = f"is over {INPUT_MAX:,} bytes; store files first and name them by their id"
        raise BadInput(f"The input of {key} {message}", [_about(key, "too_long", message)])
    return value


def _about(key: str, code: str, message: str) -> FieldError:
    return FieldError(("rules", key), code, message)
