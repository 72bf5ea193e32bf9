"""Redis for the suite that all stores share: one server for the whole run, fresh keys for each test."""

from __future__ import annotations

import atexit
import functools
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from extproc.store.redis import RedisStore
from tests.servers.redis import RedisServer

if TYPE_CHECKING:
    from tests.store.stores import Bench

_PREFIXES = itertools.count()
# Tests share their machine; what is measured here is not time.
PATIENT_S = 10.0


@functools.cache
def server() -> RedisServer:
    """Started by the first test that needs it, and killed at the end of the run."""
    started = RedisServer()
    atexit.register(started.__exit__, None, None, None)
    started.start()
    return started


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def fresh_prefix() -> str:
    """A prefix that no other test uses."""
    return f"test-{next(_PREFIXES)}"


@asynccontextmanager
async def redis() -> AsyncIterator[Bench]:
    """Two sidecars on one server, which may refuse every call."""
    from tests.store.stores import Bench  # noqa: PLC0415  registered there

    shared, prefix, clock = server(), fresh_prefix(), Clock()
    clients = tuple(
        RedisStore(shared.url, prefix=prefix, timeout_s=PATIENT_S, clock_s=clock, uses_callers_time=True)
        for _ in range(2)
    )
    for client in clients:
        await client.start()

    async def set_reachable(is_reachable: bool) -> None:  # noqa: FBT001
        with shared.client() as admin:
            sign = "+" if is_reachable else "-"
            admin.execute_command("ACL", "SETUSER", "default", f"{sign}evalsha", f"{sign}eval")
        clock.s += 60

    async def drain() -> None:
        for client in clients:
            await client.drain()

    yield Bench(clients=clients, set_reachable=set_reachable, drain=drain)
    await set_reachable(True)
    for client in clients:
        await client.close()
