"""What is done with variables: creating, changing, renaming and removing them."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row

from insula.adapters.keyring import KeyRing, Unreadable, sealed_by
from insula.engine.secrets import covers
from insula.errors import BadInput, Conflict, FieldError
from insula.kit.clock import now_ms
from insula.kit.json import decode, encode
from insula.variables import repository
from insula.variables.repository import Value
from insula.variables.schemas import CreateAppVariableSchema, UpdateAppVariableSchema
from insula.web.auth import Principal, unknown
from insula.web.idempotency import Idempotency, claim

MOST: Final = 1_000
"""Variables of one app."""
VALUE_MAX: Final = 64 * 1024
"""Bytes of a plain value."""
PLAIN_MAX: Final = 1024 * 1024
"""Bytes of all plain values of an app together."""
SECRET_LEAST: Final = 8
"""Characters of a secret: a shorter one would be masked in every other word."""
SECRET_MAX: Final = 8 * 1024
"""Bytes of a secret."""
SECRETS_MAX: Final = 64 * 1024
"""Bytes of all secrets of an app together: they are searched for in whatever comes back."""

KIND: Final = "variable"
_CREATED: Final = ("value", "secret", "hosts")


def create(
    connection: Connection,
    ring: KeyRing,
    principal: Principal,
    wanted: CreateAppVariableSchema,
    idempotency: Idempotency | None,
) -> Row[Any]:
    """In a unit: make a variable.

    Raises:
        Conflict: there is one with this key.
        BadInput: its value cannot be used, or there are too many.
    """
    if idempotency and (earlier := claim(connection, principal, idempotency, wanted.key)):
        return _found(connection, principal.app_id, earlier)
    if repository.find(connection, principal.app_id, wanted.key) is not None:
        raise _taken(wanted.key)
    _put(connection, principal.app_id, _value(ring, principal.app_id, wanted.key, wanted, None))
    _check_room(connection, principal.app_id)
    return _found(connection, principal.app_id, wanted.key)


def change(
    connection: Connection, ring: KeyRing, app_id: str, key: str, wanted: UpdateAppVariableSchema
) -> Row[Any]:
    """In a unit: change a variable, and rename it if another key is given.

    Raises:
        NotFound: there is none with this key.
        Conflict: there is one with the new key.
        BadInput: its value cannot be used.
    """
    row = _found(connection, app_id, key)
    renamed = wanted.key if wanted.key not in (None, key) else None
    if renamed is not None:
        if repository.find(connection, app_id, renamed) is not None:
            raise _taken(renamed)
        _put(connection, app_id, _value(ring, app_id, renamed, wanted, row))
        repository.end(connection, app_id, [key], now_ms())
    elif wanted.model_fields_set - {"key"}:
        _put(connection, app_id, _value(ring, app_id, key, wanted, row))
    _check_room(connection, app_id)
    return _found(connection, app_id, renamed or key)


def change_many(
    connection: Connection, ring: KeyRing, app_id: str, wanted: Sequence[CreateAppVariableSchema]
) -> None:
    """In a unit: change the variables that there are, make those that there are not, together.

    Raises:
        BadInput: one cannot be used, or a key stands there twice; nothing is changed.
    """
    held = {row.key: row for row in repository.at(connection, app_id, None)}
    values: dict[str, Value | None] = {}
    for place, one in enumerate(wanted):
        if one.key in values:
            raise _refused("key", "duplicate", f"{one.key} stands there twice", place)
        row = held.get(one.key)
        changes = row is None or one.model_fields_set & set(_CREATED)
        values[one.key] = _value(ring, app_id, one.key, one, row, place) if changes else None
    _put(connection, app_id, *(value for value in values.values() if value is not None))
    _check_room(connection, app_id)


def remove(connection: Connection, app_id: str, key: str) -> None:
    """In a unit: remove a variable.

    Raises:
        NotFound: there is none with this key.
    """
    _found(connection, app_id, key)
    repository.end(connection, app_id, [key], now_ms())


def _found(connection: Connection, app_id: str, key: str) -> Row[Any]:
    row = repository.find(connection, app_id, key)
    if row is None:
        raise unknown()
    return row


def _put(connection: Connection, app_id: str, *values: Value) -> None:
    repository.put(connection, app_id, values, now_ms())


def _value(
    ring: KeyRing,
    app_id: str,
    key: str,
    wanted: UpdateAppVariableSchema,
    row: Row[Any] | None,
    place: int | None = None,
) -> Value:
    was_secret = row is not None and row.value is None
    secret = was_secret if wanted.secret is None else wanted.secret
    text = wanted.value
    if text is None:
        if was_secret and not secret:
            raise _refused("value", "secret", "give a value: a secret's own is not shown", place)
        text = _text(ring, app_id, row)
    _check_value(text, secret, place)
    hosts = None if row is None or row.hosts is None else bytes(row.hosts)
    if "hosts" in wanted.model_fields_set:
        hosts = encode(wanted.hosts) if wanted.hosts else None
    if hosts is not None and not secret:
        if wanted.hosts:
            raise _refused("hosts", "secret", "only a secret has hosts that it may go to", place)
        hosts = None
    if was_secret and wanted.value is None and not _narrows(row, hosts):
        words = "give it anew: what is stored goes to no hosts but those that it has"
        raise _refused("value", "hosts", words, place)
    sealed = ring.seal(text, KIND, app_id, key) if secret else None
    return Value(
        key=key,
        value=None if secret else text.encode(),
        sealed=sealed,
        key_id=None if sealed is None else sealed_by(sealed),
        hosts=hosts,
        created_at=now_ms() if row is None else row.created_at,
    )


def _narrows(row: Row[Any] | None, hosts: bytes | None) -> bool:
    """Whether a secret may go to no other hosts than it might: whoever may change them could read
    it there, and it is shown to nobody."""
    if row is None or row.hosts is None:
        return True
    held: list[str] = decode(bytes(row.hosts))
    wanted: list[str] = [] if hosts is None else decode(hosts)
    return bool(wanted) and all(any(covers(one, each) for one in held) for each in wanted)


def _text(ring: KeyRing, app_id: str, row: Row[Any] | None) -> str:
    if row is None:
        return ""
    if row.value is not None:
        return bytes(row.value).decode()
    try:
        return ring.open(row.sealed, KIND, app_id, row.key)
    except Unreadable as error:
        raise Conflict(f"{row.key}: {error}") from None


def _check_value(text: str, secret: bool, place: int | None) -> None:
    size = len(text.encode())
    if secret and len(text.strip()) < SECRET_LEAST:  # which is what is sent in some places
        message = f"a secret has at least {SECRET_LEAST} characters"
        raise _refused("value", "too_short", message, place)
    most = SECRET_MAX if secret else VALUE_MAX
    if size > most:
        what = "a secret" if secret else "a value"
        raise _refused("value", "too_long", f"{what} has at most {most:,} bytes", place)


def _check_room(connection: Connection, app_id: str) -> None:
    held, plain, secret = repository.weigh(connection, app_id)
    if held > MOST:
        raise _refused("key", "too_many", f"an app has at most {MOST:,} variables; remove some")
    if plain > PLAIN_MAX:
        raise _refused(
            "value", "too_long", f"all values of an app together have at most {PLAIN_MAX:,} bytes"
        )
    if secret > SECRETS_MAX:
        raise _refused(
            "value",
            "too_long",
            f"all secrets of an app together have at most {SECRETS_MAX:,} bytes",
        )


def _taken(key: str) -> Conflict:
    return Conflict(f"There is a variable {key} already. Change it with PATCH, or remove it.")


def _refused(field: str, code: str, message: str, place: int | None = None) -> BadInput:
    path = (field,) if place is None else (str(place), field)
    return BadInput(
        f"The variable cannot be stored: {'.'.join(path)}: {message}.",
        [FieldError(path, code, message)],
    )
