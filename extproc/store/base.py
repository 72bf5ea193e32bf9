"""What every counter store promises; tests/store/ runs one suite over all of them.

A store keeps two things: counters, by name, and reservations, by decision id. It knows charges and
windows, never kinds; the arithmetic of windows is `policy.counters`' (a store that keeps its counters
elsewhere does the same sums there).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from extproc.decision import Charge, ChargeOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterState:
    """One counter as it can be written down and taken up again."""

    counter: str
    version: int  # rises with every change; of two states the higher one is the newer
    state: str  # JSON, see `policy.counters`; empty: equal to one that nobody used


class Store(Protocol):
    """Counters behind limits. Time comes in as microseconds of Unix time; a store may have its own."""

    is_immediate: bool  # answers without ever suspending, so that nobody need watch the stream meanwhile
    is_shared: bool  # counters outlive this process and are used by others

    async def reserve(
        self, decision_id: str, charges: tuple[Charge, ...], at_us: int
    ) -> tuple[ChargeOutcome, ...]:
        """Take all enforced charges or none; one outcome a charge, in order.

        Shadow charges are taken whenever the enforced ones are, as far as there is room. A charge that
        cannot be counted is answered as `unavailable`, and keeps the others from being taken only if it
        is enforced and `must_count`: who cannot give back at once what it took must know before it
        takes. Idempotent by `decision_id`: a second call with it answers what the first one did.
        Raises `errors.StoreUnavailable`; then it is unknown whether the charges were taken.
        """

    async def settle(self, decision_id: str, amounts: Mapping[str, int], at_us: int) -> bool:
        """Replace each reserved amount by what `amounts` says for its counter (0 where absent).

        A window settles into the period it reserved in; a lease ends. Idempotent: only the first call
        for a reservation changes anything and answers True. Raises `errors.StoreUnavailable` where it
        cannot be done now and will not be tried again.
        """

    async def renew(self, decision_ids: Iterable[str], at_us: int) -> None:
        """Keep the leases of these open reservations for another `ttl_us`; unknown ids are nobody's."""

    async def read(self, charges: tuple[Charge, ...], at_us: int) -> tuple[ChargeOutcome, ...]:
        """What `reserve` would answer to each charge alone; takes nothing."""

    async def reset(self, charge: Charge, at_us: int) -> None:
        """Make the charge's counter as if nobody had used it; its override stays.

        What is open settles as ever, but gives nothing back that was forgiven here.
        """

    async def override(self, charge: Charge, extra: int, until_us: int, at_us: int) -> None:
        """Let the charge's counter hold `extra` more than its window's size until `until_us`.

        Replaces an earlier override; 0 takes it away.
        """

    def changed(self) -> tuple[CounterState, ...]:
        """The counters that changed since the last call, as they are now; for the ledger."""

    async def seed(self, states: Iterable[CounterState]) -> None:
        """Take up counters where the store knows none, or an older version, by that name."""

    async def close(self) -> None:
        """Let go of connections."""
