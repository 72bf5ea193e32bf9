"""The sliding window: no more than its size in any stretch of its length, whatever the stretch begins with.

Floor 1, pure. Use is kept by slot, a sixtieth of the length each. When in its slot something was taken
is not known, so a slot counts whole until all of it is longer ago than the length:

    per 60 s, slots of 1 s: what was taken at 10.0 s or at 10.9 s counts until 71 s

So a window admits its size in a little more than its length, never more in any stretch of it. A clock
set back finds every slot that counted before it was, and gives nobody anything; a slot that was forgotten
is never used again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from extproc.decision import SlidingWindow
from extproc.policy.counters.base import Ticket
from extproc.policy.counters.slots import SlotCounter

SLOTS = 60


class SlidingCounter(SlotCounter[SlidingWindow]):
    """What was used in each slot that counts."""

    __slots__ = ("_forgotten_us", "_per_us")

    def __init__(self, window: SlidingWindow) -> None:
        super().__init__()
        self._per_us = window.per_us
        self._forgotten_us = 0  # where the last slot that was forgotten ends

    def _used(self, window: SlidingWindow, at_us: int) -> int:
        del window
        return sum(used for begin_us, used in self._slots.items() if self._counts_until(begin_us) > at_us)

    def _wait_us(self, window: SlidingWindow, free: int, at_us: int) -> int:
        lacking = self._used(window, at_us) - free
        until_us = at_us
        for begin_us in sorted(self._slots):
            if lacking <= 0:
                break
            if self._counts_until(begin_us) > at_us:
                lacking -= self._slots[begin_us]
                until_us = self._counts_until(begin_us)
        return until_us - at_us

    def _reset_us(self, window: SlidingWindow, at_us: int) -> int:
        del window
        return max(0, self._counts_until(max(self._slots)) - at_us) if self._slots else 0

    def _take(self, window: SlidingWindow, amount: int, number: int, at_us: int) -> int:
        del window
        self._forget(at_us)
        begin_us = max(self._forgotten_us, at_us - at_us % self._width_us)
        self._add(begin_us, amount, number)
        return begin_us

    def _settle(self, window: SlidingWindow, ticket: Ticket, returned: int, owed: int, at_us: int) -> None:
        """Into the slot it reserved in; what no longer counts is nobody's."""
        del window
        self._forget(at_us)
        if self._counts_until(ticket.begin_us) > at_us:
            self._replace(ticket, returned, owed)

    def _is_whole(self, at_us: int) -> bool:
        return all(self._counts_until(begin_us) <= at_us for begin_us in self._slots)

    def _fields(self) -> dict[str, Any]:
        return {
            "slots": {str(begin_us): used for begin_us, used in self._slots.items()},
            "per_us": self._per_us,
        }

    @classmethod
    def _of(cls, fields: Mapping[str, Any]) -> Self:
        counter = cls(SlidingWindow(0, fields["per_us"]))
        counter._slots = {int(begin_us): used for begin_us, used in fields["slots"].items()}
        return counter

    @property
    def _width_us(self) -> int:
        return -(-self._per_us // SLOTS)

    def _counts_until(self, begin_us: int) -> int:
        return begin_us + self._width_us + self._per_us

    def _forget(self, at_us: int) -> None:
        for begin_us in [begin_us for begin_us in self._slots if self._counts_until(begin_us) <= at_us]:
            del self._slots[begin_us]
            self._forgotten_us = max(self._forgotten_us, begin_us + self._width_us)
