"""Counters in this process: for one sidecar, or for trying things out.

Floor 3. No arithmetic here: that is `policy.limits`. Nothing is awaited inside a call, so each call
is one step for every other task of the event loop; a store belongs to one loop.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from extproc.decision import Charge, ChargeOutcome
from extproc.policy import limits
from extproc.policy.limits import Bucket
from extproc.policy.lows import Lows

# A reservation is about 1 kB; long streams keep theirs open for minutes.
OPEN_RESERVATIONS = 200_000
# Only repetitions of a call that just happened need these.
REMEMBERED_DECISIONS = 10_000
COUNTERS = 1_000_000
# How many counters a new one may look at to find a place.
_LOOK_AT = 16


@dataclass(slots=True)
class _Counter:
    bucket: Bucket
    rate_amount: int
    lows: Lows = field(default_factory=Lows)


@dataclass(frozen=True, slots=True)
class _Reservation:
    number: int  # of all that this store made
    outcomes: tuple[ChargeOutcome, ...]


class MemoryStore:
    """A `Store` in dictionaries; every table is bounded.

    A reservation pushed out by newer ones stays charged as reserved. A counter is forgotten only
    once it equals one that nobody used; where the table is full of others, a charge on a new counter
    is unavailable and every other charge counts as ever.
    """

    is_immediate = True

    def __init__(
        self,
        *,
        open_reservations: int = OPEN_RESERVATIONS,
        remembered_decisions: int = REMEMBERED_DECISIONS,
        counters: int = COUNTERS,
    ) -> None:
        self._counters: OrderedDict[str, _Counter] = OrderedDict()
        self._open: OrderedDict[str, _Reservation] = OrderedDict()
        self._closed: OrderedDict[str, tuple[ChargeOutcome, ...]] = OrderedDict()
        self._numbers = itertools.count()
        self._max_open = open_reservations
        self._max_closed = remembered_decisions
        self._max_counters = counters

    async def reserve(
        self, decision_id: str, charges: tuple[Charge, ...], at_us: int
    ) -> tuple[ChargeOutcome, ...]:
        """See `Store.reserve`."""
        known = self._open.get(decision_id)
        if known is not None:
            return known.outcomes
        if decision_id in self._closed:
            return self._closed[decision_id]
        buckets = [self._bucket(charge, at_us) for charge in charges]
        pairs = list(zip(charges, buckets, strict=True))
        is_taken = all(limits.fits(bucket, charge) for charge, bucket in pairs if charge.enforced)
        # A request that is denied anyway needs no counter: it leaves none behind.
        homeless = self._without_room(charges, at_us) if is_taken else frozenset[str]()
        is_taken &= not any(c.enforced and c.must_count for c in charges if c.counter in homeless)
        number = next(self._numbers) if is_taken else None
        outcomes = tuple(
            _unavailable(charge, bucket, at_us)
            if charge.counter in homeless
            else self._outcome(charge, bucket, at_us, number)
            for charge, bucket in pairs
        )
        if number is not None:
            self._open[decision_id] = _Reservation(number, outcomes)
            self._forget_oldest()
        else:
            self._close(decision_id, outcomes)
        return outcomes

    async def settle(self, decision_id: str, amounts: Mapping[str, int], at_us: int) -> bool:
        """See `Store.settle`."""
        reservation = self._open.pop(decision_id, None)
        if reservation is None:
            return False
        for taken in reservation.outcomes:
            if taken.unavailable:
                continue
            charge = taken.charge
            bucket = limits.settle(
                self._bucket(charge, at_us),
                charge,
                self._lows(charge),
                reservation.number,
                reserved=taken.reserved,
                spent=amounts.get(charge.counter, 0),
                granted=taken.granted,
            )
            self._keep(charge, bucket)
        self._close(decision_id, reservation.outcomes)
        return True

    async def close(self) -> None:
        """Nothing to let go of."""

    def _bucket(self, charge: Charge, at_us: int) -> Bucket:
        """The counter's bucket, refilled until now at the rate it had so far."""
        counter = self._counters.get(charge.counter)
        if counter is None:
            return Bucket(0, at_us)
        return limits.used_at(counter.bucket, counter.rate_amount, at_us)

    def _lows(self, charge: Charge) -> Lows:
        """Those of the charge's counter; a counter that is whole has none to speak of."""
        counter = self._counters.get(charge.counter)
        return Lows() if counter is None else counter.lows

    def _outcome(self, charge: Charge, before: Bucket, at_us: int, number: int | None) -> ChargeOutcome:
        """Take the charge as reservation `number`; None takes nothing."""
        after, reserved = before, 0
        if number is not None:
            after, reserved = limits.reserve(before, charge)
            self._lows(charge).look(before.used_scaled)
            self._keep(charge, after)
            self._lows(charge).open(number, after.used_scaled)
        return limits.outcome(
            before, after, charge, granted=limits.fits(before, charge), reserved=reserved, at_us=at_us
        )

    def _keep(self, charge: Charge, bucket: Bucket) -> None:
        if bucket.used_scaled == 0:
            # Whoever has a reservation open on it has nothing to get back any more.
            self._counters.pop(charge.counter, None)
            return
        counter = self._counters.get(charge.counter)
        if counter is None:
            self._counters[charge.counter] = _Counter(bucket, charge.window.amount)
            return
        counter.bucket, counter.rate_amount = bucket, charge.window.amount
        self._counters.move_to_end(charge.counter)

    def _forget_oldest(self) -> None:
        """Bound what is open; what is pushed out stays charged as reserved."""
        while len(self._open) > self._max_open:
            _, pushed_out = self._open.popitem(last=False)
            for outcome in pushed_out.outcomes:
                self._lows(outcome.charge).close(pushed_out.number, 0)

    def _close(self, decision_id: str, outcomes: tuple[ChargeOutcome, ...]) -> None:
        self._closed[decision_id] = outcomes
        while len(self._closed) > self._max_closed:
            self._closed.popitem(last=False)

    def _without_room(self, charges: tuple[Charge, ...], at_us: int) -> frozenset[str]:
        """The new counters that find no place; what is enforced is placed first."""
        if len(self._counters) + len(charges) <= self._max_counters:
            return frozenset()
        ordered = sorted(charges, key=lambda charge: not charge.enforced)
        new = list(dict.fromkeys(c.counter for c in ordered if c.counter not in self._counters))
        self._make_room(len(new), {charge.counter for charge in charges}, at_us)
        free = max(0, self._max_counters - len(self._counters))
        return frozenset(new[free:])

    def _make_room(self, wanted: int, in_use: set[str], at_us: int) -> None:
        """Forget counters that are whole again; the least recently used are looked at in turn."""
        for _ in range(min(_LOOK_AT, len(self._counters))):
            if len(self._counters) + wanted <= self._max_counters:
                return
            name, counter = next(iter(self._counters.items()))
            refilled = limits.used_at(counter.bucket, counter.rate_amount, at_us)
            if refilled.used_scaled == 0 and name not in in_use:
                del self._counters[name]
            else:
                self._counters.move_to_end(name)


def _unavailable(charge: Charge, bucket: Bucket, at_us: int) -> ChargeOutcome:
    answered = limits.outcome(bucket, bucket, charge, granted=False, reserved=0, at_us=at_us)
    return replace(answered, unavailable=True)
