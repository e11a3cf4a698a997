"""Reads documents in the background: whoever has room claims the next, under a lease like runs.

The row is the truth. Each write is made only while the row is still this process's to tell of, so
that a cancel, a deletion or a takeover, from whichever process, ends the work within a second.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection

from insula.adapters.blobs.port import MissingBlob
from insula.adapters.extraction.extractor import ExtractionFailed, Extractor
from insula.engine.failures import plain
from insula.errors import InsulaError, NotFound, TooLarge
from insula.files import extractions, repository
from insula.files.extractions import ExtractionRow
from insula.files.reading import Gone, Reading
from insula.files.repository import FileRow
from insula.files.store import FileStore, remove_bytes
from insula.files.wish import Wish

_log = structlog.get_logger(__name__)

LOOKED_EVERY = 1.0
"""Seconds between looks for documents of processes that have died, and for cancels from others."""
_REST_MAX = 60.0
"""Seconds that a document is left at most before it is tried again."""
_POLL_SECONDS = 0.25
_ASKED_EVERY = 0.02
"""Seconds between looks whether another process has let go of a document."""
_LET_GO_WITHIN = 5.0
_CANCELLED = "The extraction was cancelled"


class Documents:
    """The extractions of this process."""

    def __init__(
        self, store: FileStore, extractor: Extractor, token: Callable[[], str], together: int = 2
    ) -> None:
        self._store = store
        self._extractor = extractor
        self._token = token
        self._tokens: set[str] = set()
        self._together = together
        self._last_app = ""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._resting: dict[str, tuple[int, float]] = {}
        """Documents that could not be had for now: how often, and until when they are left."""
        self._changed = asyncio.Event()
        self._asked: set[str] | None = None
        """The only documents to be read here, those that were asked for; ``None``: all."""

    @property
    def working(self) -> int:
        """How many documents are read here just now."""
        return len(self._tasks)

    @property
    def extractor(self) -> Extractor:
        """What reads them."""
        return self._extractor

    async def run(self, *, only_asked: bool = False) -> None:
        """Read what there is to read, for ever; with ``only_asked`` what somebody here waits for.
        Cancelled, it gives back what it had begun, and ends what reads."""
        self._asked = set() if only_asked else None
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    try:
                        while await self._begin_next(group):
                            pass
                    except InsulaError as error:
                        _log.warning("extraction.not_claimed", reason=error.message)
                    except Exception:  # it comes round again
                        _log.exception("extraction.claim_broke")
                    await self._wait()
        finally:
            await self._release()
            await self._extractor.close()

    async def _release(self) -> None:
        release = partial(extractions.release, tokens=sorted(self._tokens))
        try:
            await self._store.database.write(release)
        except InsulaError as error:  # then it waits until the lease has lapsed
            _log.warning("extraction.not_released", reason=error.message)

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(LOOKED_EVERY):
                await self._store.wished.wait()
        except TimeoutError:
            pass  # time to look for what others have left
        self._store.wished.clear()

    async def _begin_next(self, group: asyncio.TaskGroup) -> bool:
        if len(self._tasks) >= self._together:
            return False
        token = self._token()  # another one after every lease that was lost
        self._tokens.add(token)
        mine: dict[str, Any] = {
            "token": token,
            "working": [*self._tasks, *self._left()],
            "only": self._asked,
        }
        # Most times there is none, and a write takes the lock that all nodes share.
        if not await self._store.database.read(partial(extractions.any_free, **mine)):
            return False
        claim = partial(extractions.claim, **mine, after=self._last_app)
        row = await self._store.database.write(claim)
        if row is None:
            return False
        self._last_app = row.app_id
        task = group.create_task(self._carry(row))
        self._tasks[row.file_id] = task
        task.add_done_callback(lambda _: self._done(row.file_id))
        return True

    def _left(self) -> list[str]:
        now = time.monotonic()
        return [file_id for file_id, (_, until) in self._resting.items() if until > now]

    def _done(self, file_id: str) -> None:
        self._tasks.pop(file_id, None)
        self._changed.set()
        self._changed = asyncio.Event()
        self._store.wished.set()

    async def _carry(self, row: ExtractionRow) -> None:
        try:
            await self._read(row)
            self._resting.pop(row.file_id, None)
        except Gone:
            self._resting.pop(row.file_id, None)
            _log.info("extraction.ended_by_others", file_id=row.file_id)
            await self._let_go(row, clean=True)
        except asyncio.CancelledError:
            _log.debug("extraction.stopped", file_id=row.file_id)
            await self._let_go(row)
        except (InsulaError, OSError) as error:
            _log.warning("extraction.put_off", file_id=row.file_id, reason=str(error))
            await self._put_off(row)
        except Exception:  # one document's defect must not end the others
            _log.exception("extraction.broke", file_id=row.file_id)

    async def _put_off(self, row: ExtractionRow) -> None:
        """Leave a document for a while: the storage is away, and that is not its fault."""
        times = self._resting.get(row.file_id, (0, 0.0))[0] + 1
        rest = min(LOOKED_EVERY * 2 ** (times - 1), _REST_MAX)
        self._resting[row.file_id] = (times, time.monotonic() + rest)
        back = partial(extractions.give_back, file_id=row.file_id, token=row.owner or "")
        try:
            await self._store.database.write(back)
        except InsulaError as error:  # then it stays this process's, and is begun again
            _log.warning("extraction.not_given_back", file_id=row.file_id, reason=error.message)

    async def _let_go(self, row: ExtractionRow, *, clean: bool = False) -> None:
        """Tell whoever waits for it that the reader is dead."""
        let_go = partial(extractions.let_go, file_id=row.file_id, token=row.owner or "")
        try:
            if clean:
                await self._clean(row.file_id)
            await self._store.database.write(let_go)
        except InsulaError as error:  # whoever waits for it waits some seconds
            _log.warning("extraction.not_let_go", file_id=row.file_id, reason=error.message)

    async def _read(self, row: ExtractionRow) -> None:
        await self._remove_children(row.file_id)
        if row.attempts > extractions.ATTEMPTS:
            await self._fail(row, f"Its reading was interrupted {extractions.ATTEMPTS} times")
            return
        find = partial(repository.find_file, file_id=row.file_id)
        file = await self._store.database.read(find)
        if file is None:
            raise Gone
        started = time.monotonic()
        reading = Reading(self._store, self._extractor, file, row.wish, row.owner or "")
        try:
            await self._watched(reading)
        except ExtractionFailed as failure:
            await self._fail(row, str(failure))
        except MissingBlob:
            await self._fail(row, "The bytes of the file are gone")
        except TooLarge as error:
            await self._fail(row, f"What came of it is too large. {error.message}")
        except NotFound:  # the app is being deleted
            raise Gone from None
        else:
            document = reading.document(round(time.monotonic() - started, 3))
            packed = await asyncio.to_thread(extractions.compressed, document)
            await self._finish(row, packed, plain(reading.note) or None)

    async def _watched(self, reading: Reading) -> None:
        """Read, and look meanwhile whether anybody else has ended it."""
        try:
            async with asyncio.TaskGroup() as group:
                looking = group.create_task(self._look(reading))
                await reading.run()
                looking.cancel()
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    async def _look(self, reading: Reading) -> None:
        while True:
            await asyncio.sleep(LOOKED_EVERY / 2)
            tell = partial(
                extractions.tell_progress,
                file_id=reading.file.id,
                token=reading.token,
                progress=reading.progress,
            )
            if not await self._store.database.write(tell):
                raise Gone

    async def _fail(self, row: ExtractionRow, message: str) -> None:
        await self._finish(row, None, plain(message))
        await self._remove_children(row.file_id)

    async def _finish(
        self, row: ExtractionRow, document: bytes | None, message: str | None
    ) -> None:
        finish = partial(
            extractions.finish,
            file_id=row.file_id,
            token=row.owner or "",
            document=document,
            message=message,
        )
        if not await self._store.database.write(finish):
            raise Gone

    async def _remove_children(self, file_id: str) -> None:
        remove = partial(repository.delete_children, file_id=file_id)
        await remove_bytes(self._store, await self._store.database.write(remove))

    async def cancel(self, app_id: str, file_id: str) -> None:
        """End an extraction; when this returns, its reader is dead. Nothing happens to others.

        Where another process reads it, this waits until that has seen it: half a second, as a rule.
        """
        unit: Callable[[Connection], tuple[bool, str | None]] = partial(
            extractions.cancel, app_id=app_id, file_id=file_id, message=_CANCELLED
        )
        ended, reader = await self._store.database.write(unit)
        if not ended and reader is None:
            return
        await self.stop(file_id)
        if reader is not None and reader not in self._tokens:
            await self._until_let_go(file_id)
        await self._clean(file_id)

    async def _until_let_go(self, file_id: str) -> None:
        """Wait until the reader is dead in another process, or that itself, for some seconds."""
        held = partial(extractions.is_held, file_id=file_id)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LET_GO_WITHIN):
                while await self._store.database.read(held):  # noqa: ASYNC110  it is elsewhere
                    await asyncio.sleep(_ASKED_EVERY)

    async def _clean(self, file_id: str) -> None:
        """Remove what came of a document that was ended, unless it is read anew already."""
        remove = partial(repository.delete_abandoned_children, file_id=file_id)
        await remove_bytes(self._store, await self._store.database.write(remove))

    async def stop(self, file_id: str) -> None:
        """End this process's work on a document, whose row says already that it is over."""
        task = self._tasks.get(file_id)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def document(self, file: FileRow, wish: Wish) -> dict[str, Any]:
        """Return what is in a document, once it has been read; have it read if it was not, or if
        that was cancelled before.

        Raises:
            ExtractionFailed: it could not be read.
            Gone: the file is no more.
        """
        ensure = partial(
            extractions.ensure,
            file_id=file.id,
            app_id=file.app_id,
            mimetype=file.mimetype,
            wish=wish,
        )
        if self._asked is not None:
            self._asked.add(file.id)
            self._store.wished.set()
        begin = True  # once: what is cancelled while this waits stays so
        while True:
            row = await self._store.database.read(partial(extractions.find, file_id=file.id))
            again = row is not None and row.status == "FAILED" and row.may_be_tried and begin
            begin = False
            covered = row is not None and (row.status == "PROCESSING" or row.wish.covers(wish))
            if row is None or again or not covered:
                row = await self._store.database.write(ensure)
                self._store.wished.set()
            if row is None:
                raise Gone
            if row.status == "FAILED":
                raise ExtractionFailed(row.message or "It cannot be read")
            if row.status == "PROCESSED" and row.wish.covers(wish):
                find = partial(extractions.find_document, file_id=file.id)
                document = await self._store.database.read(find)
                if document is None:
                    raise Gone
                return document
            await self._change()

    async def _change(self) -> None:
        """Wait until something has ended here, or may have elsewhere."""
        try:
            async with asyncio.timeout(_POLL_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            return
