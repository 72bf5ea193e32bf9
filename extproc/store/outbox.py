"""Settlements that a store could not take yet: kept, bounded, and sent again until it does.

Floor 3. In this process alone: what still waits at its end is lost, and its reservations stay charged.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import islice

from extproc.errors import StoreUnavailable

log = logging.getLogger(__name__)

# About 50 MB of them: an hour of 28 requests a second.
SIZE = 100_000
_AT_ONCE = 16
_PAUSE_S = 0.25


@dataclass(frozen=True, slots=True)
class Letter:
    """One settlement, as it was asked for."""

    decision_id: str
    amounts: Mapping[str, int]
    at_us: int


class Outbox:
    """Sends what it holds in the background, in the order of arrival as far as that can be.

    `send` raises `StoreUnavailable` for as long as nobody is there. Needs a running event loop.
    """

    def __init__(self, send: Callable[[Letter], Awaitable[object]], *, size: int = SIZE) -> None:
        self._send = send
        self._size = size
        self._letters: dict[str, Letter] = {}
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._letters)

    def __contains__(self, decision_id: object) -> bool:
        return decision_id in self._letters

    def put(self, letter: Letter) -> bool:
        """Keep it for later; False where there is no room, and it is counted as dropped."""
        if len(self._letters) >= self._size:
            self.dropped += 1
            return False
        self._letters[letter.decision_id] = letter
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._deliver())
        return True

    def wake(self) -> None:
        """Somebody is there again: try now."""
        self._woken.set()

    async def sent(self) -> None:
        """Wait until nothing waits any more."""
        self.wake()
        if self._task is not None:
            await asyncio.wait({self._task})

    async def close(self, timeout_s: float) -> None:
        """Give what still waits this long, then let go of it."""
        if self._task is None:
            return
        await asyncio.wait({self._task}, timeout=timeout_s)
        self._task.cancel()
        await asyncio.wait({self._task})
        if self._letters:
            self.dropped += len(self._letters)
            log.error("settlements lost at the end", extra={"count": len(self._letters)})
            self._letters.clear()

    async def _deliver(self) -> None:
        while self._letters:
            batch = list(islice(self._letters.values(), _AT_ONCE))
            results = await asyncio.gather(*map(self._send, batch), return_exceptions=True)
            for letter, result in zip(batch, results, strict=True):
                if isinstance(result, StoreUnavailable):
                    continue
                del self._letters[letter.decision_id]
                if isinstance(result, BaseException):
                    self.dropped += 1
                    log.error("settlement failed", exc_info=result)
            if any(isinstance(result, StoreUnavailable) for result in results):
                await self._pause()

    async def _pause(self) -> None:
        self._woken.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PAUSE_S):
                await self._woken.wait()
