"""What happened to a counter, and what it must hold therefore: a list, replayed as often as asked.

Nothing here is shared with `policy.counters`. Where the clock was set back, what a counter holds is not
promised to the unit: each history answers the least and the most of it, which else are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate

from extproc.decision import ChargeOutcome, Leases, SlidingWindow, TokenBucket, Window
from tests.store.charges import DAY_US, MINUTE_US, days


class Clock:
    """The store's time, the latest it ever was, and all the time that it saw pass."""

    def __init__(self, now_us: int) -> None:
        self.now_us = self.latest_us = self.passed_us = now_us
        self.was_set_back = False

    def move(self, by_us: int) -> None:
        self.now_us += by_us
        self.passed_us += max(0, by_us)
        self.latest_us = max(self.latest_us, self.now_us)
        self.was_set_back |= by_us < 0


@dataclass(slots=True, kw_only=True)
class Entry:
    """Something that was taken: when, by the clock and by what passed, and how much of it still counts."""

    decision_id: str
    at_us: int
    passed_us: int
    amount: int
    is_forgiven: bool = False
    may_be_over: bool = False


class History:
    """One counter's; `take` and `settle` are told what the store answered."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.size = window.size
        self.extra = self.until_us = 0
        self.entries: list[Entry] = []

    def take(self, decision_id: str, outcome: ChargeOutcome, clock: Clock) -> None:
        self._add(decision_id, outcome.reserved, clock)

    def settle(self, decision_id: str, outcome: ChargeOutcome, spent: int, clock: Clock) -> None:
        """A window settles where it reserved; what was forgiven stays so."""
        entry = next(each for each in self.entries if each.decision_id == decision_id)
        owed = max(0, spent - outcome.reserved) if outcome.granted else 0
        entry.amount = 0 if entry.is_forgiven else min(spent, outcome.reserved)
        self._owe(entry, owed, clock)

    def reset(self) -> None:
        for entry in self.entries:
            entry.amount, entry.is_forgiven = 0, True

    def renew(self, decision_id: str, clock: Clock) -> None:
        """Only leases are renewed."""

    def notice(self, clock: Clock) -> None:
        """Time has passed."""

    def limits(self, clock: Clock) -> set[int]:
        """What the size may be; an override that was over at a later time may be forgotten, or not."""
        times = (clock.now_us, clock.latest_us)
        return {self.size + (self.extra if at_us < self.until_us else 0) for at_us in times}

    def used(self, clock: Clock) -> tuple[int, int]:
        """The least and the most that may be in use."""
        raise NotImplementedError

    def _add(self, decision_id: str, amount: int, clock: Clock) -> None:
        self.entries.append(
            Entry(
                decision_id=decision_id,
                at_us=clock.now_us,
                passed_us=clock.passed_us,
                amount=amount,
            )
        )

    def _owe(self, entry: Entry, owed: int, clock: Clock) -> None:
        del clock
        entry.amount += owed


class BucketHistory(History):
    """Refilled evenly between what was taken; overage is taken when it is known."""

    def used(self, clock: Clock) -> tuple[int, int]:
        """A bucket whose clock was set back waits for it, unless it was whole and forgotten before."""
        least = self._replayed([each.passed_us for each in self.entries], clock.passed_us)
        waiting = list(accumulate((*(each.at_us for each in self.entries), clock.now_us), max))
        return least, self._replayed(waiting[:-1], waiting[-1])

    def _owe(self, entry: Entry, owed: int, clock: Clock) -> None:
        self._add(entry.decision_id + " owes", owed, clock)

    def _replayed(self, times: list[int], until_us: int) -> int:
        assert isinstance(self.window, TokenBucket)
        scaled, before_us = 0, 0
        for at_us, entry in zip(times, self.entries, strict=True):
            scaled = max(0, scaled - self.window.amount * (at_us - before_us))
            scaled += entry.amount * self.window.per_us
            before_us = at_us
        scaled = max(0, scaled - self.window.amount * (until_us - before_us))
        return -(-scaled // self.window.per_us)


class SlidingHistory(History):
    """Sixty slots, each of which counts until all of it is a window ago."""

    def used(self, clock: Clock) -> tuple[int, int]:
        """What was forgotten at a later time may count again, and wherever it is put then."""
        least = sum(each.amount for each in self.entries if self._until_us(each) > clock.latest_us)
        return least, sum(each.amount for each in self.entries) if clock.was_set_back else least

    def _until_us(self, entry: Entry) -> int:
        assert isinstance(self.window, SlidingWindow)
        width_us = self.window.per_us // 60
        return entry.at_us - entry.at_us % width_us + width_us + self.window.per_us


class CalendarHistory(History):
    """Days, whatever the clock does."""

    def used(self, clock: Clock) -> tuple[int, int]:
        used = sum(each.amount for each in self.entries if each.at_us // DAY_US == clock.now_us // DAY_US)
        return used, used


class LeaseHistory(History):
    """In flight until settled, or not renewed."""

    def used(self, clock: Clock) -> tuple[int, int]:
        """A lease that was over at a later time may be gone, or not."""
        held = [each for each in self.entries if self._until_us(each) > clock.now_us]
        return sum(each.amount for each in held if not each.may_be_over), sum(each.amount for each in held)

    def renew(self, decision_id: str, clock: Clock) -> None:
        for entry in self.entries:
            if entry.decision_id == decision_id and self._until_us(entry) > clock.now_us:
                entry.at_us = clock.now_us

    def notice(self, clock: Clock) -> None:
        for entry in self.entries:
            entry.may_be_over |= self._until_us(entry) <= clock.now_us

    def _owe(self, entry: Entry, owed: int, clock: Clock) -> None:
        del owed, clock
        entry.amount = 0

    def _until_us(self, entry: Entry) -> int:
        assert isinstance(self.window, Leases)
        return entry.at_us + self.window.ttl_us


HISTORIES: Mapping[str, Callable[[], History]] = {
    "bucket": lambda: BucketHistory(TokenBucket(60, MINUTE_US, 100)),
    "sliding": lambda: SlidingHistory(SlidingWindow(100, MINUTE_US)),
    "calendar": lambda: CalendarHistory(days(0, 100)),
    "leases": lambda: LeaseHistory(Leases(4, MINUTE_US)),
}
