"""Counters of what was used, and of what would have been used under other policies.

Floor 3. Both are stores in memory, told the same times. What is on record corrects the first one, and
whatever corrected it corrects the second: what was used before the first record, by requests that left
none, or given back by a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import singledispatch
from itertools import count

from extproc.decision import (
    CalendarWindow,
    Charge,
    ChargeOutcome,
    Decision,
    Effect,
    Leases,
    SlidingWindow,
    TokenBucket,
    Window,
)
from extproc.store.base import Store
from extproc.store.memory import MemoryStore

# More than any limit may be.
_ROOM = 2**60
_FOREVER_US = 2**62


async def use(store: Store, charge: Charge, amount: int, at_us: int, *, name: str) -> None:
    """Use so much more of the charge's counter, whether there is room for it or not; once a `name`."""
    if isinstance(charge.window, Leases):
        # What is settled is no lease any more: these stay open.
        await store.reserve(name, (_forced(charge, amount),), at_us)
        return
    await store.reserve(name, (_forced(charge, 0),), at_us)
    await store.settle(name, {charge.counter: amount}, at_us)


class Counts:
    """Call `happened` with a decision of the ledger, then `reserve` what it would take now."""

    def __init__(self) -> None:
        self._then = MemoryStore()
        self._now = MemoryStore()
        self._names = count()
        # By counter: what nobody on record gave back, and what an owner granted on top of the limit.
        self._surplus: dict[str, int] = {}
        self._granted: dict[str, int] = {}
        self._lent: dict[str, int] = {}
        self._known: set[str] = set()

    def is_known(self, counter: str) -> bool:
        """Whether any record says what was used of it."""
        return counter in self._known

    async def happened(self, decision: Decision, at_us: int, held_us: int) -> None:
        """Take what the decision took, after agreeing on what was used before it.

        `held_us` is how long its leases lasted.
        """
        was_taken = decision.enforced_effect is Effect.ALLOW
        charges = tuple(
            _forced(_held(outcome.charge, held_us), outcome.reserved if was_taken else 0)
            for outcome in decision.outcomes
        )
        if not charges:
            return
        found = await self._then.reserve(decision.id, charges, at_us)
        for recorded, counted in zip(decision.outcomes, found, strict=True):
            await self._agree(recorded, counted.used, at_us)
        if not was_taken:
            await self._then.settle(decision.id, {}, at_us)

    async def _agree(self, recorded: ChargeOutcome, counted: int, at_us: int) -> None:
        charge, missing = recorded.charge, recorded.used - counted
        self._known.add(charge.counter)
        if missing > 0:
            name = f"unrecorded {next(self._names)}"
            for store in (self._then, self._now):
                await use(store, charge, missing, at_us, name=name)
        self._surplus[charge.counter] = max(0, -missing)
        self._granted[charge.counter] = recorded.limit - charge.window.size

    async def settled(self, decision: Decision, amounts: Mapping[str, int], at_us: int) -> None:
        """What the decision came to then."""
        unowed = {
            outcome.charge.counter: outcome.reserved for outcome in decision.outcomes if not outcome.granted
        }
        # A shadow limit that was full owes nothing.
        spent = {name: min(amount, unowed.get(name, amount)) for name, amount in amounts.items()}
        await self._then.settle(decision.id, spent, at_us)

    # --- what would be

    async def reserve(
        self, name: str, charges: tuple[Charge, ...], at_us: int, held_us: int
    ) -> tuple[ChargeOutcome, ...]:
        """What the store would answer; see `Store.reserve`."""
        for charge in charges:
            await self._lend(charge, at_us)
        held = tuple(_held(charge, held_us) for charge in charges)
        outcomes = await self._now.reserve(name, held, at_us)
        return tuple(self._told(outcome, charge) for outcome, charge in zip(outcomes, charges, strict=True))

    async def settle(self, name: str, amounts: Mapping[str, int], at_us: int) -> None:
        """What it would come to."""
        await self._now.settle(name, amounts, at_us)

    async def repeat(self, name: str, decision: Decision, at_us: int, held_us: int) -> None:
        """Take what the decision took then."""
        if decision.enforced_effect is Effect.ALLOW:
            taken = (_forced(_held(each.charge, held_us), each.reserved) for each in decision.outcomes)
            await self._now.reserve(name, tuple(taken), at_us)

    async def _lend(self, charge: Charge, at_us: int) -> None:
        """Make room for what was granted, and for what was given back without a record."""
        counter = charge.counter
        surplus = self._surplus.get(counter, 0)
        if surplus:
            (found,) = await self._now.read((_forced(charge, 0),), at_us)
            surplus = min(surplus, found.used)
        extra = self._granted.get(counter, 0) + surplus
        if extra or self._lent.get(counter):
            await self._now.override(charge, extra, _FOREVER_US, at_us)
        self._lent[counter] = extra

    def _told(self, outcome: ChargeOutcome, charge: Charge) -> ChargeOutcome:
        """The answer in the figures that people know: nothing lent in them."""
        lent = self._lent[charge.counter] - self._granted.get(charge.counter, 0)
        limit = outcome.limit - lent
        return replace(
            outcome,
            charge=charge,
            used=outcome.used - lent,
            limit=limit,
            wait_us=None if charge.minimum > limit else outcome.wait_us,
        )


def _held(charge: Charge, held_us: int) -> Charge:
    """A lease that lasts as long as its request did, which nobody renews here."""
    window = charge.window
    if not isinstance(window, Leases) or held_us <= window.ttl_us:
        return charge
    return replace(charge, window=replace(window, ttl_us=held_us))


def _forced(charge: Charge, amount: int) -> Charge:
    return replace(charge, amount=amount, minimum=amount, enforced=False, window=_roomy(charge.window))


@singledispatch
def _roomy(window: Window) -> Window:
    """The same window without an end to what it holds."""
    raise TypeError(type(window))


@_roomy.register
def _(window: TokenBucket) -> Window:
    return replace(window, burst=_ROOM)


@_roomy.register(SlidingWindow)
@_roomy.register(CalendarWindow)
@_roomy.register(Leases)
def _(window: SlidingWindow | CalendarWindow | Leases) -> Window:
    return replace(window, size=_ROOM)
