"""Charges for tests, and what their counters have used."""

from __future__ import annotations

import itertools

from extproc.decision import Charge, PolicyRef, TokenBucket, Unit
from extproc.store.base import Store

SECOND_US = 1_000_000
PROBES = itertools.count()
NOW_US = 1_800_000_000 * SECOND_US


def charge(
    counter: str = "c",
    amount: int = 1,
    *,
    minimum: int | None = None,
    burst: int = 10,
    enforced: bool = True,
    must_count: bool = False,
) -> Charge:
    """A bucket of `burst` that refills one a second."""
    return Charge(
        policy=PolicyRef("RateLimit", counter),
        counter=counter,
        unit=Unit.TOKENS,
        amount=amount,
        minimum=amount if minimum is None else minimum,
        window=TokenBucket(60, 60 * SECOND_US, burst),
        enforced=enforced,
        must_count=must_count,
    )


async def used(store: Store, counter: str = "c", at_us: int = NOW_US) -> int:
    """What a counter has used, asked without taking anything."""
    probe = charge(counter, 10**6, burst=10)
    (outcome,) = await store.reserve(f"probe-{next(PROBES)}", (probe,), at_us)
    return outcome.used
