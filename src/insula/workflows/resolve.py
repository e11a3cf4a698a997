"""Which version of which workflow a caller may run: asked for every run, so kept in memory.

What is kept of a workflow is dropped by every verb that changes it; versions never change.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, select

from insula.engine.document import Document, check
from insula.engine.graph import Plan
from insula.errors import Conflict, NotFound, Unavailable
from insula.kit.json import Raw, decode
from insula.storage.database import Database
from insula.storage.tables import workflows
from insula.web.auth import unknown
from insula.workflows import access, version_repository
from insula.workflows.access import DRAFT, LATEST, Selector
from insula.workflows.facts import Facts, load
from insula.workflows.recent import Recent
from insula.workflows.version_texts import VersionTexts

T = TypeVar("T")

_WORKFLOWS = 2_000
_VERSIONS = 1_000
_OF_ONE = 100
_BODY_BYTES = 16 * 1024 * 1024


class Runnable(msgspec.Struct, frozen=True):
    """What a run needs of its workflow. A draft has neither ``version_id`` nor ``version``."""

    workflow_id: str
    workflow_app_id: str
    version_id: str | None
    version: int | None
    body: bytes
    document: Document
    retention: bytes | None
    """The workflow's: JSON ``{max_age_in_seconds, preserve_on_failure?}``."""
    enabled: bool
    open: bool
    caller_limit: int | None
    """Live runs that one other app may have at once."""
    name: str
    plans: dict[str | None, Plan] = msgspec.field(default_factory=dict)
    """Of a draft, by the step it starts from: laid out once, for as long as the draft is held."""


class _Parsed(msgspec.Struct, frozen=True):
    """A version's body, ready to run."""

    id: str
    number: int
    body: bytes
    document: Document


class _Found(msgspec.Struct, frozen=True):
    """Which version a selector means."""

    id: str
    number: int
    withdrawn: bool


class _Known:
    """What is kept of one workflow, dropped as a whole when it changes."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.read_at = time.monotonic()
        self.found: Recent[Selector, _Found] = Recent(_OF_ONE)
        self.runnable: Recent[str, Runnable] = Recent(_OF_ONE)


class Resolver:
    """Finds what may be run. One for a process; the verbs of ``workflows`` tell it of changes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: Recent[str, _Known] = Recent(_WORKFLOWS)
        self._parsed: Recent[str, _Parsed] = Recent(
            _VERSIONS, _BODY_BYTES, lambda parsed: len(parsed.body)
        )
        self._texts = VersionTexts(database)
        self._changes = 0
        self._closing: dict[str, int] = {}
        self._verbs: set[asyncio.Task[Any]] = set()
        self.watchers: list[Callable[[str], None]] = []
        """Called with a workflow's id when a verb of this process has changed it."""
        self.fresh_for: float | None = None
        """Seconds for which what is kept is believed; ``None``: only this process changes it."""

    async def resolve(
        self,
        caller_app_id: str,
        workflow_id: str,
        selector: object = None,
        through_catalogue: bool = False,
    ) -> Runnable:
        """Return what ``caller_app_id`` would run; ``selector`` is as in ``parse_selector``.

        Raises:
            NotFound: no such workflow or version for this caller, whatever the reason.
            BadInput: nothing is deployed, or a draft is asked for through the catalogue.
            Conflict: it is disabled, or being deleted.
        """
        known, version_id = await self._allowed(
            caller_app_id, workflow_id, selector, through_catalogue
        )
        return known.runnable.get(version_id or DRAFT) or await self._ready(known, version_id)

    async def check_still(
        self, caller_app_id: str, runnable: Runnable, through_catalogue: bool
    ) -> None:
        """Check that an app may still run what was resolved for it before its input was taken in.

        That may last as long as whoever sends a file likes; the owner may have unpublished or
        disabled the workflow, or blocked the caller, because of what goes on there.

        Raises:
            NotFound, Conflict: as ``resolve``.
        """
        through_catalogue = through_catalogue or runnable.workflow_app_id != caller_app_id
        version = runnable.version_id or DRAFT
        await self._allowed(caller_app_id, runnable.workflow_id, version, through_catalogue)

    async def _allowed(
        self, caller_app_id: str, workflow_id: str, selector: object, through_catalogue: bool
    ) -> tuple[_Known, str | None]:
        wanted = LATEST if selector is None else access.parse_selector(selector)
        known = self._recall(workflow_id) or await self._learn(workflow_id)
        facts = known.facts
        version_id: str | None
        if through_catalogue:
            if not access.finds(facts, caller_app_id):
                raise unknown()
            version_id = await self._public(known, wanted)
        elif access.owns(facts, caller_app_id):
            version_id = await self._own(known, wanted)
        else:
            raise unknown()
        access.admit(facts)
        if workflow_id in self._closing:
            raise Conflict("This workflow is being deleted")
        return known, version_id

    async def resolve_child(
        self, parent_app_id: str, workflow_id: str, selector: object = None
    ) -> Runnable:
        """Return what a *workflow* step runs, with the rights of the app that owns its parent.

        Raises:
            NotFound, BadInput, Conflict: as ``resolve``.
        """
        facts = await self.facts(workflow_id)
        own = facts is not None and access.owns(facts, parent_app_id)
        return await self.resolve(parent_app_id, workflow_id, selector, not own)

    async def may_run(self, app_id: str, workflow_id: str, version_id: str | None) -> bool:
        """Say whether an app could itself run this version (``None``: the draft)."""
        facts = await self.facts(workflow_id)
        if facts is None:
            return False
        if access.owns(facts, app_id):
            return True
        if version_id is None or not access.finds(facts, app_id):
            return False
        try:
            await self._public(self._recall(workflow_id) or _Known(facts), version_id)
        except NotFound:
            return False
        return True

    async def stored(
        self, workflow_id: str, version_id: str | None, draft: bytes | None
    ) -> Runnable:
        """Return what a run that exists was started from, whatever has become of it since.

        ``draft`` is the body that a draft run keeps.

        Raises:
            NotFound: the workflow's row, the version or the draft's body is gone.
        """
        known = self._recall(workflow_id) or await self._learn(workflow_id)
        if version_id is not None:
            return known.runnable.get(version_id) or await self._ready(known, version_id)
        if draft is None:
            raise unknown()
        return _runnable(known.facts, None, None, draft, await _parse(draft))

    async def admits(self, workflow_id: str) -> bool:
        """Say whether runs may still begin: it is neither deleted nor being deleted.

        Asked once a run is stored; a deletion that has not seen the run has said so by then. Where
        that cannot be asked it may: whoever deletes at another node looks a second time.
        """
        if workflow_id in self._closing:
            return False
        try:
            facts = await self.facts(workflow_id)
        except Unavailable:
            return True
        return facts is not None and not facts.deleted

    async def check_own(self, app_id: str, workflow_id: str) -> None:
        """Check that this is the app's own workflow.

        Raises:
            NotFound: it is not, or is deleted.
        """
        facts = await self.facts(workflow_id)
        if facts is None or not access.owns(facts, app_id):
            raise unknown()

    async def facts(self, workflow_id: str) -> Facts | None:
        """Return what is known of a workflow, deleted or not."""
        try:
            return (self._recall(workflow_id) or await self._learn(workflow_id)).facts
        except NotFound:
            return None

    async def versions_for_runs(
        self, version_ids: Collection[str], viewer_app_id: str
    ) -> dict[str, Raw]:
        """Return each version as ``WorkflowVersionSchema``, as the viewer of a run may see it.

        Its own app sees all of it; others no author, and where the workflow is not ``open``, no
        steps. Versions that do not exist are left out.
        """
        return await self._texts.of_runs(version_ids, viewer_app_id, self.facts)

    def is_closing(self, workflow_id: str) -> bool:
        """Say whether this process deletes a workflow just now."""
        return workflow_id in self._closing

    @contextmanager
    def closing(self, workflow_id: str) -> Iterator[None]:
        """Let nothing start in a workflow while it is being deleted."""
        self._closing[workflow_id] = self._closing.get(workflow_id, 0) + 1
        try:
            yield
        finally:
            self._closing[workflow_id] -= 1
            if not self._closing[workflow_id]:
                del self._closing[workflow_id]

    async def apply(self, workflow_id: str, verb: Coroutine[Any, Any, T]) -> T:
        """Run a verb that changes a workflow, and drop what is kept of it once that is done.

        The verb goes on when the caller goes away: a change that is committed is never missed.
        """
        task = asyncio.ensure_future(verb)
        self._verbs.add(task)

        def done(ended: asyncio.Task[T]) -> None:
            self._verbs.discard(ended)
            self.changed(workflow_id)
            if not ended.cancelled():
                ended.exception()  # the caller may have gone; nobody else would look at it

        task.add_done_callback(done)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for the verbs whose callers went away."""
        await asyncio.gather(*self._verbs, return_exceptions=True)

    def changed(self, workflow_id: str) -> None:
        """Drop what is kept of a workflow that this process has just changed, and say so."""
        self.forget(workflow_id)
        for watcher in self.watchers:
            watcher(workflow_id)

    def forget(self, workflow_id: str) -> None:
        """Drop what is kept of a workflow: another process has changed it."""
        self._changes += 1
        self._known.drop(workflow_id)

    def _recall(self, workflow_id: str) -> _Known | None:
        known = self._known.get(workflow_id)
        if known is None or self.fresh_for is None:
            return known
        return known if time.monotonic() - known.read_at < self.fresh_for else None

    async def _learn(self, workflow_id: str) -> _Known:
        changes = self._changes
        facts = await self._database.read(lambda connection: load(connection, workflow_id))
        if facts is None:
            raise unknown()
        known = _Known(facts)
        if changes == self._changes:  # else what was read may be older than a change
            self._known.put(workflow_id, known)
        return known

    async def _own(self, known: _Known, wanted: Selector) -> str | None:
        """Return the id of the version that the owner means, ``None`` for the draft."""
        if wanted == DRAFT:
            return None
        if wanted == LATEST:
            if known.facts.latest_version_id is None:
                raise access.undeployed()
            return known.facts.latest_version_id
        return (await self._find(known, wanted)).id

    async def _public(self, known: _Known, wanted: Selector) -> str:
        """Return the id of the version that another app means."""
        if wanted == DRAFT:
            raise access.refuse_draft()
        if wanted == LATEST:
            if known.facts.public_version_id is None:
                raise unknown()
            return known.facts.public_version_id
        found = await self._find(known, wanted)
        start = known.facts.published_from_version
        if not access.is_public(start, found.number, found.withdrawn):
            raise unknown()
        return found.id

    async def _find(self, known: _Known, wanted: Selector) -> _Found:
        found = known.found.get(wanted)
        if found is None:
            version = await self._database.read(
                lambda connection: version_repository.find(connection, known.facts.id, wanted)
            )
            if version is None:
                raise unknown()
            found = _Found(version.id, version.version, version.withdrawn)
            known.found.put(wanted, found)
        return found

    async def _ready(self, known: _Known, version_id: str | None) -> Runnable:
        facts = known.facts
        parsed: _Parsed | None = None
        if version_id is None:
            body = await self._database.read(lambda connection: _draft(connection, facts.id))
            if body is None:
                raise unknown()
            document = await _parse(body)
        else:
            parsed = self._parsed.get(version_id) or await self._parse_version(version_id)
            body, document = parsed.body, parsed.document
        number = None if parsed is None else parsed.number
        runnable = _runnable(facts, version_id, number, body, document)
        known.runnable.put(version_id or DRAFT, runnable)
        return runnable

    async def _parse_version(self, version_id: str) -> _Parsed:
        versions = await self._database.read(
            lambda connection: version_repository.by_ids(connection, [version_id])
        )
        if version_id not in versions:
            raise unknown()
        version = versions[version_id]
        document = await _parse(version.body)
        parsed = _Parsed(version.id, version.version, version.body, document)
        self._parsed.put(version_id, parsed)
        return parsed


def _runnable(
    facts: Facts, version_id: str | None, version: int | None, body: bytes, document: Document
) -> Runnable:
    return Runnable(
        workflow_id=facts.id,
        workflow_app_id=facts.app_id,
        version_id=version_id,
        version=version,
        body=body,
        document=document,
        retention=facts.retention,
        enabled=facts.enabled,
        open=facts.open,
        caller_limit=facts.caller_limit,
        name=facts.name,
    )


def _draft(connection: Connection, workflow_id: str) -> bytes | None:
    query = select(workflows.c.body).where(
        workflows.c.id == workflow_id, workflows.c.deleted.is_(False)
    )
    return connection.scalars(query).one_or_none()


async def _parse(body: bytes) -> Document:
    """Parse a stored body, away from the event loop: a large one takes a while."""
    document, problems = await asyncio.to_thread(lambda: check(decode(body)))
    if document is None:
        first = problems[0].message if problems else "it cannot be read"
        raise Conflict(f"This version does not pass today's checks, deploy it again: {first}")
    return document
