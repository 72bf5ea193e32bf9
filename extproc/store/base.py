"""What every counter store promises; tests/test_store.py runs one suite over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from extproc.decision import Charge, ChargeOutcome


class Store(Protocol):
    """Counters behind limits. Time comes in as microseconds of Unix time."""

    is_immediate: bool  # answers without ever suspending, so that nobody need watch the stream meanwhile

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

        Idempotent: only the first call for a reservation changes anything and answers True.
        """

    async def close(self) -> None:
        """Let go of connections."""
