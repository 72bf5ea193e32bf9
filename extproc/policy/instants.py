"""Points in time as files and flags write them: RFC 3339, always with an offset.

Floor 1, pure.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from extproc.policy.objects import rejected

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EXAMPLE: Final = 'such as "2027-01-31T00:00:00Z"'


def instant_ns(value: Any) -> int:
    """The time in nanoseconds of Unix time. Raises what validators raise, a `ValueError`."""
    try:
        instant = datetime.fromisoformat(value)
        since = instant.astimezone(UTC) - _EPOCH
    except (TypeError, ValueError, OverflowError):
        raise rejected(f"an RFC 3339 time is wanted, {_EXAMPLE}") from None
    if instant.tzinfo is None:
        # It would be another time on another machine.
        raise rejected(f"the time needs its offset, {_EXAMPLE}")
    return since // timedelta(microseconds=1) * 1_000
