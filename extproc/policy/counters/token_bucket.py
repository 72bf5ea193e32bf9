"""The token bucket, in exact integers.

Floor 1, pure. What a bucket has used is scaled by its window's length in microseconds, so that a refill
of any length is a whole number:

    refilled = amount * elapsed_us        (scaled)
    used     = used_scaled / per_us       (in the limit's unit)

The length is part of a counter's name, so the scale of a bucket never changes. Its amount may: what was
used is kept, and comes back at the old rate until the edit, at the new one from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from extproc.decision import Charge, TokenBucket
from extproc.policy.counters.base import Counter, Ticket
from extproc.policy.counters.lows import Lows


class BucketCounter(Counter[TokenBucket]):
    """What was used when the bucket last changed, and what open reservations may get back."""

    __slots__ = ("_amount", "_at_us", "_lows", "_per_us", "_used_scaled")

    def __init__(self, window: TokenBucket) -> None:
        super().__init__()
        self._used_scaled = 0
        self._at_us = 0
        self._amount = window.amount
        self._per_us = window.per_us
        self._lows: Lows | None = None  # None: no reservation is open

    def adopt(self, charge: Charge, at_us: int) -> bool:
        """See `Counter.adopt`."""
        window = charge.window
        assert isinstance(window, TokenBucket)  # noqa: S101
        if window.amount == self._amount:
            return False
        self._refill(at_us)
        self._amount = window.amount
        return True

    def reset(self) -> None:
        """See `Counter.reset`."""
        self._used_scaled = 0
        self._lows = None

    def abandon(self, ticket: Ticket) -> None:
        """See `Counter.abandon`."""
        self._close(ticket.number, 0)

    def _used(self, window: TokenBucket, at_us: int) -> int:
        return -(-self._in_use(at_us) // window.per_us)

    def _left(self, window: TokenBucket, size: int, at_us: int) -> int:
        return (size * window.per_us - self._in_use(at_us)) // window.per_us

    def _wait_us(self, window: TokenBucket, free: int, at_us: int) -> int:
        return self._time_to_refill(window, self._in_use(at_us) - free * window.per_us, at_us)

    def _reset_us(self, window: TokenBucket, at_us: int) -> int:
        return self._time_to_refill(window, self._in_use(at_us), at_us)

    def _take(self, window: TokenBucket, amount: int, number: int, at_us: int) -> int:
        self._refill(at_us)
        self._used_scaled += amount * window.per_us
        if self._lows is None:
            self._lows = Lows()
        self._lows.open(number, self._used_scaled)
        return 0

    def _settle(self, window: TokenBucket, ticket: Ticket, returned: int, owed: int, at_us: int) -> None:
        """Give back as far as the bucket still lacks it, which `lows` knows."""
        self._refill(at_us)
        self._used_scaled -= self._close(ticket.number, returned * window.per_us)
        self._used_scaled += owed * window.per_us

    def _is_whole(self, at_us: int) -> bool:
        """Whoever has a reservation open on a bucket that was whole since has nothing to get back."""
        return self._in_use(at_us) == 0

    def _is_written(self) -> bool:
        return self._used_scaled > 0

    def _fields(self) -> dict[str, Any]:
        used, rest = divmod(self._used_scaled, self._per_us)
        return {
            "used": used,
            "rest": rest,
            "at_us": self._at_us,
            "amount": self._amount,
            "per_us": self._per_us,
        }

    @classmethod
    def _of(cls, fields: Mapping[str, Any]) -> Self:
        counter = cls(TokenBucket(fields["amount"], fields["per_us"], 0))
        counter._used_scaled = fields["used"] * fields["per_us"] + fields["rest"]
        counter._at_us = fields["at_us"]
        return counter

    def _in_use(self, at_us: int) -> int:
        """Scaled, after refilling until `at_us`.

        A clock that was set back neither refills nor loses anything: time stands still until it has
        caught up.
        """
        if at_us <= self._at_us:
            return self._used_scaled
        return max(0, self._used_scaled - self._amount * (at_us - self._at_us))

    def _refill(self, at_us: int) -> None:
        self._used_scaled = self._in_use(at_us)
        self._at_us = max(self._at_us, at_us)
        if self._lows is not None:
            self._lows.look(self._used_scaled)

    def _close(self, number: int, returned: int) -> int:
        if self._lows is None:
            return 0
        lacking = self._lows.close(number, returned)
        if not self._lows:
            self._lows = None
        return lacking

    def _time_to_refill(self, window: TokenBucket, scaled: int, at_us: int) -> int:
        if scaled <= 0:
            return 0
        # A clock behind the bucket's has to catch up first.
        return max(0, self._at_us - at_us) + -(-scaled // window.amount)
