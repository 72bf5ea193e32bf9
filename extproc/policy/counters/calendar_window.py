"""The calendar window: what was used in each period, until the next one begins.

Floor 1, pure. Which periods there are the charge says; which of them it is, the store's clock. A few
old periods are kept: a clock set back finds what was used then, and a late settlement goes where it
belongs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Self

from extproc.decision import CalendarWindow, Charge
from extproc.policy.counters.base import Ticket
from extproc.policy.counters.slots import SlotCounter

PERIODS = 4
# How long after its last period a counter may still be asked for it, by a clock that is behind.
GRACE_US = 86_400 * 1_000_000


class CalendarCounter(SlotCounter[CalendarWindow]):
    """What was used in each period that is remembered."""

    __slots__ = ("_ends_us",)

    def __init__(self, window: CalendarWindow | None = None) -> None:
        del window
        super().__init__()
        self._ends_us = 0

    def covers(self, charge: Charge, at_us: int) -> bool:
        """See `Counter.covers`: a clock too far from that of whoever made the charge knows no period."""
        window = charge.window
        assert isinstance(window, CalendarWindow)  # noqa: S101
        return _place(window, at_us) is not None

    def reset(self) -> None:
        """See `Counter.reset`."""
        super().reset()
        self._ends_us = 0

    def _used(self, window: CalendarWindow, at_us: int) -> int:
        place = _place(window, at_us)
        return 0 if place is None else self._slots.get(window.edges_us[place], 0)

    def _wait_us(self, window: CalendarWindow, free: int, at_us: int) -> int:
        place = _place(window, at_us)
        if place is None or self._used(window, at_us) <= free:
            return 0
        later = window.edges_us[place + 1 :]
        # A later period is in use only where the clock was set back.
        begin_us = next((edge_us for edge_us in later if self._slots.get(edge_us, 0) <= free), later[-1])
        return begin_us - at_us

    def _reset_us(self, window: CalendarWindow, at_us: int) -> int:
        place = _place(window, at_us)
        if place is None or self._used(window, at_us) == 0:
            return 0
        return window.edges_us[place + 1] - at_us

    def _take(self, window: CalendarWindow, amount: int, number: int, at_us: int) -> int:
        place = _place(window, at_us)
        if place is None:
            raise ValueError("a charge was taken in none of its periods")
        begin_us = window.edges_us[place]
        self._add(begin_us, amount, number)
        self._remember(window, begin_us)
        return begin_us

    def _settle(self, window: CalendarWindow, ticket: Ticket, returned: int, owed: int, at_us: int) -> None:
        """Into the period it reserved in, however long ago that was."""
        del at_us
        if len(self._slots) >= PERIODS and ticket.begin_us < min(self._slots):
            return  # forgotten long ago
        self._replace(ticket, returned, owed)
        self._remember(window, ticket.begin_us)

    def _is_whole(self, at_us: int) -> bool:
        return not self._slots or at_us >= self._ends_us + GRACE_US

    def _fields(self) -> dict[str, Any]:
        return {
            "slots": {str(begin_us): used for begin_us, used in self._slots.items()},
            "ends_us": self._ends_us,
        }

    @classmethod
    def _of(cls, fields: Mapping[str, Any]) -> Self:
        counter = cls()
        counter._slots = {int(begin_us): used for begin_us, used in fields["slots"].items()}
        counter._ends_us = fields["ends_us"]
        return counter

    def _remember(self, window: CalendarWindow, begin_us: int) -> None:
        """Note the end of the period that just changed, and forget the oldest other one if there are many."""
        if begin_us not in self._slots:
            return
        end_us = next(end for begin, end in pairwise(window.edges_us) if begin == begin_us)
        self._ends_us = max(self._ends_us, end_us)
        if len(self._slots) > PERIODS:
            del self._slots[min(each for each in self._slots if each != begin_us)]


def _place(window: CalendarWindow, at_us: int) -> int | None:
    """Which of the window's periods it is; None: none of them."""
    place = bisect_right(window.edges_us, at_us) - 1
    return place if 0 <= place < len(window.edges_us) - 1 else None
