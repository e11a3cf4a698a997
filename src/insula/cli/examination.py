"""What ``insula doctor`` looks at: machine, folder, settings, port, and the sandbox's walls."""

import asyncio
import os
import shutil
import socket
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError

from insula.adapters.http.egress import EgressPolicy
from insula.adapters.models.providers import ModelProviders
from insula.adapters.sandbox.walls import Wall, inspect
from insula.cli.examined_cluster import look_at_cluster
from insula.cli.examined_keys import look_at_keys
from insula.cli.failures import CommandFailed
from insula.cli.hosting import data_folder, settings_for
from insula.cli.kept_keys import read_server
from insula.engine.ports import Lane
from insula.settings import Settings, SettingsError
from insula.storage.lock import holder
from insula.storage.migrate import ForeignFile, NewerSchema, chain, check_version
from insula.storage.offline import read_file
from insula.storage.opening import FILE as DATABASE
from insula.storage.postgres import look
from insula.storage.postgres_address import DatabaseUnusable

_SQLITE_NEEDED = (3, 35, 0)
_ROOM_NEEDED = 1024 * 1024 * 1024
_PROBE_DEADLINE = 60.0
_CLIENTS = frozenset(("INSULA_URL", "INSULA_KEY"))
_PROVIDER = "INSULA_PROVIDER_"
# Not every machine gives them; without them seccomp still forbids what they would.
_NEED_NOT_STAND = frozenset(("network", "credentials"))


Verdict = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: all right, worth a thought, or in the way."""

    about: str
    verdict: Verdict
    detail: str


async def examine(given: Path | None) -> list[Finding]:
    """Look at everything, the walls of the sandbox last."""
    data = data_folder(given)
    if (closed := _closed(data)) is not None:
        return [*_machine(), closed, *await _walls()]
    database = await _database(data)
    return [*_machine(), *_folder(data), *_settings(data), *database, *await _walls()]


def _machine() -> Iterator[Finding]:
    yield Finding("python", "ok", sys.version.split()[0])
    recent = sqlite3.sqlite_version_info >= _SQLITE_NEEDED
    needed = ".".join(str(part) for part in _SQLITE_NEEDED)
    detail = sqlite3.sqlite_version + ("" if recent else f"; {needed} or newer is needed")
    yield Finding("sqlite", "ok" if recent else "failed", detail)


def _closed(data: Path) -> Finding | None:
    """Say so where whoever asks may not look into the folder: then nothing of it can be said."""
    try:
        if data.is_dir():
            os.scandir(data).close()
            holder(data)
    except PermissionError as error:
        words = f"{error.filename} may not be read: run this as the user whose folder {data} is"
        return Finding("data folder", "failed", words)
    return None


def _folder(data: Path) -> Iterator[Finding]:
    there = next(path for path in (data.absolute(), *data.absolute().parents) if path.exists())
    if not there.is_dir():
        yield Finding("data folder", "failed", f"{there} is no folder")
        return
    trouble = _unwritable(there)
    if trouble is not None or not data.exists():
        words = f"{data} will be made" if trouble is None else f"{there}: no writing: {trouble}"
        yield Finding("data folder", "ok" if trouble is None else "failed", words)
        return
    yield Finding("data folder", "ok", str(data))
    if data.stat().st_mode & 0o077:
        yield Finding("data folder", "warning", f"others can look into it: chmod 700 {data}")
    free = shutil.disk_usage(data).free
    yield Finding("disk", "ok" if free >= _ROOM_NEEDED else "warning", f"{free >> 20} MiB free")
    if (held := holder(data)) is not None:
        server = read_server(data)
        at = f", serving at {server.address}" if server and server.pid == held.pid else ""
        yield Finding("lock", "ok", f"held by process {held.pid}{at}")


def _unwritable(folder: Path) -> str | None:
    """Say why nothing can be made in a folder. It is tried: rights alone do not tell what a disk
    or a kernel's own folders refuse, least of all to root.
    """
    try:
        with TemporaryDirectory(dir=folder):
            return None
    except OSError as error:
        return error.strerror or type(error).__name__


def _settings(data: Path) -> Iterator[Finding]:
    try:
        settings = settings_for(data, make_key=False)
        ModelProviders(EgressPolicy(settings.egress_allow), os.environ)
    except (CommandFailed, SettingsError) as failure:
        yield Finding("settings", "failed", str(failure))
        return
    verdict, detail = look_at_keys(data, settings)
    yield Finding("secret keys", verdict, detail)
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if f"INSULA_{name.upper()}" in os.environ:
            shown = "set" if isinstance(value, SecretStr) else str(value)
            yield Finding(f"INSULA_{name.upper()}", "ok", shown)
    for name in _unknown(os.environ):
        yield Finding(name, "warning", "there is no such setting")
    if not (data.is_dir() and holder(data)):
        yield _port(settings.host, settings.port)


def _unknown(names: Iterable[str]) -> list[str]:
    """Return what looks like a setting and is none, as one that is misspelt does."""
    known = {f"INSULA_{name.upper()}" for name in Settings.model_fields} | _CLIENTS
    given = (name for name in names if name.startswith("INSULA_") and name not in known)
    return sorted(name for name in given if not name.startswith(_PROVIDER))


def _port(host: str, port: int) -> Finding:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return Finding("port", "failed", f"{host}:{port} cannot be listened on: {error.strerror}")
    return Finding("port", "ok", f"{host}:{port} is free")


async def _database(data: Path) -> list[Finding]:
    """Look at the database's server, if the settings name one, and at what carries messages
    between its nodes."""
    try:
        settings = settings_for(data, make_key=False)
    except (CommandFailed, SettingsError):
        return []  # said already
    url = settings.database_url
    if url is None:
        return [_file(data / DATABASE)] if (data / DATABASE).exists() else []
    cluster = Finding("cluster", *await look_at_cluster(settings))
    try:
        seen = await look(url.get_secret_value())
        risks = [Finding("durability", "warning", risk) for risk in seen.risks]
        return [Finding("database", "ok", seen.words), *risks, cluster]
    except (DatabaseUnusable, NewerSchema, ForeignFile) as error:
        return [Finding("database", "failed", str(error)), cluster]


def _file(file: Path) -> Finding:
    """Look at the schema of an SQLite file."""
    try:
        with read_file(file) as connection:
            found, known = check_version(connection), len(chain())
    except (NewerSchema, ForeignFile) as error:
        return Finding("database", "failed", str(error))
    except FileNotFoundError:
        return Finding("database", "failed", f"{file} is no file")
    except DBAPIError as error:
        return Finding("database", "failed", f"{file} cannot be read: {error.orig}")
    later = "" if found == known else f"; the next start makes it {known}"
    return Finding("database", "ok", f"{file}: schema {found}{later}")


async def _walls() -> list[Finding]:
    findings = []
    for lane in get_args(Lane):
        try:
            async with asyncio.timeout(_PROBE_DEADLINE):
                found = await inspect(lane)
        except (OSError, TimeoutError) as error:
            why = str(error) or "no worker came up"
            findings.append(Finding(f"sandbox {lane}", "failed", f"could not be probed: {why}"))
        else:
            findings += [_wall(lane, wall) for wall in found]
    return findings


def _wall(lane: Lane, wall: Wall) -> Finding:
    verdict: Verdict = "warning" if wall.name in _NEED_NOT_STAND else "failed"
    return Finding(f"{lane} {wall.name}", "ok" if wall.standing else verdict, wall.detail)
