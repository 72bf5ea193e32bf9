"""The Redis store beside a bare PING over the same client library: one server, one connection at a time."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import redis.asyncio as aioredis

from bench.decisions import AT_US, a_charge, spent
from bench.errors import BenchFailed
from bench.load import HOST
from bench.stack import free_port
from bench.turns import Turn
from demo import child
from extproc.decision import Charge
from extproc.store.redis import RedisStore

BINARY = "redis-server"
_START_S = 10.0
_LIMITS = (1, 5)


def is_there() -> bool:
    """Whether this machine has a server to start."""
    return shutil.which(BINARY) is not None


@contextmanager
def _quiet() -> Iterator[None]:
    """That a new server knows no counters is no news here."""
    logger = logging.getLogger("extproc.store")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def turns() -> Iterator[tuple[Turn, ...]]:
    """The rows, over a server that ends with the block."""
    with _quiet(), TemporaryDirectory(prefix="bench-") as folder, asyncio.Runner() as loop:
        port = free_port()
        command = [BINARY, "--port", str(port), "--bind", HOST, "--save", "", "--dir", folder]
        log = Path(folder) / "redis.log"
        server = child.start("redis", command, log=log, environment=os.environ, folder=Path(folder))
        client, store = aioredis.Redis(host=HOST, port=port), RedisStore(f"redis://{HOST}:{port}/0")
        try:
            child.wait_until(
                lambda: "eady to accept connections" in log.read_text(),
                what="redis", children=[server], timeout_s=_START_S,
            )  # fmt: skip
            loop.run(store.start())
            decide = _decider(store)
            yield (
                _turn(loop, "PING", client.ping),
                *(
                    _turn(loop, f"reserve and settle, {count} limit{'s' * (count > 1)}", decide(count))
                    for count in _LIMITS
                ),
            )
        finally:
            loop.run(store.close())
            loop.run(client.aclose())
            server.stop(grace_s=2)


def _turn(loop: asyncio.Runner, name: str, call: Callable[[], Awaitable[object]]) -> Turn:
    async def repeat(count: int) -> None:
        for _ in range(count):
            await call()

    return Turn(name=name, run=lambda count: loop.run(repeat(count)))


def _decider(store: RedisStore) -> Callable[[int], Callable[[], Awaitable[None]]]:
    charge, ids = a_charge(), map(str, itertools.count())

    def over(count: int) -> Callable[[], Awaitable[None]]:
        charges: tuple[Charge, ...] = tuple(
            replace(charge, counter=f"{charge.counter}{number}") for number in range(count)
        )
        amounts = spent(charges)

        async def decide() -> None:
            decision_id = next(ids)
            outcomes = await store.reserve(decision_id, charges, AT_US)
            if not all(outcome.granted for outcome in outcomes):
                raise BenchFailed("a charge was denied")
            await store.settle(decision_id, amounts, AT_US)

        return decide

    return over
