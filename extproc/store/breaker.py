"""A circuit breaker: who does not answer is left alone for a while.

Floor 3. Holds no connection and owns no clock. The pattern is Nygard's, "Release It!", chapter 5.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

FAILURES_IN_A_ROW = 5
OPEN_S = 1.0


class BreakerState(StrEnum):
    """The pattern's own words."""

    CLOSED = "closed"  # every call goes through
    OPEN = "open"  # none does
    HALF_OPEN = "half_open"  # one does, to see


class CircuitBreaker:
    """Opens after a number of failures in a row; then one call at a time finds out whether it is over.

    After `allows` said yes you must call `succeeded` or `failed`, or `abandoned` where the call ended
    without an answer.
    """

    def __init__(
        self,
        clock_s: Callable[[], float],
        *,
        failures_in_a_row: int = FAILURES_IN_A_ROW,
        open_s: float = OPEN_S,
    ) -> None:
        self._clock_s = clock_s
        self._most_failures = failures_in_a_row
        self._open_s = open_s
        self._failures = 0
        self._closes_at_s = 0.0
        self._is_probing = False

    @property
    def state(self) -> BreakerState:
        """Whether calls go through now."""
        if self._failures < self._most_failures:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._clock_s() >= self._closes_at_s else BreakerState.OPEN

    def allows(self) -> bool:
        """Whether a call may be made now; of a half-open breaker only the first."""
        state = self.state
        if state is BreakerState.CLOSED:
            return True
        if state is BreakerState.OPEN or self._is_probing:
            return False
        self._is_probing = True
        return True

    def succeeded(self) -> None:
        """The call was answered: all is well."""
        self._failures = 0
        self._is_probing = False

    def failed(self) -> None:
        """The call was not answered, or refused."""
        self._failures += 1
        self._is_probing = False
        if self._failures >= self._most_failures:
            self._closes_at_s = self._clock_s() + self._open_s

    def abandoned(self) -> None:
        """The caller left before the answer; nothing was learned."""
        self._is_probing = False
