"""Renews the leases of answers that are still on their way.

Floor 3. A lease that nobody renews ends by itself: that is how a crash releases what it held.
"""

from __future__ import annotations

import asyncio

from extproc.edge import Edge
from extproc.errors import StoreUnavailable

# A third of a lease: two renewals may fail before it ends.
PERIOD_S = 20.0


async def keep(edge: Edge, period_s: float = PERIOD_S) -> None:
    """Renew every `period_s` until cancelled."""
    while True:
        await asyncio.sleep(period_s)
        await renew(edge)


async def renew(edge: Edge) -> None:
    """Renew every lease that is held now."""
    held = tuple(edge.leased)
    if not held:
        return
    try:
        await edge.store.renew(held, edge.clock_ns() // 1000)
    except StoreUnavailable:
        # Said by the store; until it answers, a lease may end early and let one more request in.
        edge.metrics.failures.add(1, error_type="leases_not_renewed")
