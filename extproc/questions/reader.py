"""The ledger to those who ask: beside the requests, one question after another, each with an end.

Floor 3. In a thread and on a connection of its own, so that no question holds up what is written.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from extproc.decision import Effect
from extproc.errors import LedgerUnavailable
from extproc.ledger.book import Book, LedgerChanged, QuestionTooLong, Reading
from extproc.ledger.thread import LedgerThread
from extproc.questions import queries, sums
from extproc.questions.base import (
    NO_TURNS,
    DecisionFilter,
    DecisionPage,
    Story,
    Turns,
    UsageQuery,
    UsageTable,
)

# Sums over some million decisions take so long.
_TIMEOUT_S: Final = 30.0
# The one that is worked on among them.
_MOST_WAITING: Final = 8
_FLUSH_S: Final = 0.5
# So young, a decision or its end may be on its way to the database from another process.
_YOUNG_MS: Final = 2_000
_LOOK_AGAIN_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8)
_LOOKS_AT_REST: Final = 5
_NANOSECONDS_PER_MS: Final = 1_000_000
_UUID7: Final = 7

T = TypeVar("T")


@dataclass(slots=True)
class _Asked:
    """One question; nobody works on it once it is over."""

    ends_at_s: float

    @property
    def left_s(self) -> float:
        return self.ends_at_s - time.monotonic()


class LedgerReader:
    """A `questions.base.Ledger` over a `Book` that nobody else uses; belongs to one event loop.

    `flushed` waits, for so many seconds at most, until what this process left to the ledger is
    committed. Besides what `Ledger` says every question raises `SettingsInvalid` where there is no
    ledger of this release.
    """

    def __init__(
        self,
        book: Book,
        *,
        flushed: Callable[[float], Awaitable[None]] | None = None,
        timeout_s: float = _TIMEOUT_S,
        clock_ns: Callable[[], int] = time.time_ns,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._book = book
        self._flushed = flushed
        self._timeout_s = timeout_s
        self._clock_ns = clock_ns
        self._pause = pause
        self._thread = LedgerThread("ledger reader")
        self._places = threading.BoundedSemaphore(_MOST_WAITING)

    async def story(self, decision_id: str, *, turns: Turns = NO_TURNS) -> Story | None:
        """See `Ledger.story`. What is young and not there, or has no end yet, is looked for again."""
        find = partial(queries.story, decision_id=decision_id)
        async with turns:
            found: Story | None = await self._ask(find)
        for pause_s in _LOOK_AGAIN_S:
            if not _may_come(found) or not self._is_young(decision_id):
                break
            await self._pause(pause_s)
            async with turns:
                found = await self._ask(find)
        return found

    async def decisions(self, only: DecisionFilter, *, limit: int = 50, after: str = "") -> DecisionPage:
        """See `Ledger.decisions`."""
        return await self._ask(partial(queries.decisions, only=only, limit=limit, after=after))

    async def usage(self, query: UsageQuery) -> UsageTable:
        """See `Ledger.usage`."""
        return await self._ask(partial(sums.usage, query=query))

    def close(self) -> None:
        """Let go of the database after what is worked on; nobody may ask any more."""
        self._thread.stop(self._book.close)

    async def _ask(self, ask: Callable[[Reading], T]) -> T:
        if self._flushed is not None:
            await self._flushed(_FLUSH_S)
        if not self._places.acquire(blocking=False):
            raise LedgerUnavailable("too many questions wait for the ledger; ask again")
        asked = _Asked(time.monotonic() + self._timeout_s)
        try:
            return await self._thread.run(partial(self._answer, ask, asked))
        except asyncio.CancelledError:
            asked.ends_at_s = 0.0
            raise

    def _answer(self, ask: Callable[[Reading], T], asked: _Asked) -> T:
        try:
            for _ in range(_LOOKS_AT_REST):
                if asked.left_s <= 0:
                    raise QuestionTooLong(self._timeout_s)
                try:
                    with self._book.reading(timeout_s=asked.left_s) as reading:
                        found = ask(reading)
                except LedgerChanged:
                    continue
                return found
            raise LedgerUnavailable("the ledger is opened and closed all the time")
        finally:
            self._places.release()

    def _is_young(self, decision_id: str) -> bool:
        """Whether a UUIDv7 says so."""
        try:
            made = uuid.UUID(decision_id)
        except ValueError:
            return False
        made_at_ms = made.int >> 80
        age_ms = self._clock_ns() // _NANOSECONDS_PER_MS - made_at_ms
        return made.version == _UUID7 and abs(age_ms) < _YOUNG_MS


def _may_come(found: Story | None) -> bool:
    """Whether the decision, or its end, may still be written."""
    if found is None:
        return True
    return found.decision.enforced_effect is Effect.ALLOW and not found.endings
