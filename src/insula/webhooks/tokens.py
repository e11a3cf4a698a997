"""The tokens in the addresses by which the outside starts runs: one each for a workflow's latest
version and its draft. They are found by their digest, and stored sealed to be shown again.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, delete, select

from insula.adapters.keyring import KeyRing, Unreadable, sealed_by
from insula.errors import Conflict
from insula.kit.clock import now_ms
from insula.storage.dialect import insert
from insula.storage.tables import hook_tokens

Target = Literal["latest", "draft"]
TARGETS: Final[tuple[Target, ...]] = ("latest", "draft")
LENGTH: Final = 43
KIND: Final = "hook"
_BYTES = 32
_KEY = ("workflow_id", "target")


@dataclass(frozen=True, slots=True)
class Goal:
    """What a token starts."""

    app_id: str
    workflow_id: str
    target: str


@dataclass(frozen=True, slots=True)
class Token:
    """A token, in clear."""

    target: str
    text: str
    created_at: int


def goal_of(connection: Connection, token: str) -> Goal | None:
    """Return what a token starts, ``None`` if it is not known."""
    query = select(hook_tokens.c.app_id, hook_tokens.c.workflow_id, hook_tokens.c.target)
    row = connection.execute(query.where(hook_tokens.c.hash == _digest(token))).first()
    return None if row is None else Goal(row.app_id, row.workflow_id, row.target)


def provide(
    connection: Connection, ring: KeyRing, app_id: str, workflow_id: str
) -> Sequence[Token]:
    """In a unit: return a workflow's tokens; those that there are not yet are made.

    Raises:
        Conflict: one cannot be read.
    """
    for target in TARGETS:
        values = _made(ring, app_id, workflow_id, target)
        new = insert(connection, hook_tokens).values(**values)
        connection.execute(new.on_conflict_do_nothing(index_elements=_KEY))
    query = select(hook_tokens).where(hook_tokens.c.workflow_id == workflow_id)
    found = {row.target: row for row in connection.execute(query).all()}
    return [_opened(ring, found[target]) for target in TARGETS]


def rotate(
    connection: Connection, ring: KeyRing, app_id: str, workflow_id: str, target: Target
) -> Token:
    """In a unit: give a workflow another token; the one before starts nothing any more."""
    values = _made(ring, app_id, workflow_id, target)
    changed = {name: value for name, value in values.items() if name not in _KEY}
    new = insert(connection, hook_tokens).values(**values)
    connection.execute(new.on_conflict_do_update(index_elements=_KEY, set_=changed))
    query = select(hook_tokens).where(
        hook_tokens.c.workflow_id == workflow_id, hook_tokens.c.target == target
    )
    return _opened(ring, connection.execute(query).one())


def remove_workflow(connection: Connection, workflow_id: str) -> None:
    """Remove a workflow's tokens."""
    connection.execute(delete(hook_tokens).where(hook_tokens.c.workflow_id == workflow_id))


def _made(ring: KeyRing, app_id: str, workflow_id: str, target: Target) -> dict[str, Any]:
    text = secrets.token_urlsafe(_BYTES)
    sealed = ring.seal(text, KIND, app_id, workflow_id, target)
    return {
        "workflow_id": workflow_id,
        "target": target,
        "app_id": app_id,
        "hash": _digest(text),
        "sealed": sealed,
        "key_id": sealed_by(sealed),
        "created_at": now_ms(),
    }


def _opened(ring: KeyRing, row: Any) -> Token:
    try:
        text = ring.open(bytes(row.sealed), KIND, row.app_id, row.workflow_id, row.target)
    except Unreadable as error:
        raise Conflict(f"The address cannot be read: {error}. Rotate it.") from None
    return Token(row.target, text, row.created_at)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
