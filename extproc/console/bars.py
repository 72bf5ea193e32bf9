"""How long the bars beside numbers are.

Floor 3, but pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from extproc.questions.base import UsageRow, UsageTable


@dataclass(frozen=True, slots=True)
class Bars:
    """What the rows of a table are compared by; the longest bar is `most`."""

    what: str
    amount: Callable[[UsageRow], int]
    most: int


# The first of which there is any.
_COMPARED: Final[tuple[tuple[str, Callable[[UsageRow], int]], ...]] = (
    ("by cost", lambda row: row.nano_usd),
    ("by tokens", lambda row: row.input_tokens + row.output_tokens),
    ("by requests", lambda row: row.requests),
)


def compared(table: UsageTable) -> Bars:
    """What matters most of what these rows have."""
    *others, last = _COMPARED
    what, amount = next((each for each in others if each[1](table.total) > 0), last)
    return Bars(what, amount, max(map(amount, table.rows), default=0))


def share(part: int, whole: int) -> str:
    """A part of a length, which is never longer than the whole."""
    return f"{100 * min(max(part / whole, 0), 1):.1f}%" if whole > 0 else "0%"
