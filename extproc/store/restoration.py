"""Counters that a server lost, put back by one sidecar while the others wait.

Floor 3. A server that was flushed, replaced or started empty is noticed by every script: nothing there
numbers changes. Whoever holds the lock then writes down what the ledger knows, and last that number. The
lock outlives its holder by seconds only, so that a sidecar killed meanwhile keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from enum import IntEnum

from extproc.errors import AIPolicyError
from extproc.store import packed
from extproc.store.base import CounterState

log = logging.getLogger(__name__)

# One script call puts back this many: a millisecond or two in which nobody else is served.
BATCH = 500
LOCK_MS = 10_000
_RETRY_MS = 1000

Call = Callable[..., Awaitable[list[int | bytes]]]
States = Callable[[], Awaitable[Iterable[CounterState]]]


class Lock(IntEnum):
    """What the script says to who wants to put counters back."""

    HELD_BY_ANOTHER = 0
    TAKEN = 1
    NOT_NEEDED = 2


class Restoration:
    """Puts back what `states` answers; at most once at a time in this process.

    `call` is one script call: a command and its arguments. Needs a running event loop.
    """

    def __init__(self, call: Call, states: States, *, lock_ms: int = LOCK_MS) -> None:
        self._call = call
        self._states = states
        self._lock_ms = lock_ms
        self._task: asyncio.Task[bool] | None = None

    async def done(self, timeout_s: float | None) -> bool:
        """Whether the counters are there again; starts putting them back, and waits this long for it."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._restore())
        task = self._task
        await asyncio.wait({task}, timeout=timeout_s)
        return task.done() and not task.cancelled() and task.result()

    async def close(self) -> None:
        """Leave it to another sidecar."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _restore(self) -> bool:
        token = secrets.token_hex(8)
        try:
            (answer,) = await self._call("lock", token, self._lock_ms)
            if answer != Lock.TAKEN:
                return answer == Lock.NOT_NEEDED
            log.warning("counters are not there; putting back what the ledger knows")
            count = await self._put_back(token)
        except AIPolicyError as error:
            log.error("counters not put back", extra={"error_type": type(error).__name__})  # noqa: TRY400  no stack to learn from
            return False
        if count is not None:
            log.warning("counters put back", extra={"count": count})
        return count is not None

    async def _put_back(self, token: str) -> int | None:
        """How many counters; None where the lock was lost, so that another sidecar is at it."""
        try:
            states = await self._known(token)
        except AIPolicyError:
            # Whoever asks next tries again, but not at once.
            await self._call("restore", token, _RETRY_MS)
            raise
        for first in range(0, len(states), BATCH):
            (is_held,) = await self._call(
                "restore", token, self._lock_ms, *seeds(states[first : first + BATCH])
            )
            if not is_held:
                return None
        newest = max((state.version for state in states), default=0)
        (is_done,) = await self._call("open", token, newest)
        return len(states) if is_done else None

    async def _known(self, token: str) -> tuple[CounterState, ...]:
        """What the ledger knows; however long it takes to read, the lock is kept."""
        reading = asyncio.ensure_future(self._states())
        try:
            while not (await asyncio.wait({reading}, timeout=self._lock_ms / 3000))[0]:
                await self._call("restore", token, self._lock_ms)
            return tuple(reading.result())
        finally:
            reading.cancel()


def seeds(states: Iterable[CounterState]) -> tuple[str | bytes, ...]:
    """Names and packed counters in turn, for the script."""
    return tuple(part for state in states for part in (state.counter, packed.taken_up(state)))
