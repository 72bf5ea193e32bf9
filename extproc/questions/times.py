"""Times as people type them: `90m` ago, `today`, `last-month`, a date or a time in a zone.

Floor 3, but pure: what time it is now is an argument.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from types import MappingProxyType
from typing import Final

from extproc.errors import QuestionInvalid
from extproc.policy import calendar

_SECOND_US: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_AGO: Final = re.compile(r"(?:[0-9]{1,9}[smhdw])+")
_AGO_PART: Final = re.compile(r"([0-9]+)([smhdw])")
_UNITS_US: Mapping[str, int] = MappingProxyType(
    {
        "s": _SECOND_US,
        "m": 60 * _SECOND_US,
        "h": 3_600 * _SECOND_US,
        "d": 86_400 * _SECOND_US,
        "w": 7 * 86_400 * _SECOND_US,
    }
)
# The period, and which of its edges is meant: 0 is the beginning of the one before, 1 of this one.
_WORDS: Mapping[str, tuple[str, int]] = MappingProxyType(
    {"today": ("day", 1), "yesterday": ("day", 0)}
    | {f"this-{period}": (period, 1) for period in calendar.PERIODS}
    | {f"last-{period}": (period, 0) for period in calendar.PERIODS}
)
ACCEPTED: Final = (
    "how long ago (90m, 24h, 7d, 2w), a date (2026-11-01), a time (2026-11-01T09:30, with or without "
    "an offset), now, today, yesterday, or this- or last- with hour, day, week, month or year"
)


def zone(name: str) -> tzinfo:
    """The zone of this IANA name. Raises `QuestionInvalid`."""
    found = calendar.zone(name)
    if found is None:
        raise QuestionInvalid(
            f"there is no time zone {name!r}; write its IANA name, such as UTC or Europe/Berlin"
        )
    return found


def moment_us(text: str, *, now_us: int, zone: tzinfo) -> int:
    """The time that a person means, in microseconds of Unix time. Raises `QuestionInvalid`."""
    said = text.strip()
    try:
        found = _by_word(said.lower(), now_us, zone)
        return _by_calendar(said, zone) if found is None else found
    except (ValueError, OverflowError, OSError):
        raise QuestionInvalid(f"{text!r} is no time; write {ACCEPTED}") from None


def check_order(since_us: int | None, until_us: int | None, *, named: str = "") -> None:
    """Raises `QuestionInvalid` where nothing lies between; `named` is what the names of both begin with."""
    if since_us is not None and until_us is not None and since_us > until_us:
        raise QuestionInvalid(f"{named}since is after {named}until: nothing lies between them")


def _by_word(said: str, now_us: int, zone: tzinfo) -> int | None:
    if said == "now":
        return now_us
    if said in _WORDS:
        period, edge = _WORDS[said]
        return calendar.edges_us(period, zone, now_us)[edge]
    if _AGO.fullmatch(said):
        return max(0, now_us - sum(int(count) * _UNITS_US[unit] for count, unit in _AGO_PART.findall(said)))
    return None


def _by_calendar(said: str, zone: tzinfo) -> int:
    try:
        day = date.fromisoformat(said)
    except ValueError:
        instant = datetime.fromisoformat(said)
        at = instant if instant.tzinfo else instant.replace(tzinfo=zone)
        return (at - _EPOCH) // _MICROSECOND
    # Not every day begins at midnight: clocks are changed then in some zones.
    noon = datetime.combine(day, time(12), zone)
    return calendar.edges_us("day", zone, int(noon.timestamp()) * _SECOND_US)[1]
