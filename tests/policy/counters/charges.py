"""Charges of every window for the tests of counters, and what hypothesis draws."""

from __future__ import annotations

from hypothesis import strategies as st

from extproc.decision import (
    CalendarWindow,
    Charge,
    Leases,
    PolicyRef,
    SlidingWindow,
    TokenBucket,
    Unit,
    Window,
)

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
DAY_US = 86_400 * SECOND_US
NOW_US = 1_800_000_000 * SECOND_US
# Of a day each, the second of them just begun.
EDGES_US = (NOW_US - DAY_US, NOW_US, NOW_US + DAY_US, NOW_US + 2 * DAY_US)

WINDOWS: dict[str, Window] = {
    "bucket": TokenBucket(60, MINUTE_US, 100),
    "sliding": SlidingWindow(100, MINUTE_US),
    "calendar": CalendarWindow(100, "day", EDGES_US),
    "leases": Leases(100, MINUTE_US),
}


def charge(window: Window, amount: int = 1, *, minimum: int | None = None) -> Charge:
    return Charge(
        policy=PolicyRef("UsageCap", "l"),
        counter="c",
        unit=Unit.TOKENS,
        amount=amount,
        minimum=amount if minimum is None else minimum,
        window=window,
    )


# What happens to a counter: the time that passes before, what is asked for, which part of it is spent,
# and how long that takes.
plans = st.lists(
    st.tuples(
        st.integers(0, 20 * SECOND_US),
        st.integers(1, 120),
        st.integers(0, 200),
        st.integers(0, 90 * SECOND_US),
    ),
    max_size=25,
)
