"""Copies the write-ahead log into the database file, beside the writer and not in its commits.

A checkpoint writes and flushes some thousand pages. Left to itself SQLite makes it part of whatever
commit comes next, and all who wait for that commit wait for it, too.
"""

import sqlite3
import threading
from pathlib import Path

import structlog

from insula.storage.sqlite_connection import translate

EVERY_SECONDS = 0.05
"""How long the log grows between two checkpoints, while anything is written."""
BACKSTOP_PAGES = 8_000
"""Pages of the log beyond which the writer does it after all: the disk is too slow for both."""

log = structlog.get_logger(__name__)


class Checkpoints:
    """One thread with a connection of its own. ``lock`` is held during each checkpoint."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.Lock()
        self._path = path
        self._written = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="insula-checkpoint", daemon=True)
        self._thread.start()

    def note(self) -> None:
        """Say that something was written."""
        self._written.set()

    def close(self) -> None:
        """Let the one under way end, and the thread with it."""
        self._stopped.set()
        self._written.set()
        self._thread.join()

    def _run(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            while self._written.wait():
                # Cleared before the stop is looked for, or a stop in between would be cleared, too.
                self._written.clear()
                if self._stopped.wait(EVERY_SECONDS):
                    return
                self._checkpoint(connection)
        finally:
            connection.close()

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        try:
            with self.lock:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:  # the log stays, and the next one takes it
            reason = translate(error) or error
            log.warning("storage.checkpoint_failed", reason=str(reason))
