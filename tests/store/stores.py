"""The stores that every test in test_every_store.py and test_model.py is run on.

A new store is one line in `STORES`. What it opens must be empty, and must take its time from the `at_us`
of each call: tests move time by what they pass, forward and back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from extproc.store.base import Store
from extproc.store.memory import MemoryStore
from tests.store.redis_bench import redis


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Clients of the same counters, and what can be done to them."""

    clients: tuple[Store, ...]  # one at least; two of them may be one object
    # From False to True every call raises StoreUnavailable, or waits for that in a settlement's case.
    set_reachable: Callable[[bool], Awaitable[None]] | None = None  # None: it cannot fail
    # Returns once every settlement that waited for the store is delivered.
    drain: Callable[[], Awaitable[None]] | None = None

    @property
    def store(self) -> Store:
        """For tests of one client."""
        return self.clients[0]


@asynccontextmanager
async def memory() -> AsyncIterator[Bench]:
    """One sidecar's own."""
    store = MemoryStore()
    yield Bench(clients=(store, store))
    await store.close()


STORES: dict[str, Callable[[], AbstractAsyncContextManager[Bench]]] = {
    "memory": memory,
    "redis": redis,
}
