"""What every exchange of one process shares, and the work that outlives a stream.

Floor 3.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from extproc.accesslog import AccessLog
from extproc.intake import HeldAnswers
from extproc.ledger.base import Ledger
from extproc.measure.calibration import Calibration
from extproc.measure.learned import LearnedOutputs, learned_reasoning
from extproc.measure.tokens import Tokenizer
from extproc.questions.callers import Callers
from extproc.store.base import Store
from extproc.telemetry import Metrics, Tracing

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Edge:
    """What every exchange of this process shares."""

    store: Store
    ledger: Ledger | None = None  # nothing is written down; what must be, cannot be
    tokenizer: Tokenizer
    learned: LearnedOutputs
    reasoning: LearnedOutputs = field(default_factory=learned_reasoning)
    tracing: Tracing
    metrics: Metrics
    pool: Executor
    clock_ns: Callable[[], int]
    deadline_s: float
    calibration: Calibration = field(default_factory=Calibration)
    held: HeldAnswers = field(default_factory=HeldAnswers)
    access_log: AccessLog = field(default_factory=AccessLog)
    callers: Callers = field(default_factory=Callers)
    # Reservations that hold leases, to be renewed for as long as their answers take.
    leased: set[str] = field(default_factory=set)
    # Work that outlives its stream: settlements of clients that left.
    background: set[asyncio.Task[None]] = field(default_factory=set)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run in the background and keep the reference that asyncio does not; a failure is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self.background.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.background.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("background work failed", exc_info=error)
            self.metrics.failures.add(1, error_type="internal")
