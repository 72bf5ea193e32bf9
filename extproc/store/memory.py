"""Counters in this process: for one sidecar, or for trying things out.

Floor 3. No arithmetic here: that is `policy.counters`'. Nothing is awaited inside a call, so each call
is one step for every other task of the event loop; a store belongs to one loop.
"""

from __future__ import annotations

import copy
import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from extproc.decision import Charge, ChargeOutcome, Leases
from extproc.policy import counters
from extproc.policy.counters import AnyCounter, Ticket
from extproc.store.base import CounterState
from extproc.store.changes import Changes

# A reservation is about 1 kB; long streams keep theirs open for minutes.
OPEN_RESERVATIONS = 200_000
# Only repetitions of a call that just happened need these.
REMEMBERED_DECISIONS = 10_000
COUNTERS = 1_000_000
# How many counters a new one may look at to find a place.
_LOOK_AT = 16


@dataclass(frozen=True, slots=True)
class _Reservation:
    outcomes: tuple[ChargeOutcome, ...]
    tickets: tuple[Ticket | None, ...]  # None: unavailable, nothing was taken


class MemoryStore:
    """A `Store` in dictionaries; every table is bounded.

    A reservation pushed out by newer ones stays charged as reserved. A counter is forgotten only
    once it equals one that nobody used; where the table is full of others, a charge on a new counter
    is unavailable and every other charge counts as ever. What is seeded or overridden has a place even
    then. One that `awaits_seed` knows what its counters are only then: until `seed` is called, a charge
    that must be counted is unavailable.
    """

    is_immediate = True
    is_shared = False

    def __init__(
        self,
        *,
        open_reservations: int = OPEN_RESERVATIONS,
        remembered_decisions: int = REMEMBERED_DECISIONS,
        counters: int = COUNTERS,
        awaits_seed: bool = False,
    ) -> None:
        self._awaits_seed = awaits_seed
        self._counters: dict[str, AnyCounter] = {}
        self._open: OrderedDict[str, _Reservation] = OrderedDict()
        self._closed: OrderedDict[str, tuple[ChargeOutcome, ...]] = OrderedDict()
        self._numbers = itertools.count()
        self._changes = Changes(most_forgotten=counters)
        self._sweep: Iterator[str] = iter(())
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
        asked = [(charge, self._counter(charge, at_us)) for charge in charges]
        uncounted = {
            charge.counter for charge, counter in asked if not self._is_known(charge, counter, at_us)
        }
        is_taken = all(counter.fits(charge, at_us) for charge, counter in asked if charge.enforced)
        if is_taken:
            # A request that is denied anyway needs no counter: it leaves none behind.
            uncounted |= self._without_room(charges, at_us)
            is_taken = not any(c.enforced and c.must_count for c in charges if c.counter in uncounted)
        if not is_taken:
            outcomes = tuple(
                _unavailable(charge, counter, at_us)
                if charge.counter in uncounted
                else counter.decline(charge, at_us)
                for charge, counter in asked
            )
            self._close(decision_id, outcomes)
            return outcomes
        number = next(self._numbers)
        taken = [
            (_unavailable(charge, counter, at_us), None)
            if charge.counter in uncounted
            else self._take(charge, counter, number, at_us)
            for charge, counter in asked
        ]
        reservation = _Reservation(tuple(each for each, _ in taken), tuple(each for _, each in taken))
        self._open[decision_id] = reservation
        self._forget_oldest()
        return reservation.outcomes

    async def settle(self, decision_id: str, amounts: Mapping[str, int], at_us: int) -> bool:
        """See `Store.settle`."""
        reservation = self._open.pop(decision_id, None)
        if reservation is None:
            return False
        for charge, ticket in _taken(reservation):
            counter = self._counters.get(charge.counter) or counters.unused(charge.window)
            counter.settle(charge, ticket, amounts.get(charge.counter, 0), at_us)
            self._keep(charge.counter, counter, at_us)
        self._close(decision_id, reservation.outcomes)
        return True

    async def renew(self, decision_ids: Iterable[str], at_us: int) -> None:
        """See `Store.renew`."""
        for decision_id in decision_ids:
            reservation = self._open.get(decision_id)
            if reservation is None:
                continue
            for charge, ticket in _taken(reservation):
                counter = self._counters.get(charge.counter)
                if counter is not None:
                    counter.renew(charge, ticket, at_us)

    async def read(self, charges: tuple[Charge, ...], at_us: int) -> tuple[ChargeOutcome, ...]:
        """See `Store.read`."""
        outcomes = []
        for charge in charges:
            counter = copy.deepcopy(self._counters.get(charge.counter)) or counters.unused(charge.window)
            counter.adopt(charge, at_us)
            if not self._is_known(charge, counter, at_us):
                outcomes.append(_unavailable(charge, counter, at_us))
            elif charge.enforced and not counter.fits(charge, at_us):
                outcomes.append(counter.decline(charge, at_us))
            else:
                outcomes.append(counter.reserve(charge, next(self._numbers), at_us)[0])
        return tuple(outcomes)

    async def reset(self, charge: Charge, at_us: int) -> None:
        """See `Store.reset`."""
        counter = self._counters.get(charge.counter)
        if counter is not None:
            counter.reset()
            self._keep(charge.counter, counter, at_us)

    async def override(self, charge: Charge, extra: int, until_us: int, at_us: int) -> None:
        """See `Store.override`."""
        self._without_room((charge,), at_us)
        counter = self._counters.get(charge.counter) or counters.unused(charge.window)
        counter.override(extra, until_us)
        self._keep(charge.counter, counter, at_us)
        if charge.counter in self._counters:
            self._changes.note(charge.counter, counter)

    def changed(self) -> tuple[CounterState, ...]:
        """See `Store.changed`; the first call answers all there are, if nobody seeded any before."""
        return self._changes.take(self._counters)

    async def seed(self, states: Iterable[CounterState]) -> None:
        """See `Store.seed`."""
        self._awaits_seed = False
        self._changes.begin(self._counters)
        for seeded in states:
            known = self._counters.get(seeded.counter)
            if known is not None and known.version >= seeded.version:
                continue
            self._changes.continue_from(seeded)
            self._counters.pop(seeded.counter, None)
            if seeded.state:
                counter = counters.load(seeded.state)
                counter.version = seeded.version
                self._counters[seeded.counter] = counter

    async def close(self) -> None:
        """Nothing to let go of."""

    def _is_known(self, charge: Charge, counter: AnyCounter, at_us: int) -> bool:
        """Whether anybody knows what was used: the clock is in the window, the earlier run was asked."""
        is_missed = self._awaits_seed and charge.must_count and not isinstance(charge.window, Leases)
        return counter.covers(charge, at_us) and not is_missed

    def _counter(self, charge: Charge, at_us: int) -> AnyCounter:
        """The charge's counter, or one that nobody used and that has no place yet."""
        counter = self._counters.get(charge.counter)
        if counter is None:
            return counters.unused(charge.window)
        if counter.adopt(charge, at_us):
            self._changes.note(charge.counter, counter)
        return counter

    def _take(
        self, charge: Charge, counter: AnyCounter, number: int, at_us: int
    ) -> tuple[ChargeOutcome, Ticket]:
        answered = counter.reserve(charge, number, at_us)
        self._keep(charge.counter, counter, at_us)
        return answered

    def _keep(self, name: str, counter: AnyCounter, at_us: int) -> None:
        """Keep a counter that changed for as long as anybody could tell it from a new one."""
        if counter.is_fresh(at_us):
            self._forget(name)
            return
        self._counters[name] = counter
        if counter.is_lasting:
            self._changes.note(name, counter)

    def _forget(self, name: str) -> None:
        counter = self._counters.pop(name, None)
        if counter is not None:
            self._changes.note_forgotten(name, counter)

    def _forget_oldest(self) -> None:
        """Bound what is open; what is pushed out stays charged as reserved."""
        while len(self._open) > self._max_open:
            _, pushed_out = self._open.popitem(last=False)
            for charge, ticket in _taken(pushed_out):
                counter = self._counters.get(charge.counter)
                if counter is not None:
                    counter.abandon(ticket)

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
        """Forget counters that are whole again; all of them are looked at in turn."""
        for _ in range(min(_LOOK_AT, len(self._counters))):
            if len(self._counters) + wanted <= self._max_counters:
                return
            name = next(self._sweep, None)
            if name is None:
                self._sweep = iter(list(self._counters))
                name = next(self._sweep)
            counter = self._counters.get(name)
            if counter is not None and name not in in_use and counter.is_fresh(at_us):
                self._forget(name)


def _taken(reservation: _Reservation) -> Iterator[tuple[Charge, Ticket]]:
    for outcome, ticket in zip(reservation.outcomes, reservation.tickets, strict=True):
        if ticket is not None:
            yield outcome.charge, ticket


def _unavailable(charge: Charge, counter: AnyCounter, at_us: int) -> ChargeOutcome:
    return replace(counter.decline(charge, at_us), granted=False, unavailable=True)
