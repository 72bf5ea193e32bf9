"""Windows that keep what was used by when it was reserved, so that every settlement is exact.

Floor 1, pure.
"""

from __future__ import annotations

from abc import ABC

from extproc.policy.counters.base import Counter, Ticket, W


class SlotCounter(Counter[W], ABC):
    """What was used, by the time a slot or period began; none of them holds 0."""

    __slots__ = ("_first", "_slots")

    def __init__(self) -> None:
        super().__init__()
        self._slots: dict[int, int] = {}
        self._first: int | None = None  # the first reservation whose amount is in here

    def reset(self) -> None:
        """See `Counter.reset`."""
        self._slots.clear()
        self._first = None

    def _is_written(self) -> bool:
        return bool(self._slots)

    def _add(self, begin_us: int, amount: int, number: int) -> None:
        if self._first is None:
            self._first = number
        if amount:
            self._slots[begin_us] = self._slots.get(begin_us, 0) + amount

    def _replace(self, ticket: Ticket, returned: int, owed: int) -> None:
        """Settle into the ticket's slot; what a reset has forgiven is not given back once more."""
        used = self._slots.get(ticket.begin_us, 0)
        if self._first is not None and self._first <= ticket.number:
            used = max(0, used - returned)
        if used + owed:
            self._slots[ticket.begin_us] = used + owed
        else:
            self._slots.pop(ticket.begin_us, None)
