"""One gRPC stream: events in, the session's actions done, in order.

Floor 3. The only place where waiting happens. Whatever goes wrong here aborts the stream with a
fixed text: a clean return is fail-open on every Envoy, and an exception's text would reach its
access log.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Protocol

from extproc import wire
from extproc.accesslog import AccessLog
from extproc.decision import ChargeOutcome, Leases
from extproc.errors import LedgerUnavailable, StoreUnavailable
from extproc.intake import HeldAnswers, Intake
from extproc.ledger.base import Ledger
from extproc.measure import lessons
from extproc.measure.calibration import Calibration
from extproc.measure.learned import LearnedOutputs, learned_reasoning
from extproc.measure.tokens import Tokenizer
from extproc.pb.ai_policy.v1 import ext_proc_pb2 as pb
from extproc.session.events import (
    Action,
    AwaitBytes,
    ChargesReserved,
    Continue,
    CountOutput,
    DeadlinePassed,
    Defer,
    Event,
    OutputCounted,
    Record,
    Recorded,
    RecordFailed,
    Report,
    Reserve,
    RespondImmediately,
    Settle,
    StoreFailed,
    StreamClosed,
    Understand,
    Understood,
)
from extproc.session.session import Session
from extproc.session.transitions import State
from extproc.settings import INLINE_BODY_BYTES
from extproc.store.base import Store
from extproc.telemetry import Metrics, Parent, Tracing, logs
from extproc.understand import understand

log = logging.getLogger(__name__)


class Stream(Protocol):
    """What a gRPC stream offers; grpc.aio's servicer context, or a test's list."""

    def read(self) -> Coroutine[Any, Any, Any]:
        """Wait for the next message; anything that is not one is the end."""

    def write(self, message: bytes) -> Coroutine[Any, Any, None]:
        """Send one serialized answer."""


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


class Exchange:
    """Runs one session over one stream."""

    def __init__(self, session: Session, edge: Edge, parent: Parent) -> None:
        self._session = session
        self._edge = edge
        self._parent = parent
        self._todo: deque[Action] = deque()
        # An answer that takes time.
        self._answer: asyncio.Future[Event] | None = None
        self._intake = Intake(session, edge.pool, edge.held, edge.metrics)
        # When we stop waiting for whatever Envoy's last message needs (the loop's clock).
        self._due_s = 0.0

    async def run(self, stream: Stream) -> None:
        """Serve until Envoy closes the stream. Raises whatever must abort it."""
        reading: asyncio.Task[Any] | None = None
        try:
            while True:
                if self._answer is None and reading is None:
                    message = await stream.read()
                else:
                    reading = reading or asyncio.ensure_future(stream.read())
                    event = await self._answer_before(reading)
                    if event is not None:
                        await self._advance(event, stream)
                        continue
                    message, reading = reading.result(), None
                if not isinstance(message, pb.ProcessingRequest):
                    return
                self._due_s = asyncio.get_running_loop().time() + self._edge.deadline_s
                await self._advance(wire.decode(message, self._edge.clock_ns()), stream)
        finally:
            if reading is not None:
                reading.cancel()
            self._close()

    async def _answer_before(self, reading: asyncio.Task[Any]) -> Event | None:
        """What the session asked for, or `DeadlinePassed`; None if Envoy spoke first."""
        answer = self._answer
        if answer is None:
            await asyncio.wait({reading})
            return None
        timeout_s = max(0.0, self._due_s - asyncio.get_running_loop().time())
        await asyncio.wait({reading, answer}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            self._answer = None
            return answer.result()
        if reading.done():
            return None
        self._answer = None
        if not self._is_unwanted(answer):
            self._edge.spawn(self._take_late(answer))
        return DeadlinePassed(at_ns=self._edge.clock_ns())

    def _is_unwanted(self, answer: asyncio.Future[Event]) -> bool:
        """Take back a body to understand that nobody waits for: if it still queues, it is never begun.

        Everything else must end: what a store took is given back, what was answered is charged.
        """
        return self._session.state is State.UNDERSTANDING and answer.cancel()

    async def _take_late(self, answer: asyncio.Future[Event]) -> None:
        await self._advance(await answer, None)

    async def _advance(self, event: Event, stream: Stream | None) -> None:
        """Feed an event and do what it asks for; `stream` is None where Envoy is not answered."""
        events = deque([event])
        # A late answer comes while the stream may be in the middle of a write: it keeps out of its list.
        todo = deque[Action]() if stream is None else self._todo
        while events:
            todo.extend(await self._intake.receive(events.popleft()))
            while todo:
                action = todo[0]
                if isinstance(action, Continue | RespondImmediately):
                    if stream is not None:
                        await stream.write(wire.encode(action))
                    todo.popleft()
                    continue
                # Taken off first: whatever happens, it is not done twice.
                todo.popleft()
                answer = await self._do(action)
                if answer is not None:
                    events.append(answer)

    async def _do(self, action: Action) -> Event | None:
        """Do one outward action; None where its answer comes later, or never."""
        edge = self._edge
        match action:
            case Understand(head=head, body=body):
                # Nobody knows how large a compressed body is; sixteen kilobytes may be a million.
                size = INLINE_BODY_BYTES + 1 if "content-encoding" in head.headers else len(body)
                return self._now_or_later(size, lambda: self._understood(action))
            case CountOutput(text=text):
                return self._now_or_later(len(text), lambda: self._counted(action))
            case Reserve():
                if edge.store.is_immediate:
                    return await self._reserved(action)
                self._answer = asyncio.ensure_future(self._reserved(action))
            case Defer(event=event):
                return event
            case Settle() if edge.store.is_immediate:
                await self._settle(action)
            case Settle():
                # Nobody waits for it: Envoy cancels us once it has our last answer, and a slow store
                # must not hold up what follows.
                edge.spawn(self._settle(action))
            case Record() | AwaitBytes():
                self._answer = asyncio.ensure_future(self._told(action))
            case Report():
                self._report(action)
        return None

    def _now_or_later(self, size: int, compute: Callable[[], Event]) -> Event | None:
        if size <= INLINE_BODY_BYTES:
            return compute()
        self._answer = asyncio.get_running_loop().run_in_executor(self._edge.pool, compute)
        return None

    def _understood(self, action: Understand) -> Understood:
        edge = self._edge
        understanding = understand(
            action.head,
            action.call,
            action.body,
            max_body_bytes=action.max_body_bytes,
            tokenizer=edge.tokenizer,
            calibration=edge.calibration,
            asks_for_usage=action.asks_for_usage,
            counts=action.counts_large or len(action.body) <= INLINE_BODY_BYTES,
        )
        request = understanding.request
        model = (request.provider, request.model) if request else ("", "")
        return Understood(
            at_ns=edge.clock_ns(),
            request=request,
            tokens=understanding.tokens,
            body_with_usage=understanding.body_with_usage,
            content_type=understanding.content_type,
            refused=understanding.refused,
            expected_output_tokens=edge.learned.percentile_95(*model),
            usual_reasoning_tokens=edge.reasoning.percentile_95(*model) or 0,
        )

    def _counted(self, action: CountOutput) -> OutputCounted:
        tokens = self._edge.tokenizer.count(action.text, provider=action.provider, model=action.model)
        return OutputCounted(at_ns=self._edge.clock_ns(), tokens=tokens)

    async def _reserved(self, action: Reserve) -> Event:
        at_ns = self._edge.clock_ns()
        try:
            outcomes = await self._edge.store.reserve(action.decision_id, action.charges, at_ns // 1000)
        except StoreUnavailable:
            # The decision says so in its own log record; the store, once, that it went away.
            return StoreFailed(at_ns=self._edge.clock_ns())
        if any(_holds_lease(outcome) for outcome in outcomes):
            self._edge.leased.add(action.decision_id)
        return ChargesReserved(at_ns=self._edge.clock_ns(), outcomes=outcomes)

    async def _settle(self, action: Settle) -> None:
        edge = self._edge
        edge.leased.discard(action.reservation_id)
        try:
            await edge.store.settle(action.reservation_id, action.settlement.amounts, edge.clock_ns() // 1000)
        except StoreUnavailable:
            # The reservation stays until it expires: too much is held, nothing is given away.
            log.exception("settlement failed", extra={"decision_id": action.settlement.decision_id})
            edge.metrics.failures.add(1, error_type="settlement_failed")

    async def _told(self, action: Record | AwaitBytes) -> Event:
        if isinstance(action, Record):
            return await self._recorded(action)
        return await self._edge.access_log.bytes_sent(action, self._edge.clock_ns)

    async def _recorded(self, action: Record) -> Event:
        edge = self._edge
        try:
            if edge.ledger is None:
                raise LedgerUnavailable("there is no ledger")  # noqa: TRY301  one way to fail
            await edge.ledger.committed(action.decision)
        except LedgerUnavailable:
            return RecordFailed(at_ns=edge.clock_ns())
        return Recorded(at_ns=edge.clock_ns())

    def _report(self, report: Report) -> None:
        edge, decision, settlement = self._edge, report.decision, report.settlement
        if edge.ledger is not None and not report.is_on_record:
            if settlement is None:
                edge.ledger.decided(decision)
            else:
                edge.ledger.settled(decision, settlement)
        try:
            if settlement is None:
                edge.metrics.decided(decision)
                edge.tracing.decided(decision, self._parent)
                logs.decided(decision)
            else:
                edge.metrics.settled(decision, settlement)
                edge.tracing.settled(decision, settlement, self._parent)
        except Exception:
            # Telemetry is lossy by design: it may never cut an answer.
            log.exception("telemetry failed", extra={"decision_id": decision.id})
            edge.metrics.failures.add(1, error_type="telemetry_failed")
        if settlement is None:
            lessons.decided(decision, edge.calibration)
        else:
            lessons.settled(
                decision,
                settlement,
                edge.learned,
                edge.reasoning,
                edge.calibration,
                bytes_per_token=edge.access_log.bytes_per_token,
            )

    def _close(self) -> None:
        """Finish what the stream left open, outside its task: that one may be cancelled."""
        unanswered = _outward(self._todo)
        self._todo.clear()
        if unanswered or self._answer is not None or self._intake.is_reading or not self._session.is_over:
            self._edge.spawn(self._finish(unanswered))

    async def _finish(self, unanswered: Sequence[Action]) -> None:
        try:
            await self._settle_up([*unanswered, *_outward(await self._intake.left_over())])
        finally:
            self._intake.close()

    async def _settle_up(self, unanswered: Sequence[Action]) -> None:
        for action in unanswered:
            event = await self._do(action)
            if event is not None:
                await self._advance(event, None)
        if self._answer is not None and self._is_unwanted(self._answer):
            self._answer = None
        await self._advance(StreamClosed(at_ns=self._edge.clock_ns()), None)
        if self._session.state is State.ABANDONED:
            self._edge.metrics.abandoned.add(1)
        while self._answer is not None:
            answer, self._answer = self._answer, None
            await self._advance(await answer, None)


def _holds_lease(outcome: ChargeOutcome) -> bool:
    return outcome.reserved > 0 and isinstance(outcome.charge.window, Leases)


def _outward(actions: Iterable[Action]) -> list[Action]:
    """The actions that are no answers to Envoy."""
    return [action for action in actions if not isinstance(action, Continue | RespondImmediately)]
