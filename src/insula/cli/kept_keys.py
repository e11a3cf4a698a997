"""What the command line keeps in a data folder, readable by its owner alone.

``cli.json`` holds the keys of the apps made there, so that a newcomer need not export one;
``admin.key`` is the installation's admin key where the environment names none; ``server.json``
says where the server that holds the folder listens.
"""

import os
import secrets
from pathlib import Path

import msgspec

from insula.cli.failures import CommandFailed, ExitCode, usage
from insula.kit.folders import sync

_NEW_APP = "Make one with `insula apps create NAME --data DIR`, or set INSULA_KEY."


class KeptApp(msgspec.Struct):
    """An app and the key that was shown when it was made."""

    app_id: str
    name: str
    key: str


class _Kept(msgspec.Struct):
    apps: list[KeptApp] = []
    current: str | None = None


class Server(msgspec.Struct):
    """A server that holds the folder."""

    pid: int
    address: str


def keep(data: Path, app: KeptApp) -> None:
    """Keep an app's key; the first one kept is the one that is used unless another is named."""
    kept = _read(data)
    kept.apps.append(app)
    kept.current = kept.current or app.app_id
    write_private(data / "cli.json", msgspec.json.encode(kept))


def drop(data: Path, app_id: str) -> None:
    """Forget the key of an app that is gone."""
    kept = _read(data)
    left = [app for app in kept.apps if app.app_id != app_id]
    if len(left) == len(kept.apps):
        return
    kept.apps = left
    if kept.current == app_id:
        kept.current = left[0].app_id if left else None
    write_private(data / "cli.json", msgspec.json.encode(kept))


def find_key(data: Path, selector: str | None) -> str:
    """Return the key of the app with this id or name, or of the current one.

    Raises:
        CommandFailed: there is none, or several have this name.
    """
    kept = _read(data)
    wanted = selector or kept.current
    if wanted is None:
        raise CommandFailed(f"No key is kept in {data}.", ExitCode.NOT_ALLOWED, _NEW_APP)
    found = [app for app in kept.apps if wanted in (app.app_id, app.name)]
    if not found:
        raise CommandFailed(
            f"No key of {wanted!r} is kept in {data}.", ExitCode.NOT_ALLOWED, _NEW_APP
        )
    if len(found) > 1:
        raise usage(f"{len(found)} apps kept in {data} are named {wanted!r}; give the id instead.")
    return found[0].key


def admin_key(data: Path) -> str:
    """Return the folder's admin key, made on first use; ``INSULA_ADMIN_KEY`` comes before it.

    Raises:
        CommandFailed: it can be neither read nor made.
    """
    named = os.environ.get("INSULA_ADMIN_KEY")
    if named:
        return named
    path = data / "admin.key"
    try:
        return _read_or_make(path)
    except OSError as error:
        raise usage(f"{path} can be neither read nor made: {error.strerror}.") from error


def _read_or_make(path: Path) -> str:
    try:
        key = path.read_text("ascii").strip()
    except UnicodeDecodeError:
        key = ""
    except FileNotFoundError:
        key = f"insadm_{secrets.token_urlsafe(32)}"
        write_private(path, key.encode() + b"\n")
    if not key:
        raise usage(f"{path} holds no key.", "Remove it: a new one is made.")
    return key


def read_server(data: Path) -> Server | None:
    """Return what ``server.json`` says, which may be about a server that is gone."""
    try:
        return msgspec.json.decode((data / "server.json").read_bytes(), type=Server)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def write_server(data: Path, server: Server) -> None:
    """Say where the server listens."""
    write_private(data / "server.json", msgspec.json.encode(server))


def write_private(path: Path, content: bytes) -> None:
    """Replace a file as a whole, readable by its owner alone, so that a power cut leaves the old
    one or the new one.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    draft.replace(path)
    sync(path.parent)


def _read(data: Path) -> _Kept:
    path = data / "cli.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept)
    except FileNotFoundError:
        return _Kept()
    except msgspec.DecodeError as error:
        raise usage(f"{path} is damaged ({error}); remove it and make a new key.") from error
