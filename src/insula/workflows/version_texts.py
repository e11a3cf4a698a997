"""Versions as they stand inside runs: encoded once for each kind of viewer, and kept."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Literal

from insula.kit.json import Raw
from insula.storage.database import Database
from insula.workflows import access
from insula.workflows.facts import Facts
from insula.workflows.recent import Recent
from insula.workflows.render import version_raw
from insula.workflows.version_repository import Version, by_ids

View = Literal["own", "open", "hidden"]

_VERSIONS = 2_000
_BYTES = 16 * 1024 * 1024


class VersionTexts:
    """A memory of encoded versions. They never change, so nothing in it grows old."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._origins: Recent[str, tuple[str, str]] = Recent(_VERSIONS)
        self._texts: Recent[tuple[str, View], Raw] = Recent(
            _VERSIONS, _BYTES, lambda text: len(memoryview(text))
        )

    async def of_runs(
        self,
        version_ids: Collection[str],
        viewer_app_id: str,
        facts: Callable[[str], Awaitable[Facts | None]],
    ) -> dict[str, Raw]:
        """Return the versions that exist, as the viewer may see them; ``facts`` of a workflow."""
        loaded = await self._load([each for each in version_ids if not self._origins.get(each)])
        views: dict[str, View] = {}
        for version_id in version_ids:
            origin = self._origins.get(version_id) or _origin(loaded.get(version_id))
            if origin is not None:
                views[version_id] = _view(origin[0], await facts(origin[1]), viewer_app_id)
        kept = {each: self._texts.get((each, view)) for each, view in views.items()}
        absent = [each for each, text in kept.items() if text is None and each not in loaded]
        loaded |= await self._load(absent)
        texts: dict[str, Raw] = {}
        for version_id, view in views.items():
            text = kept[version_id]
            if text is not None:
                texts[version_id] = text
            elif version_id in loaded:
                texts[version_id] = self._encode(loaded[version_id], view)
        return texts

    async def _load(self, version_ids: Sequence[str]) -> dict[str, Version]:
        if not version_ids:
            return {}
        loaded = await self._database.read(lambda connection: by_ids(connection, version_ids))
        for version in loaded.values():
            self._origins.put(version.id, (version.app_id, version.workflow_id))
        return loaded

    def _encode(self, version: Version, view: View) -> Raw:
        plain = replace(version, withdrawn=False)  # which may change; a run does not tell it
        text = version_raw(plain, hide_steps=view == "hidden", outside=view != "own")
        self._texts.put((version.id, view), text)
        return text


def _origin(version: Version | None) -> tuple[str, str] | None:
    return None if version is None else (version.app_id, version.workflow_id)


def _view(owner_app_id: str, facts: Facts | None, viewer_app_id: str) -> View:
    if owner_app_id == viewer_app_id:
        return "own"
    return "open" if access.sees_steps(facts, viewer_app_id) else "hidden"
