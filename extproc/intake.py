"""Events on their way into a session: in turn, the large parts of an answer in the pool.

Floor 3. What answers hold until they can be read is bounded over all streams: beyond that a large one
passes unread, and is charged as reserved.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from extproc.session.actions import Action
from extproc.session.events import Event
from extproc.session.session import Session
from extproc.settings import HELD_ANSWERS_BYTES, INLINE_ANSWER_BYTES
from extproc.telemetry import Metrics

log = logging.getLogger(__name__)


@dataclass(slots=True)
class HeldAnswers:
    """How much the answers of all streams hold; one thread adds."""

    size_bytes: int = 0
    max_bytes: int = HELD_ANSWERS_BYTES


class Intake:
    """Feeds one session; call `close` once nothing more comes."""

    def __init__(self, session: Session, pool: Executor, held: HeldAnswers, metrics: Metrics) -> None:
        self._session = session
        self._pool = pool
        self._held = held
        self._metrics = metrics
        self._own_bytes = 0  # of `held`
        self._turn = asyncio.Lock()
        # A part of the answer that the pool reads; the session takes no other event meanwhile.
        self._reading: asyncio.Future[list[Action]] | None = None

    @property
    def is_reading(self) -> bool:
        """Whether a reading is under way."""
        return self._reading is not None

    async def receive(self, event: Event) -> list[Action]:
        """What the session wants done, in the order of the events."""
        is_large = self._session.work_bytes(event) > INLINE_ANSWER_BYTES
        if is_large or self._turn.locked():
            actions = await self._receive_in_pool(event)
        else:
            actions = self._session.receive(event)
        self._weigh()
        return actions

    async def left_over(self) -> Sequence[Action]:
        """What the session wanted after the reading that nobody waits for; a failure is said, not raised."""
        reading, self._reading = self._reading, None
        if reading is None:
            return ()
        await asyncio.wait({reading})
        error = reading.exception()
        if error is None:
            return reading.result()
        log.error("reading an answer failed", exc_info=error)
        self._metrics.failures.add(1, error_type="internal")
        return ()

    def close(self) -> None:
        """Hold nothing any more."""
        self._hold(0)

    async def _receive_in_pool(self, event: Event) -> list[Action]:
        await self._turn.acquire()
        try:
            reading = asyncio.get_running_loop().run_in_executor(self._pool, self._session.receive, event)
        except RuntimeError:  # the pool is shut down
            self._turn.release()
            raise
        # The turn ends with the work, not with us: our task may be cancelled before.
        reading.add_done_callback(lambda _: self._turn.release())
        self._reading = reading
        try:
            actions = await asyncio.shield(reading)
        except Exception:
            self._reading = None
            raise
        self._reading = None
        return actions

    def _weigh(self) -> None:
        self._hold(self._session.held_bytes)
        is_too_much = self._held.size_bytes > self._held.max_bytes
        if is_too_much and self._own_bytes > INLINE_ANSWER_BYTES:
            self._session.let_go()
            self._hold(0)
            log.warning("answers hold too much: one passes unread", extra={"max_bytes": self._held.max_bytes})
            self._metrics.failures.add(1, error_type="answer_not_held")

    def _hold(self, size: int) -> None:
        self._held.size_bytes += size - self._own_bytes
        self._own_bytes = size
