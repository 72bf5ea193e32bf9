"""One gRPC stream: events in, the session's actions done, in order.

Floor 3. The only place where waiting happens. Whatever goes wrong here aborts the stream with a
fixed text: a clean return is fail-open on every Envoy, and an exception's text would reach its
access log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Protocol

from extproc import wire
from extproc.edge import Edge
from extproc.errands import Errands
from extproc.intake import Intake
from extproc.pb.ai_policy.v1 import ext_proc_pb2 as pb
from extproc.session.actions import Action, Continue, RespondImmediately
from extproc.session.events import (
    ChargesReserved,
    DeadlinePassed,
    Event,
    RequestHeaders,
    StreamClosed,
    Understood,
)
from extproc.session.session import Session
from extproc.session.transitions import State
from extproc.telemetry import Parent

log = logging.getLogger(__name__)


# At these the session asks policies.
_JUDGED = frozenset({RequestHeaders, Understood, ChargesReserved})


class Stream(Protocol):
    """What a gRPC stream offers; grpc.aio's servicer context, or a test's list."""

    def read(self) -> Coroutine[Any, Any, Any]:
        """Wait for the next message; anything that is not one is the end."""

    def write(self, message: bytes) -> Coroutine[Any, Any, None]:
        """Send one serialized answer."""


class Exchange:
    """Runs one session over one stream."""

    def __init__(self, session: Session, edge: Edge, parent: Parent) -> None:
        self._session = session
        self._edge = edge
        self._errands = Errands(edge, parent)
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
            todo.extend(await self._received(events.popleft()))
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

    async def _received(self, event: Event) -> list[Action]:
        if type(event) not in _JUDGED:
            return await self._intake.receive(event)
        began_s = time.perf_counter()
        actions = await self._intake.receive(event)
        self._edge.metrics.stage_duration.record(time.perf_counter() - began_s, "evaluate")
        return actions

    async def _do(self, action: Action) -> Event | None:
        """Do one outward action; None where its answer comes later, or never."""
        answer = await self._errands.do(action)
        if isinstance(answer, asyncio.Future):
            self._answer = answer
            return None
        return answer

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


def _outward(actions: Iterable[Action]) -> list[Action]:
    """The actions that are no answers to Envoy."""
    return [action for action in actions if not isinstance(action, Continue | RespondImmediately)]
