"""What people ask the ledger, and what they are told.

Floor 3, values alone. Times are Unix time in microseconds, money is nano-dollars; an empty text in a
filter asks for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from extproc.decision import Decision
from extproc.model import nothing
from extproc.pb.ai_policy.v1 import records_pb2 as pb

# What usage can be grouped by: columns of a decision, then parts of its time in a zone.
COLUMNS = ("team", "user", "key", "identity", "provider", "model", "operation", "policy", "reason", "basis")
PERIODS = ("hour", "day", "month")
GROUPS = (*COLUMNS, *PERIODS)
MOST_LINES = 1_000  # of one page


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionFilter:
    """Which decisions."""

    since_us: int | None = None  # at this time or later
    until_us: int | None = None  # before this time
    enforced_effect: str = ""
    would_deny: bool | None = None
    reason: str = ""
    policy: str = ""  # the determining one, Kind/name
    team: str = ""
    user: str = ""
    key: str = ""  # name of the ApiKey object
    identity: str = ""  # Identity.id
    provider: str = ""
    model: str = ""
    operation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionLine:
    """One decision in a list, with what it came to in the end; None is not known (yet)."""

    decision_id: str
    at_us: int
    effect: str
    enforced_effect: str
    would_deny: bool
    reason: str
    policy: str
    identity: str
    team: str
    user: str
    key: str
    provider: str
    model: str
    operation: str
    is_open: bool  # allowed, and nobody knows yet what it came to
    basis: str = ""
    is_provisional: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None
    nano_usd: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionPage:
    """Decisions, newest first; `next` continues after the last line, empty where nothing follows."""

    lines: tuple[DecisionLine, ...]
    next: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery:
    """Sums over decisions: of those of `only`, one row for each combination of what `by` names."""

    by: tuple[str, ...] = ()  # of GROUPS
    only: DecisionFilter = DecisionFilter()
    zone: str = "UTC"  # IANA name, for hour, day and month


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Sums of one group; tokens in OpenTelemetry's inclusive sense: cache and reasoning are subsets."""

    group: tuple[str, ...] = ()  # in the order of `by`
    requests: int = 0  # decisions, denied ones too
    denied: int = 0
    is_open: int = 0  # allowed, and not settled yet
    provisional: int = 0  # settled as reserved, because nobody reported in time
    unpriced: int = 0  # settled, and no price is known: `nano_usd` is without them
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    reasoning_output_tokens: int = 0
    nano_usd: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageTable:
    """The rows of a query, the most expensive first or in the order of time, and their sum."""

    query: UsageQuery
    rows: tuple[UsageRow, ...]
    total: UsageRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Everything the ledger knows of one decision."""

    decision: Decision
    instance: str  # which sidecar decided
    shed: tuple[str, ...] = ()  # what its record was too small for
    endings: tuple[pb.UsageRecord, ...] = ()  # by sequence; the last one counts
    wording: Mapping[str, str] = field(default_factory=nothing)  # Kind/name -> its spec as YAML, then


# What a look at the ledger waits for; it may be entered again and again.
Turns = AbstractAsyncContextManager[Any, Any]
NO_TURNS: Final[Turns] = nullcontext()


class Ledger(Protocol):
    """The ledger to those who ask. Raises `LedgerUnavailable` where it cannot be read."""

    async def story(self, decision_id: str, *, turns: Turns = NO_TURNS) -> Story | None:
        """One decision; None where there is none of that id, or not any more. Each look is in `turns`."""

    async def decisions(self, only: DecisionFilter, *, limit: int = 50, after: str = "") -> DecisionPage:
        """Decisions, newest first, at most `limit` and `MOST_LINES`; `after` is an earlier page's `next`.

        Raises `QuestionInvalid` for an `after` that no page gave.
        """

    async def usage(self, query: UsageQuery) -> UsageTable:
        """Sums. Raises `QuestionInvalid` for a group or a zone that does not exist."""
