"""One request through the real session, without Envoy: what it would be told, and why.

Floor 3. A store in memory counts, the given time is the clock, and nobody waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from extproc.decision import Decision, PolicyRef, Settlement
from extproc.errands import rewritten
from extproc.measure.prices import Prices
from extproc.measure.tokens import Tokenizer
from extproc.model import Identity, RequestHead
from extproc.policy.policyset import PolicySet
from extproc.rehearsal.counts import use
from extproc.session.actions import (
    Action,
    AwaitBytes,
    Continue,
    CountOutput,
    Defer,
    Record,
    Reserve,
    RespondImmediately,
    Rewrite,
    Settle,
    Understand,
)
from extproc.session.admission import SessionSettings
from extproc.session.events import (
    BytesSent,
    ChargesReserved,
    Event,
    OutputCounted,
    Recorded,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
    Understood,
)
from extproc.session.session import Session
from extproc.session.transitions import State
from extproc.store.memory import MemoryStore
from extproc.understand import understand

DECISION_ID = "00000000-0000-7000-8000-000000000000"

Do = Callable[[Action], Awaitable[Event | None]]


async def play(session: Session, event: Event, do: Do) -> list[Continue | RespondImmediately]:
    """Feed an event and do whatever the session wants then; returns what it said to Envoy."""
    said: list[Continue | RespondImmediately] = []
    events = deque([event])
    while events:
        for action in session.receive(events.popleft()):
            if isinstance(action, Continue | RespondImmediately):
                said.append(action)
            elif (answer := await do(action)) is not None:
                events.append(answer)
    return said


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the provider would answer, whole."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A request and the world it comes into."""

    head: RequestHead
    body: bytes = b""
    at_ns: int  # Unix time
    caller: Identity | None = None  # None: the request's own credential counts
    # Of each limit by this request's key, in the limit's unit.
    used: Mapping[PolicyRef, int] = field(default_factory=dict)
    answer: Answer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """What came of it."""

    decision: Decision
    reply: RespondImmediately | None = None  # what a denied caller is answered
    forwarded: Continue | None = None  # how an allowed request goes upstream; no body: as it came
    settlement: Settlement | None = None
    charged: frozenset[PolicyRef] = frozenset()  # the limits that were asked about their counters


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """What counts and prices; the same for every request."""

    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    prices: Prices = field(default_factory=Prices)


async def rehearse(policies: PolicySet, given: Given, instruments: Instruments) -> Rehearsed:
    """Decide the request, and settle it where an answer is given."""
    session = Session(
        policies,
        decision_id=DECISION_ID,
        settings=SessionSettings(prices=instruments.prices, caller=given.caller),
    )
    props = _Props(given, instruments)
    said = await play(session, RequestHeaders(at_ns=given.at_ns, head=given.head), props.do)
    if session.state is State.AWAITING_BODY:
        said += await play(session, RequestBody(at_ns=given.at_ns, body=given.body), props.do)
    reply = next((each for each in said if isinstance(each, RespondImmediately)), None)
    forwarded = next((each for each in reversed(said) if isinstance(each, Continue)), None)
    if given.answer is not None and session.state is State.FORWARDED:
        await _answer(session, given.answer, given.at_ns, props.do)
    if session.decision is None:
        raise RuntimeError(f"a request that is never decided: {session.state}")
    return Rehearsed(
        decision=session.decision,
        reply=reply,
        forwarded=None if reply else forwarded,
        settlement=props.settlement,
        charged=frozenset(props.charged),
    )


async def _answer(session: Session, answer: Answer, at_ns: int, do: Do) -> None:
    headers = ResponseHeaders(
        at_ns=at_ns, status=answer.status, headers=answer.headers, end_of_stream=not answer.body
    )
    await play(session, headers, do)
    if answer.body:
        await play(session, ResponseBody(at_ns=at_ns, body=answer.body, end_of_stream=True), do)


class _Props:
    """Does what one session wants, at once."""

    def __init__(self, given: Given, instruments: Instruments) -> None:
        self.settlement: Settlement | None = None
        self.charged: set[PolicyRef] = set()
        self._given = given
        self._tokenizer = instruments.tokenizer
        self._store = MemoryStore()
        self._counters: set[str] = set()

    async def do(self, action: Action) -> Event | None:
        at_ns = self._given.at_ns
        answer: Event | None = None
        match action:
            case Understand():
                answer = self._understood(action)
            case Reserve():
                answer = await self._reserved(action)
            case Rewrite():
                answer = rewritten(action, lambda: at_ns)
            case Record(waits=True):
                answer = Recorded(at_ns=at_ns)
            case Defer(event=event):
                answer = event
            case CountOutput(provider=provider, model=model, text=text):
                tokens = self._tokenizer.count(text, provider=provider, model=model)
                answer = OutputCounted(at_ns=at_ns, tokens=tokens)
            case AwaitBytes():
                answer = BytesSent(at_ns=at_ns, body_bytes=None)
            case Settle(settlement=settlement):
                self.settlement = settlement
        return answer

    def _understood(self, action: Understand) -> Understood:
        found = understand(
            action.head,
            action.call,
            action.body,
            max_body_bytes=action.max_body_bytes,
            tokenizer=self._tokenizer,
            asks_for_usage=action.asks_for_usage,
        )
        return Understood(
            at_ns=self._given.at_ns,
            request=found.request,
            tokens=found.tokens,
            body_with_usage=found.body_with_usage,
            content_type=found.content_type,
            refused=found.refused,
        )

    async def _reserved(self, action: Reserve) -> ChargesReserved:
        at_us = self._given.at_ns // 1000
        for charge in action.charges:
            self.charged.add(charge.policy)
            amount = self._given.used.get(charge.policy, 0)
            if amount and charge.counter not in self._counters:
                await use(self._store, charge, amount, at_us, name=charge.counter)
            self._counters.add(charge.counter)
        outcomes = await self._store.reserve(action.decision_id, action.charges, at_us)
        return ChargesReserved(at_ns=self._given.at_ns, outcomes=outcomes)
