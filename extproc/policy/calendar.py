"""Calendar periods: when an hour, day, week, month or year of a time zone begins and ends.

Floor 1, pure but for the zones' rules, which `zoneinfo` reads once. Days, weeks, months and years follow
the wall clock, so that a day has 23 or 25 hours where clocks are changed; an hour is sixty minutes of
real time. Source of gaps and repeated times: PEP 495.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta, tzinfo
from types import MappingProxyType
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

Edges = tuple[int, int, int, int]

_SECOND_US: Final = 1_000_000
_HOUR_S: Final = 3600
_DAY: Final = timedelta(days=1)
# A zone's name begins with a capital. `localtime` is whatever the machine has, `right/` counts leap seconds.
_ZONE: Final = re.compile(r"[A-Z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*")
# Hours begin where the zone's clock shows a full one, as its offset is on this day. Lord Howe moves its
# clocks by half an hour; no hour of sixty minutes could follow that.
_HOURS_AS_OF: Final = datetime(2026, 1, 1, tzinfo=UTC)


def zone(name: str) -> ZoneInfo | None:
    """The zone that IANA calls `name`; None if there is none."""
    if not _ZONE.fullmatch(name):
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError, ValueError):
        # A folder's name, such as Europe, is an OSError.
        return None


def edges_us(period: str, zone: tzinfo, at_us: int) -> Edges:
    """The beginnings of the period before that of `at_us`, of its own, of the next and of the one after."""
    if period == "hour":
        return _hours(zone, at_us)
    begin, step = _BEGIN[period], _STEP[period]
    day = begin(datetime.fromtimestamp(at_us // _SECOND_US, zone).date())
    # One more on either side: the date of an instant may come twice, or an hour after the date that follows.
    days = [step(step(day, -1), -1), step(day, -1), day, step(day, 1), step(step(day, 1), 1)]
    days.append(step(days[-1], 1))
    found = sorted({_midnight_us(day, zone) for day in days})
    own = max(index for index, begins_us in enumerate(found) if begins_us <= at_us)
    before, this, after, last = found[own - 1 : own + 3]
    return before, this, after, last


def moment(at_us: int, zone: tzinfo) -> str:
    """A time as the zone's clock shows it, with its offset; rounded up to a whole second."""
    shown = datetime.fromtimestamp(-(-at_us // _SECOND_US), zone).isoformat()
    return shown.replace("+00:00", "Z") if shown.endswith("+00:00") else shown


class Calendar:
    """The periods of one length in one zone; remembers the last answer, which most requests share."""

    __slots__ = ("_edges_us", "_period", "_zone")

    def __init__(self, period: str, zone: tzinfo) -> None:
        self._period = period
        self._zone = zone
        self._edges_us: Edges = (0, 0, 0, 0)

    def edges_us(self, at_us: int) -> Edges:
        """As the function of this name."""
        edges = self._edges_us
        if not edges[1] <= at_us < edges[2]:
            self._edges_us = edges = edges_us(self._period, self._zone, at_us)
        return edges


def _hours(zone: tzinfo, at_us: int) -> Edges:
    shift_s = (_HOURS_AS_OF.astimezone(zone).utcoffset() or timedelta()) // timedelta(seconds=1)
    at_s = at_us // _SECOND_US
    begin_s = at_s - (at_s + shift_s) % _HOUR_S
    before, this, after, last = ((begin_s + hours * _HOUR_S) * _SECOND_US for hours in (-1, 0, 1, 2))
    return before, this, after, last


def _midnight_us(day: date, zone: tzinfo) -> int:
    """The first instant at which clocks show midnight of `day`, or later if midnight is skipped."""
    wall = datetime(day.year, day.month, day.day, tzinfo=zone)
    earliest_s, latest_s = (int(wall.replace(fold=fold).timestamp()) for fold in (1, 0))
    # Only where midnight is skipped does fold 1 come first: the clocks change somewhere in between.
    while earliest_s < latest_s:
        middle_s = (earliest_s + latest_s) // 2
        is_there = datetime.fromtimestamp(middle_s, zone).replace(tzinfo=None) >= wall.replace(tzinfo=None)
        earliest_s, latest_s = (earliest_s, middle_s) if is_there else (middle_s + 1, latest_s)
    return latest_s * _SECOND_US


def _month(day: date, months: int) -> date:
    count = day.year * 12 + day.month - 1 + months
    return date(count // 12, count % 12 + 1, 1)


_BEGIN: Mapping[str, Callable[[date], date]] = MappingProxyType(
    {
        "day": lambda day: day,
        "week": lambda day: day - day.weekday() * _DAY,  # Monday is 0
        "month": lambda day: day.replace(day=1),
        "year": lambda day: day.replace(month=1, day=1),
    }
)
_STEP: Mapping[str, Callable[[date, int], date]] = MappingProxyType(
    {
        "day": lambda day, steps: day + steps * _DAY,
        "week": lambda day, steps: day + 7 * steps * _DAY,
        "month": _month,
        "year": lambda day, steps: _month(day, 12 * steps),
    }
)
PERIODS: Final = ("hour", *_BEGIN)
