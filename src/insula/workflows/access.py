"""Who may see and run a workflow, and what of it: pure functions of a workflow's facts."""

from insula.errors import BadInput, Conflict
from insula.kit.ids import is_id
from insula.web.auth import unknown
from insula.workflows.facts import Facts

Selector = int | str
"""A version: its number, its ``workv_`` id, ``latest`` or ``draft``."""

LATEST = "latest"
DRAFT = "draft"
_MAX_DIGITS = 9


def parse_selector(given: object) -> Selector:
    """Read a version as it stands in a path or a body; absent means ``latest``.

    Raises:
        NotFound: it has the form of no version.
    """
    if given is None:
        return LATEST
    if isinstance(given, int) and not isinstance(given, bool):
        if 0 < given < 10**_MAX_DIGITS:
            return given
        raise unknown()
    if not isinstance(given, str):
        raise unknown()
    if given in (LATEST, DRAFT) or is_id("workv", given):
        return given
    if given.isascii() and given.isdigit() and len(given) <= _MAX_DIGITS:
        return int(given)
    raise unknown()


def owns(facts: Facts, app_id: str) -> bool:
    """Say whether this is the app's own workflow."""
    return facts.app_id == app_id and not facts.deleted


def finds(facts: Facts, app_id: str) -> bool:
    """Say whether the app finds this workflow in the catalogue."""
    return (
        facts.discoverable
        and not facts.deleted
        and facts.public_version_id is not None
        and app_id not in facts.blocked
    )


def is_public(published_from: int | None, number: int, withdrawn: bool) -> bool:
    """Say whether a version exists for other apps: deployed since publication, not withdrawn."""
    return published_from is not None and number >= published_from and not withdrawn


def sees_steps(facts: Facts | None, app_id: str) -> bool:
    """Say whether an app sees the workflow's steps in versions and runs.

    A workflow whose row has gone shows nothing: what its owner wanted is no longer known.
    """
    return facts is not None and (facts.open or facts.app_id == app_id)


def admit(facts: Facts) -> None:
    """Refuse a workflow that is switched off.

    Raises:
        Conflict: it is disabled.
    """
    if not facts.enabled:
        raise Conflict("This workflow is disabled: enable it before running it")


def refuse_draft() -> BadInput:
    """Return the answer to a caller who asks for another app's draft."""
    return BadInput("A draft runs only for its own app: name a version, or leave it out")


def undeployed() -> BadInput:
    """Return the answer where ``latest`` is asked for and nothing is deployed."""
    return BadInput(
        "Nothing is deployed: deploy the workflow, or ask for workflow_version_id 'draft'"
    )
