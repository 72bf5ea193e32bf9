"""Numbers, money and times as pages write them.

Floor 3, but pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from types import MappingProxyType
from typing import Final

from extproc.decision import Unit
from extproc.policy import money
from extproc.policy.calendar import moment

_NOUNS: Mapping[Unit, tuple[str, str]] = MappingProxyType(
    {
        Unit.REQUESTS: ("request", "requests"),
        Unit.TOKENS: ("token", "tokens"),
        Unit.INPUT_TOKENS: ("input token", "input tokens"),
        Unit.OUTPUT_TOKENS: ("output token", "output tokens"),
        Unit.CONCURRENT_REQUESTS: ("request in flight", "requests in flight"),
    }
)
NO_CALENDAR: Final = "a time beyond calendars"  # a limit that refills in a million years
_SECOND_MS: Final = 1_000
_MINUTE_MS: Final = 60 * _SECOND_MS
# Two neighbours of these say a time well enough; it is rounded up, so that who waits it is not early.
_SPANS: Final = (("d", 86_400_000), ("h", 3_600_000), ("min", _MINUTE_MS), ("s", _SECOND_MS))


def dollars(nano_usd: int) -> str:
    """Money to the last digit that is there: $1,234.50, $0.000015."""
    whole, _, decimals = money.written(abs(nano_usd)).removeprefix("$").partition(".")
    return f"{'-' if nano_usd < 0 else ''}${int(whole):,}.{decimals}"


def number(unit: Unit, amount: int) -> str:
    """An amount without its noun: 4,950 or $12.50."""
    return dollars(amount) if unit is Unit.COST_USD else f"{amount:,}"


def quantity(unit: Unit, amount: int) -> str:
    """An amount with its noun; money has its sign for one."""
    if unit is Unit.COST_USD:
        return dollars(amount)
    one, many = _NOUNS[unit]
    return counted(amount, one, many)


def counted(amount: int, one: str, many: str = "") -> str:
    """A number of things: 1 choice, 2 choices."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def span(ms: int) -> str:
    """How long: 120 ms, 12 s, 1 min 30 s, 9 d 4 h."""
    if ms < _SECOND_MS:
        return f"{max(0, ms)} ms"
    if ms < _MINUTE_MS:
        return f"{-(-ms // 100) / 10:g} s"
    first = next(place for place, (_, length) in enumerate(_SPANS) if ms >= length)
    (large, large_ms), (small, small_ms) = _SPANS[first : first + 2]
    steps = -(-ms // small_ms)
    count, rest = divmod(steps, large_ms // small_ms)
    return f"{count} {large}" + (f" {rest} {small}" if rest else "")


def instant(at_us: int) -> str:
    """When something happened, in UTC to the millisecond, as logs have it."""
    try:
        return datetime.fromtimestamp(at_us / 1_000_000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
    except (OverflowError, ValueError, OSError):
        return NO_CALENDAR


def time(at_us: int, zone: tzinfo = UTC) -> str:
    """A time as the zone's clock shows it, with its offset."""
    try:
        return moment(at_us, zone)
    except (OverflowError, ValueError, OSError):
        return NO_CALENDAR
