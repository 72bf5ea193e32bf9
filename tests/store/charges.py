"""Charges for tests, and what their counters have used."""

from __future__ import annotations

import itertools
from dataclasses import replace

from extproc.decision import CalendarWindow, Charge, PolicyRef, TokenBucket, Unit, Window
from extproc.store.base import Store

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
DAY_US = 86_400 * SECOND_US
PROBES = itertools.count()
NOW_US = 1_800_000_000 * SECOND_US
BUCKET = TokenBucket(60, MINUTE_US, 10)


def charge(
    counter: str = "c",
    amount: int = 1,
    *,
    minimum: int | None = None,
    burst: int = 10,
    window: Window | None = None,
    enforced: bool = True,
    must_count: bool = False,
) -> Charge:
    """On a bucket of `burst` that refills one a second, or on any other window."""
    return Charge(
        policy=PolicyRef("RateLimit", counter),
        counter=counter,
        unit=Unit.TOKENS,
        amount=amount,
        minimum=amount if minimum is None else minimum,
        window=window or replace(BUCKET, burst=burst),
        enforced=enforced,
        must_count=must_count,
    )


async def used(store: Store, counter: str = "c", at_us: int = NOW_US) -> int:
    """What a counter has used, asked without taking anything."""
    probe = charge(counter, 10**6, burst=10)
    (outcome,) = await store.reserve(f"probe-{next(PROBES)}", (probe,), at_us)
    return outcome.used


def days(at_us: int, size: int) -> CalendarWindow:
    """The days around a time, in UTC."""
    begin_us = at_us - at_us % DAY_US
    return CalendarWindow(
        size, "day", (begin_us - DAY_US, begin_us, begin_us + DAY_US, begin_us + 2 * DAY_US)
    )
