"""When a schedule is due: by cron, at an interval, or once; and what becomes of missed ticks.

Pure: moments are Unix milliseconds and come from outside. A *tick* is a moment at which a schedule
is due; the ticks of a timetable are the chain of ``after``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from insula.kit.clock import milliseconds

Policy = Literal["skip", "once", "all"]

EVERY_MIN: Final = 10
EVERY_MAX: Final = 366 * 24 * 3600
"""Seconds between two ticks."""
ALL_MAX: Final = 100
"""Missed ticks that ``all`` makes up for."""
COUNTED_MAX: Final = 1_000
"""Missed ticks that are counted; where it says so many, there may be more."""
ON_TIME_MS: Final = 60_000
"""A tick that is not older is not missed, whatever the policy."""
CRON_MAX: Final = 100

_HOUR_MS: Final = 3_600_000
_WINDOWS: Final = tuple(hours * _HOUR_MS for hours in (2, 24, 8 * 24, 64 * 24, 512 * 24, 4096 * 24))
_REPEATED: Final = 10_000
_ZONE: Final = re.compile(r"[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}")
_OF_THE_MACHINE: Final = ("localtime", "posixrules", "Factory")
_NAMED: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class BadTimetable(ValueError):
    """A part of a timetable that cannot be used; the message says what one is."""

    def __init__(self, part: str, message: str) -> None:
        super().__init__(message)
        self.part = part


@dataclass(frozen=True, slots=True)
class Timetable:
    """Exactly one of ``cron``, ``every`` (seconds, counted from ``anchor``) and ``at``."""

    cron: str | None = None
    every: int | None = None
    at: int | None = None
    timezone: str = "UTC"
    anchor: int = 0

    def after(self, moment: int) -> int | None:
        """Return the first tick after a moment, ``None`` if there is none."""
        if self.at is not None:
            return self.at if self.at > moment else None
        if self.every is not None:
            step = self.every * 1000
            return self.anchor + max(1, (moment - self.anchor) // step + 1) * step
        return next(self._crons(moment), None)

    def ticks(self, moment: int) -> Iterator[int]:
        """Yield the ticks after a moment, in order."""
        if self.cron is not None:
            yield from self._crons(moment)
            return
        following = self.after(moment)
        while following is not None:
            yield following
            following = self.after(following)

    def _crons(self, moment: int) -> Iterator[int]:
        assert self.cron is not None
        begun = datetime.fromtimestamp(moment // 1000, UTC).astimezone(ZoneInfo(self.timezone))
        last = moment
        # Fixed times stand in local time, where an hour that comes twice is one: what is found
        # from within its second coming may lie in its first, and has been.
        for repeated, found in enumerate(CronSim(_NAMED.get(self.cron, self.cron), begun)):
            tick = round(found.timestamp() * 1000)
            if tick > last:
                yield tick
                last = tick
            elif repeated > _REPEATED:
                return


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done now: start a run for ``tick``, if there is one, and look again at
    ``next_at``. ``missed`` ticks before it have no run."""

    tick: int | None
    missed: int
    next_at: int | None


def check(timetable: Timetable) -> None:
    """Refuse a timetable that cannot be used.

    Raises:
        BadTimetable: says which part, and what to give instead.
    """
    zone_of(timetable.timezone)
    if timetable.every is not None and not EVERY_MIN <= timetable.every <= EVERY_MAX:
        words = f"must be a number of seconds from {EVERY_MIN} to {EVERY_MAX:,}"
        raise BadTimetable("every", words)
    if timetable.cron is not None:
        _check_cron(timetable)


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone by its name.

    Raises:
        BadTimetable: there is none of that name.
    """
    if _ZONE.fullmatch(name) and name not in _OF_THE_MACHINE:
        try:
            return ZoneInfo(name)
        except (ZoneInfoNotFoundError, OSError, ValueError):
            pass  # said below, as of a name that has not even the form of one
    raise BadTimetable("timezone", "must be the name of a time zone such as Europe/Berlin, or UTC")


def _check_cron(timetable: Timetable) -> None:
    expression = timetable.cron or ""
    fields = _NAMED.get(expression, expression).split()
    remedy = "five fields (minute, hour, day, month, day of the week) or @hourly, @daily and so on"
    if len(expression) > CRON_MAX or not expression.isascii() or len(fields) != 5:
        raise BadTimetable("cron", f"must be a cron expression: {remedy}")
    try:
        CronSim(" ".join(fields), datetime(2000, 1, 1, tzinfo=UTC))
    except (CronSimError, ValueError) as error:
        raise BadTimetable("cron", f"must be a cron expression: {error}") from error
    if timetable.after(0) is None:
        raise BadTimetable("cron", "names a day that never comes; give another")


def due(timetable: Timetable, next_at: int, now: int, policy: Policy) -> Due:
    """Say what a schedule that waits for ``next_at`` does at ``now``.

    ``once`` starts one run for the last tick that has passed; ``skip`` does so only if that is on
    time; ``all`` starts one for each of the last 100, one at a call: the rest stays due.
    """
    if next_at > now:
        return Due(None, 0, next_at)
    passed = [next_at]
    for tick in timetable.ticks(next_at):
        if tick > now or len(passed) > COUNTED_MAX:
            break
        passed.append(tick)
    missed = min(len(passed) - 1, COUNTED_MAX)
    if len(passed) > COUNTED_MAX:
        passed = _latest(timetable, now)
    if policy == "all":
        made_up = passed[-ALL_MAX:]
        left_out = missed - len(made_up) + 1 if len(made_up) == ALL_MAX else 0
        return Due(made_up[0], left_out, timetable.after(made_up[0]))
    last = passed[-1]
    following = timetable.after(max(last, now))
    if policy == "skip" and now - last > ON_TIME_MS:
        return Due(None, missed + 1, following)
    return Due(last, missed, following)


def _latest(timetable: Timetable, now: int) -> list[int]:
    """Return the last ticks up to now, at least as many as are made up for, without walking there
    from the first one."""
    found: list[int] = []
    for window in _WINDOWS:
        found = []
        for tick in timetable.ticks(now - window):
            if tick > now:
                break
            found.append(tick)
        if len(found) >= ALL_MAX:
            break
    return found


def moment_of(text: str, timezone: str) -> int:
    """Read an ISO 8601 time, in the time zone unless it says its own; return Unix milliseconds.

    Raises:
        BadTimetable: it is no time.
    """
    zone = zone_of(timezone)
    try:
        moment = datetime.fromisoformat(text)
        return milliseconds(moment if moment.tzinfo is not None else moment.replace(tzinfo=zone))
    except (ValueError, OverflowError) as error:
        words = "must be a time such as 2026-01-31T12:00:00Z"
        raise BadTimetable("at", words) from error
