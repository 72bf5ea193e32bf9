"""Counters: what a limit's window has used, one file an algorithm; the registry is here.

Floor 1, pure: time, and the numbers of reservations, are arguments. A store keeps counters by name and
calls them; one that keeps them elsewhere does the same sums there, and writes the same states.

Written down, a counter is a JSON object of integers; "" is one that nobody used. Counters of every
algorithm may hold `extra` and `until_us`: an override, until it is replaced or the counter is forgotten.

    token bucket     {"used": 3, "rest": 0, "at_us": .., "amount": .., "per_us": ..}
    sliding window   {"slots": {"<begin_us>": 3}, "per_us": ..}
    calendar window  {"slots": {"<begin_us>": 3}, "ends_us": ..}
    leases           {"leases": {}}, and only where there is an override

A bucket has `used` whole units and `rest` / `per_us` of one more in use at `at_us`, when it last changed;
since then it refills `amount` every `per_us`. A slot that holds nothing is not written; a sliding window
writes those that counted when it last changed, a calendar window at most four periods and `ends_us`, the
end of the last one. Leases themselves are never written: who held them is gone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from extproc.decision import CalendarWindow, Leases, SlidingWindow, TokenBucket, Window
from extproc.policy.counters.base import Counter, Ticket
from extproc.policy.counters.calendar_window import CalendarCounter
from extproc.policy.counters.leases import LeaseCounter
from extproc.policy.counters.sliding_window import SlidingCounter
from extproc.policy.counters.token_bucket import BucketCounter

AnyCounter = Counter[Any]

COUNTERS: Mapping[type[Window], Callable[[Any], AnyCounter]] = MappingProxyType(
    {
        TokenBucket: BucketCounter,
        SlidingWindow: SlidingCounter,
        CalendarWindow: CalendarCounter,
        Leases: LeaseCounter,
    }
)

# Found by the first of these fields that a state has.
_WRITTEN: Mapping[str, Callable[[Mapping[str, Any]], AnyCounter]] = MappingProxyType(
    {
        "used": BucketCounter.load,
        "per_us": SlidingCounter.load,
        "ends_us": CalendarCounter.load,
        "leases": LeaseCounter.load,
    }
)


def unused(window: Window) -> AnyCounter:
    """A counter of this window that nobody used."""
    return COUNTERS[type(window)](window)


def load(state: str) -> AnyCounter:
    """The counter that a state other than "" was written of; nothing of it is reserved."""
    fields = json.loads(state)
    return next(read for field, read in _WRITTEN.items() if field in fields)(fields)


__all__ = ["COUNTERS", "AnyCounter", "Ticket", "load", "unused"]
