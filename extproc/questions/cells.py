"""A line of a list and a row of sums as people read them, wherever it is written.

Floor 3, but pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from extproc.questions import figures
from extproc.questions.base import DecisionLine, UsageRow


def verdict(line: DecisionLine) -> str:
    """What was done, and why."""
    denied = line.enforced_effect == "deny"
    said = f"denied: {line.reason}" if denied else "allowed"
    if not denied and line.reason != "allowed":
        said += f": {line.reason}"
    return said + (" (shadow would deny)" if line.would_deny else "")


def who(line: DecisionLine) -> str:
    """Who asked."""
    names = [name for name in (line.team, line.user or line.identity) if name]
    return "/".join(dict.fromkeys(names)) or "nobody known"


def model(line: DecisionLine) -> str:
    """Who was to answer."""
    return " ".join(part for part in (line.provider, line.model) if part)


def amounts(line: DecisionLine) -> tuple[str, str, str]:
    """Input and output tokens and what they cost; nothing for a denial, which used nothing."""
    if line.enforced_effect == "deny":
        return "", "", ""
    if line.is_open:
        return "open", "open", ""
    used, generated = (_known(tokens) for tokens in (line.input_tokens, line.output_tokens))
    cost = "unpriced" if line.nano_usd is None else figures.dollars(line.nano_usd)
    return used, generated, cost + (", as reserved" if line.is_provisional else "")


def _known(amount: int | None) -> str:
    return "?" if amount is None else f"{amount:,}"


# The columns of a table of sums.
SUMS: Final[tuple[tuple[str, Callable[[UsageRow], str]], ...]] = (
    ("REQUESTS", lambda row: f"{row.requests:,}"),
    ("DENIED", lambda row: f"{row.denied:,}"),
    ("OPEN", lambda row: f"{row.is_open:,}"),
    ("INPUT", lambda row: f"{row.input_tokens:,}"),
    ("CACHED", lambda row: f"{row.cache_read_input_tokens:,}"),
    ("OUTPUT", lambda row: f"{row.output_tokens:,}"),
    ("REASONING", lambda row: f"{row.reasoning_output_tokens:,}"),
    ("COST", lambda row: figures.dollars(row.nano_usd)),
)


def sums(row: UsageRow) -> tuple[str, ...]:
    """The row below the titles of `SUMS`."""
    return tuple(write(row) for _, write in SUMS)


def notes(total: UsageRow) -> Iterable[str]:
    """What a sum leaves open."""
    if total.is_open:
        yield f"{figures.counted(total.is_open, 'request')} not settled yet; what is used will be added."
    if total.provisional:
        yield (
            f"{figures.counted(total.provisional, 'request')} charged as reserved, because nobody reported "
            "in time; a late report corrects that."
        )
    if total.unpriced:
        yield f"{figures.counted(total.unpriced, 'request')} without a known price; COST is without them."
