"""What of a refund a token bucket still lacks, exactly.

Floor 1, arithmetic alone. A reservation that turns out too large should leave its bucket as if the
smaller amount had been taken in the first place. Refill that came meanwhile has filled part of it
already, but only where the smaller amount would have left the bucket whole: a bucket that was never
that full of use takes everything back. So what may be returned is the least that was in use at any
time since the reservation:

    burst 100, 1 a second, all in use
    t=0   A reserves 100   in use 100
    t=60  A spent 20       in use  40, of A's 80 the bucket lacks 40: in use 0, as if A had taken 20
    t=0   A reserves 100, t=50 B reserves 50: in use 100, and 50 at the least since A
    t=60  A spent 20       in use  90, of A's 80 the bucket lacks 50: in use 40, as if A had taken 20

Subtracting what was refilled since (`returned - rate * age`) returns less, and with many
reservations open at once charges the same refill to each of them.
"""

from __future__ import annotations

from bisect import bisect_left
from operator import itemgetter

_NUMBER = itemgetter(0)


class Lows:
    """The least in use since each open reservation of one bucket, in the bucket's own scale.

    Each entry covers the time until the next reservation; so a look at the bucket changes one entry,
    and a refund those that came after its own reservation.
    """

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: list[list[int]] = []  # [number, least in use]; numbers rise

    def __len__(self) -> int:
        return len(self._entries)

    def look(self, used: int) -> None:
        """Note what is in use now, refilled until now; call it before every change of the bucket."""
        if self._entries:
            last = self._entries[-1]
            last[1] = min(last[1], used)

    def open(self, number: int, used: int) -> None:
        """Note a reservation, with which `used` is in use; numbers rise and are never used again."""
        self._entries.append([number, used])

    def close(self, number: int, returned: int) -> int:
        """End a reservation; answers how much of `returned` the bucket still lacks.

        A number that is not open is one whose bucket was whole in between: it lacks nothing.
        """
        place = bisect_left(self._entries, number, key=_NUMBER)
        if place == len(self._entries) or self._entries[place][0] != number:
            return 0
        lacking = returned
        for entry in self._entries[place:]:
            lacking = min(lacking, entry[1])
            # From here on the others see the bucket as if the smaller amount had been taken.
            entry[1] -= lacking
        ended = self._entries.pop(place)
        if place > 0:
            before = self._entries[place - 1]
            before[1] = min(before[1], ended[1])
        return lacking
