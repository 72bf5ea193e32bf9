"""ConcurrencyLimit: how many requests may be in flight at once, for each distinct key.

Floor 1, pure.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Final

from pydantic import Field

from extproc.decision import Leases, Reason, Unit, Window
from extproc.policy.limited import SECOND_US, LimitSpec

# Who crashed holds its place no longer than this; who lives renews it more often.
LEASE_US: Final = 60 * SECOND_US
# Above what any one process has open.
_MOST: Final = 1_000_000


class ConcurrencyLimit(LimitSpec):
    """So many requests in flight for each distinct `key` among the requests that `match`."""

    max: int = Field(ge=1, le=_MOST)
    """How many requests may be in flight at once."""

    full: ClassVar[Reason] = Reason.CONCURRENCY_LIMITED

    @property
    def unit(self) -> Unit:
        """Requests in flight."""
        return Unit.CONCURRENT_REQUESTS

    @property
    def counted(self) -> str:
        """The algorithm and its window."""
        return f"leases|{LEASE_US}"

    @property
    def per(self) -> str:
        """The window in a message."""
        return "at once"

    def window(self, _at_us: int) -> Window:
        """The same at any time."""
        return self._leases

    @cached_property
    def _leases(self) -> Leases:
        return Leases(self.max, LEASE_US)
