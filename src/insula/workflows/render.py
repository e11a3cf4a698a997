"""Rows as the contract's JSON: stored bodies are copied into answers, never parsed."""

from insula.kit.clock import iso
from insula.kit.json import NULL, Raw, encode, members, raw
from insula.tags.schemas import tag_wire
from insula.workflows.configured import shown_default
from insula.workflows.repository import AppName, Shown
from insula.workflows.version_repository import Version

BODY = ("key", "input", "input_default", "input_options", "steps")
"""The members of a body, in the order of the contract."""

_EMPTY_LIST = Raw(b"[]")
_HIDDEN = {"steps": _EMPTY_LIST}


def body_members(body: bytes, hide_steps: bool = False, outside: bool = False) -> dict[str, Raw]:
    """Split a stored body; with ``hide_steps`` its steps are an empty list. Other apps
    (``outside``) see of what it is configured with what is for them."""
    parts = members(body)
    shown = {name: parts.get(name, NULL) for name in BODY}
    if outside:
        shown["input_default"] = shown_default(parts, closed=hide_steps) or NULL
    return {**shown, **_HIDDEN} if hide_steps else shown


def version_members(
    version: Version, hide_steps: bool = False, outside: bool = False
) -> dict[str, object]:
    """Make ``WorkflowVersionSchema``. To other apps (``outside``) nobody is named as its author."""
    shown: dict[str, object] = {
        "id": version.id,
        "app_id": version.app_id,
        "workflow_id": version.workflow_id,
        "description": version.description,
        "version": version.version,
    }
    if version.rollback_version is not None:
        shown["rollback_version"] = version.rollback_version
    shown["notes"] = version.notes
    if version.created_by is not None and not outside:
        shown["created_by"] = {"id": version.created_by, "name": version.created_by_name}
    shown["created_at"] = iso(version.created_at)
    if version.withdrawn and not outside:
        shown["withdrawn"] = True
    return {**shown, **body_members(version.body, hide_steps, outside)}


def version_raw(version: Version, hide_steps: bool = False, outside: bool = False) -> Raw:
    """Encode ``WorkflowVersionSchema``."""
    return raw(version_members(version, hide_steps, outside))


def app_members(app: AppName) -> dict[str, object]:
    """Make ``AppPublicSchema``."""
    return {"id": app.id, "name": app.name, "verified": app.verified}


def workflow_bytes(shown: Shown) -> bytes:
    """Encode ``WorkflowSchema`` for the app that owns the workflow: its body is the draft."""
    workflow = shown.workflow
    version = shown.version
    return encode(
        {
            **_head(shown, None if version is None else version_members(version)),
            "updated_at": iso(workflow.updated_at),
            **body_members(workflow.body),
            "problems": Raw(workflow.problems),
            "discoverable": workflow.discoverable,
            "open": workflow.open,
            "published_from_version": workflow.published_from_version,
            "caller_limit": workflow.caller_limit,
            "tests_stats": shown.tests_stats,
            "require_tests": bool(workflow.require_tests),
        }
    )


def discovered_bytes(shown: Shown) -> bytes:
    """Encode ``WorkflowSchema`` for everybody: its body is the latest public version's."""
    version = shown.version
    if version is None:
        raise ValueError("a workflow in the catalogue has a version")
    hide = not shown.workflow.open
    return encode(
        {
            **_head(shown, version_members(version, hide, outside=True)),
            "updated_at": iso(version.created_at),
            **body_members(version.body, hide, outside=True),
            "open": shown.workflow.open,
        }
    )


def _head(shown: Shown, version: dict[str, object] | None) -> dict[str, object]:
    workflow = shown.workflow
    return {
        "id": workflow.id,
        "name": workflow.name,
        "description": workflow.description,
        "app": app_members(shown.app),
        "version": version,
        "tags": [tag_wire(tag) for tag in shown.tags],
        "template_id": None,
        "runs_count": shown.runs_count,
        "retention": None if workflow.retention is None else Raw(workflow.retention),
        "enabled": workflow.enabled,
        "deleted": workflow.deleted,
        "created_at": iso(workflow.created_at),
    }


def list_bytes(items: list[bytes]) -> bytes:
    """Join encoded values into one JSON list."""
    return b"[" + b",".join(items) + b"]"
