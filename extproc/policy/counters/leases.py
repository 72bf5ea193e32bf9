"""Leases: how many reservations are open at once.

Floor 1, pure. A lease ends when its reservation is settled, or by itself where nobody renews it: whoever
held it is gone. What ended so cannot be renewed, for somebody else may have its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from extproc.decision import Charge, Leases
from extproc.policy.counters.base import Counter, Ticket

# When a lease ends nobody knows: whoever is denied may ask again after this.
ASK_AGAIN_US = 1_000_000


class LeaseCounter(Counter[Leases]):
    """What each open reservation holds, and until when."""

    __slots__ = ("_held",)

    is_lasting: ClassVar[bool] = False

    def __init__(self, window: Leases | None = None) -> None:
        del window
        super().__init__()
        self._held: dict[int, tuple[int, int]] = {}  # reservation -> until_us, amount

    def renew(self, charge: Charge, ticket: Ticket, at_us: int) -> None:
        """See `Counter.renew`."""
        window = charge.window
        assert isinstance(window, Leases)  # noqa: S101
        until_us, amount = self._held.get(ticket.number, (at_us, 0))
        if until_us > at_us:
            self._held[ticket.number] = (at_us + window.ttl_us, amount)

    def reset(self) -> None:
        """See `Counter.reset`."""
        self._held.clear()

    def _used(self, window: Leases, at_us: int) -> int:
        del window
        return sum(amount for until_us, amount in self._held.values() if until_us > at_us)

    def _wait_us(self, window: Leases, free: int, at_us: int) -> int:
        return 0 if self._used(window, at_us) <= free else ASK_AGAIN_US

    def _reset_us(self, window: Leases, at_us: int) -> int:
        return self._wait_us(window, 0, at_us)

    def _take(self, window: Leases, amount: int, number: int, at_us: int) -> int:
        for over in [number for number, (until_us, _) in self._held.items() if until_us <= at_us]:
            del self._held[over]
        if amount:
            self._held[number] = (at_us + window.ttl_us, amount)
        return 0

    def _settle(self, window: Leases, ticket: Ticket, returned: int, owed: int, at_us: int) -> None:
        """End the lease, whatever was spent."""
        del window, returned, owed, at_us
        self._held.pop(ticket.number, None)

    def _is_whole(self, at_us: int) -> bool:
        return all(until_us <= at_us for until_us, _ in self._held.values())

    def _is_written(self) -> bool:
        return False

    def _fields(self) -> dict[str, Any]:
        return {"leases": {}}

    @classmethod
    def _of(cls, fields: Mapping[str, Any]) -> Self:
        del fields
        return cls()
