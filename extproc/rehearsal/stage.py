"""One request through the real session, without Envoy: what would be decided, and why.

Floor 3. A store in memory counts, the given time is the clock, and nobody waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from extproc.decision import Decision, PolicyRef
from extproc.errands import rewritten, understood
from extproc.measure.prices import Prices
from extproc.measure.tokens import Tokenizer
from extproc.model import Identity, RequestHead
from extproc.policy.policyset import PolicySet
from extproc.rehearsal.counts import use
from extproc.session.actions import (
    Action,
    Continue,
    Record,
    Reserve,
    RespondImmediately,
    Rewrite,
    Understand,
)
from extproc.session.admission import SessionSettings
from extproc.session.events import (
    ChargesReserved,
    Event,
    Recorded,
    RequestBody,
    RequestHeaders,
    Understood,
)
from extproc.session.session import Session
from extproc.session.transitions import State
from extproc.store.memory import MemoryStore
from extproc.understand import understand

DECISION_ID = "00000000-0000-7000-8000-000000000000"

Do = Callable[[Action], Awaitable[Event | None]]


async def play(session: Session, event: Event, do: Do) -> None:
    """Feed an event and do whatever the session wants then. What it says to Envoy nobody hears."""
    events = deque([event])
    while events:
        for action in session.receive(events.popleft()):
            if isinstance(action, Continue | RespondImmediately):
                continue
            if (answer := await do(action)) is not None:
                events.append(answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A request and the world it comes into."""

    head: RequestHead
    body: bytes = b""
    at_ns: int  # Unix time
    caller: Identity | None = None  # None: the request's own credential counts
    # Of each limit by this request's key, in the limit's unit.
    used: Mapping[PolicyRef, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """What came of it."""

    decision: Decision
    charged: frozenset[PolicyRef] = frozenset()  # the limits that were asked about their counters


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """What counts and prices; the same for every request."""

    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    prices: Prices = field(default_factory=Prices)


async def rehearse(policies: PolicySet, given: Given, instruments: Instruments) -> Rehearsed:
    """Decide the request."""
    session = Session(
        policies,
        decision_id=DECISION_ID,
        settings=SessionSettings(prices=instruments.prices, caller=given.caller),
    )
    props = _Props(given, instruments)
    await play(session, RequestHeaders(at_ns=given.at_ns, head=given.head), props.do)
    if session.state is State.AWAITING_BODY:
        await play(session, RequestBody(at_ns=given.at_ns, body=given.body), props.do)
    if session.decision is None:
        raise RuntimeError(f"a request that is never decided: {session.state}")
    return Rehearsed(decision=session.decision, charged=frozenset(props.charged))


class _Props:
    """Does what one session wants, at once."""

    def __init__(self, given: Given, instruments: Instruments) -> None:
        self.charged: set[PolicyRef] = set()
        self._given = given
        self._tokenizer = instruments.tokenizer
        self._store = MemoryStore()
        self._counters: set[str] = set()

    async def do(self, action: Action) -> Event | None:
        at_ns = self._given.at_ns
        match action:
            case Understand():
                return self._understood(action)
            case Reserve():
                return await self._reserved(action)
            case Rewrite():
                return rewritten(action, lambda: at_ns)
            case Record(waits=True):
                return Recorded(at_ns=at_ns)
        return None

    def _understood(self, action: Understand) -> Understood:
        found = understand(
            action.head,
            action.call,
            action.body,
            max_body_bytes=action.max_body_bytes,
            tokenizer=self._tokenizer,
            asks_for_usage=action.asks_for_usage,
        )
        return understood(found, self._given.at_ns)

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
