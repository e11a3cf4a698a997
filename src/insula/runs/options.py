"""What a run carries with it besides its input: all that may stand in the column ``options``."""

from typing import Any

import msgspec
from msgspec import Struct

from insula.kit import json
from insula.runs.rows import RunRow

InputPath = tuple[str | int, ...]


class Spent(Struct, frozen=True):
    """How long a run was executed (ms) before it was taken over, and when its owner began."""

    ms: int
    since: int


class RuleMark(Struct, frozen=True):
    """The rule of a record that a run judges, and what the run's end means to it."""

    collection_id: str
    record_id: str
    key: str
    on_success: str
    on_fail: str


class Outfit(Struct, frozen=True):
    """The recorded test that gives a run its answers instead of the world."""

    test: str


class RunOptions(Struct, frozen=True, omit_defaults=True):
    """Options of a run; what is not given stands nowhere."""

    timeout: float | None = None
    """Seconds."""
    limits: dict[str, float | int] | None = None
    """Of each of its scripts, by name, below the installation's."""
    trigger: dict[str, Any] | None = None
    """What its trigger tells it."""
    rule: RuleMark | None = None
    outfit: Outfit | None = None
    given: tuple[str, ...] = ()
    """The steps whose outputs a test has given."""
    handles: str | None = None
    """What its handles of secrets are made from, where not from its root's id."""
    replay_step: str | None = None
    """The step from which a replay runs again."""
    spent: Spent | None = None
    configured: tuple[tuple[InputPath, bool], ...] = ()
    """Where another app's input is the workflow's own, and whether a connection stands there."""
    closed: bool | None = None
    """Of another app's run: whether its workflow was closed when it was created: its stream is
    numbered accordingly, whatever the owner changes later."""

    def encoded(self) -> bytes:
        """Return it as it is stored."""
        return json.encode(self)


_decoder = msgspec.json.Decoder(RunOptions)


def options_of(row: RunRow) -> RunOptions:
    """Return what a run carries with it.

    Raises:
        InvalidJson: what is stored is nothing that this program wrote.
    """
    try:
        return _decoder.decode(row.options)
    except msgspec.DecodeError as error:
        raise json.InvalidJson(f"options of {row.id}: {error}") from error


def change_options(row: RunRow, **changed: object) -> bytes:
    """Return a run's options as they are to be stored with some changed. What another version of
    the program keeps there, of which this one knows nothing, stays."""
    known = msgspec.to_builtins(msgspec.structs.replace(options_of(row), **changed))
    others = json.decode(row.options).items()
    return json.encode({k: v for k, v in others if k not in RunOptions.__struct_fields__} | known)
