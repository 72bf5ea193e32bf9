"""What a session wants done outside of it: bodies understood, charges taken, decisions put on record.

Floor 3. Each errand is an action in, an event out: at once, later, or never. Waiting is `exchange`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from extproc.decision import ChargeOutcome, Leases
from extproc.edge import Edge
from extproc.errors import LedgerUnavailable, RequestRefused, StoreUnavailable
from extproc.formats.rewrite import rewrite
from extproc.measure import lessons
from extproc.session.actions import (
    Action,
    Ask,
    AwaitBytes,
    CountOutput,
    Defer,
    Record,
    Report,
    Reserve,
    Rewrite,
    Settle,
    Understand,
)
from extproc.session.events import (
    ChargesReserved,
    Event,
    OutputCounted,
    Recorded,
    RecordFailed,
    Rewritten,
    StoreFailed,
    Told,
    Understood,
)
from extproc.settings import INLINE_BODY_BYTES
from extproc.telemetry import Parent, logs
from extproc.understand import Understanding, understand

log = logging.getLogger(__name__)

Answer = Event | asyncio.Future[Event] | None

# What takes time, by the names of its metric.
_STAGES: Mapping[type[Action], str] = MappingProxyType(
    {
        Understand: "understand",
        Rewrite: "rewrite",
        Reserve: "reserve",
        Record: "record",
        CountOutput: "count_output",
        Settle: "settle",
        Ask: "ask",
    }
)


class Errands:
    """Does the outward actions of one exchange."""

    def __init__(self, edge: Edge, parent: Parent) -> None:
        self._edge = edge
        self._parent = parent

    async def do(self, action: Action) -> Answer:
        """Do one action that is no answer to Envoy; None where nobody waits for it."""
        stage = _STAGES.get(type(action))
        if stage is None or (isinstance(action, Record) and not action.waits):
            return await self._do(action)
        began_s = time.perf_counter()
        answer = await self._do(action)

        def ended(_: object) -> None:
            self._edge.metrics.stage_duration.record(time.perf_counter() - began_s, stage)

        if isinstance(answer, asyncio.Future):
            answer.add_done_callback(ended)
        else:
            ended(answer)
        return answer

    async def _do(self, action: Action) -> Answer:
        match action:
            case Defer(event=event):
                return event
            case Report():
                self._report(action)
            case Settle():
                await self._settle(action)
            case Reserve() if self._edge.store.is_immediate:
                return await self._reserved(action)
            case Record(waits=False):
                if self._edge.ledger is not None:
                    self._edge.ledger.decided(action.decision)
            case Reserve() | Record() | AwaitBytes() | Ask():
                return asyncio.ensure_future(self._told(action))
            case Understand() | Rewrite() | CountOutput():
                return self._now_or_later(action)
        return None

    # --- what is computed, here or in the pool

    def _now_or_later(self, action: Understand | Rewrite | CountOutput) -> Answer:
        if _size_bytes(action) <= INLINE_BODY_BYTES:
            return self._computed(action)
        return asyncio.get_running_loop().run_in_executor(self._edge.pool, self._computed, action)

    def _computed(self, action: Understand | Rewrite | CountOutput) -> Event:
        match action:
            case Understand():
                return self._understood(action)
            case Rewrite():
                return rewritten(action, self._edge.clock_ns)
            case CountOutput():
                return self._counted(action)

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
        return understood(
            understanding,
            edge.clock_ns(),
            expected_output_tokens=edge.learned.percentile_95(*model),
            usual_reasoning_tokens=edge.reasoning.percentile_95(*model) or 0,
        )

    def _counted(self, action: CountOutput) -> OutputCounted:
        tokens = self._edge.tokenizer.count(action.text, provider=action.provider, model=action.model)
        return OutputCounted(at_ns=self._edge.clock_ns(), tokens=tokens)

    # --- what others are asked

    async def _told(self, action: Reserve | Record | AwaitBytes | Ask) -> Event:
        match action:
            case Reserve():
                return await self._reserved(action)
            case Record():
                return await self._recorded(action)
            case AwaitBytes():
                return await self._edge.access_log.bytes_sent(action, self._edge.clock_ns)
            case Ask():
                reply = await self._edge.callers.answer(action.inquiry, action.caller)
                return Told(at_ns=self._edge.clock_ns(), reply=reply)

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
        self._edge.leased.discard(action.reservation_id)
        if self._edge.store.is_immediate:
            await self._settled(action)
        else:
            # Nobody waits for it: Envoy cancels us once it has our last answer, and a slow store must not
            # hold up what follows.
            self._edge.spawn(self._settled(action))

    async def _settled(self, action: Settle) -> None:
        edge = self._edge
        try:
            await edge.store.settle(action.reservation_id, action.settlement.amounts, edge.clock_ns() // 1000)
        except StoreUnavailable:
            # The reservation stays until it expires: too much is held, nothing is given away.
            log.exception("settlement failed", extra={"decision_id": action.settlement.decision_id})
            edge.metrics.failures.add(1, error_type="settlement_failed")

    async def _recorded(self, action: Record) -> Event:
        edge = self._edge
        try:
            if edge.ledger is None:
                raise LedgerUnavailable("there is no ledger")  # noqa: TRY301  one way to fail
            await edge.ledger.committed(action.decision)
        except LedgerUnavailable:
            return RecordFailed(at_ns=edge.clock_ns())
        return Recorded(at_ns=edge.clock_ns())

    # --- what is told

    def _report(self, report: Report) -> None:
        edge, decision, settlement = self._edge, report.decision, report.settlement
        if edge.ledger is not None and settlement is not None:
            edge.ledger.settled(settlement)
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


def understood(
    found: Understanding,
    at_ns: int,
    *,
    expected_output_tokens: int | None = None,
    usual_reasoning_tokens: int = 0,
) -> Understood:
    """What a body was understood to ask for, as the session is told, with what was learned of its model."""
    return Understood(
        at_ns=at_ns,
        request=found.request,
        tokens=found.tokens,
        body_with_usage=found.body_with_usage,
        content_type=found.content_type,
        refused=found.refused,
        expected_output_tokens=expected_output_tokens,
        usual_reasoning_tokens=usual_reasoning_tokens,
    )


def rewritten(action: Rewrite, clock_ns: Callable[[], int]) -> Rewritten:
    """The body changed as `action` wants it, or why it cannot be."""
    try:
        body = rewrite(
            action.call,
            action.head,
            action.body,
            is_decoded=action.is_decoded,
            max_body_bytes=action.max_body_bytes,
            model=action.model,
            max_output_tokens=action.max_output_tokens,
        )
    except RequestRefused as refused:
        return Rewritten(at_ns=clock_ns(), refused=refused)
    return Rewritten(at_ns=clock_ns(), body=body)


def _holds_lease(outcome: ChargeOutcome) -> bool:
    return outcome.reserved > 0 and isinstance(outcome.charge.window, Leases)


def _size_bytes(action: Understand | Rewrite | CountOutput) -> int:
    match action:
        case Understand(head=head) if "content-encoding" in head.headers:
            # Nobody knows how large a compressed body is; sixteen kilobytes may be a million.
            return INLINE_BODY_BYTES + 1
        case Understand(body=body) | Rewrite(body=body):
            return len(body)
        case CountOutput(text=text):
            return len(text)
