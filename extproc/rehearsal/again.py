"""Recorded requests, decided again by other policies at the times that they came.

Floor 3. Who called, what it asked for, what its input was counted at and what it came to are what the
record says; what it does not say is a `Doubt`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from heapq import heappop, heappush
from itertools import count
from types import MappingProxyType
from typing import Final

from extproc.decision import Decision, Effect, Mode, PolicyRef, Reason, Settlement, Unit
from extproc.errors import RequestRefused
from extproc.formats.base import CONTROL
from extproc.measure import lessons
from extproc.measure.bytes_per_token import BytesPerToken
from extproc.measure.calibration import Calibration
from extproc.measure.learned import LearnedOutputs, learned_reasoning
from extproc.model import AIRequest, Basis, Identity, Prompt, RequestHead, TokenEstimate, Usage
from extproc.policy import accounting
from extproc.policy.accounting import Ending
from extproc.policy.kinds.rate_limit import RateLimit
from extproc.policy.policyset import PolicySet
from extproc.rehearsal import doubts
from extproc.rehearsal.counts import Counts
from extproc.rehearsal.doubts import Doubt
from extproc.rehearsal.recorded import Recording
from extproc.rehearsal.rewriting import as_it_came, rewritten
from extproc.rehearsal.stage import Instruments, play
from extproc.rehearsal.standing_in import showing, with_stand_ins
from extproc.session.actions import Action, Record, Reserve, Rewrite, Understand
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
from extproc.settings import INLINE_BODY_BYTES

# A lease is over when its answer is, not at the microsecond of it.
_A_MOMENT_US: Final = 1_000_000


@dataclass(slots=True)
class _Course:
    """What one request did on its way."""

    then: Decision
    counts: Counts
    at_us: int
    held_us: int
    reservation: str = ""  # the last one


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """What is to be settled when a request ends."""

    counts: Counts
    then: Decision
    settlement: Settlement | None  # None: there was no end then
    found: Decision | None  # None: nothing was reserved now
    reservation: str
    ending: Ending


class Again:
    """Give it every recording in the order of time; `scopes` are the owners of counters in that ledger."""

    def __init__(
        self, policies: PolicySet, instruments: Instruments, *, scopes: frozenset[str] = frozenset()
    ) -> None:
        self._policies = with_stand_ins(policies)
        self._tokenizer = instruments.tokenizer
        self._published = instruments.prices
        self._prices = policies.prices.over(instruments.prices)
        self._readers = doubts.readers_of_headers(policies)
        self._scopes = scopes
        self._counts: dict[str, Counts] = {}
        self._ends: list[tuple[int, int, _End]] = []
        self._numbers = count()
        self._outputs = LearnedOutputs()
        self._reasoning = learned_reasoning()
        self._calibration = Calibration()
        self._bytes_per_token = BytesPerToken()
        self.estimated = 0  # requests of which nobody knows what they would have come to
        self.begun: set[PolicyRef] = set()  # limits of which no record says what was used

    async def decide(self, recording: Recording) -> Decision:
        """What these policies say of it; what it takes is counted. Raises `Doubt`."""
        then, settlement = recording.decision, recording.settlement
        at_us = then.decided_at_ns // 1000
        await self._end_until(at_us)
        held_us = max(0, settlement.ended_at_ns // 1000 - at_us) + _A_MOMENT_US if settlement else 0
        course = _Course(then, self._counts_of(recording.instance), at_us, held_us)
        await course.counts.happened(then, at_us, held_us)
        found: Decision | None = None
        try:
            doubts.before(recording, self._policies)
            found = await self._play(course)
            doubts.after(recording, found, self._policies, self._readers)
        except Doubt:
            # It does as it did.
            await course.counts.settle(course.reservation, {}, at_us)
            course.reservation, found = f"{then.id} as it was", then
            await course.counts.repeat(course.reservation, then, at_us, held_us)
            raise
        finally:
            self._schedule(course, settlement, found)
        return found

    def _counts_of(self, instance: str) -> Counts:
        """The instance's own counters, or those that all share."""
        scope = instance if instance in self._scopes else ""
        return self._counts.setdefault(scope, Counts())

    # --- one request

    async def _play(self, course: _Course) -> Decision:
        then = course.then
        caller, head = self._caller(then)
        session = Session(
            self._policies,
            decision_id=then.id,
            settings=SessionSettings(prices=self._published, caller=caller),
            trace=then.trace,
        )

        do = partial(self._do, course)
        await play(session, RequestHeaders(at_ns=then.decided_at_ns, head=head), do)
        if session.state is State.AWAITING_BODY:
            await play(session, RequestBody(at_ns=then.decided_at_ns, body=b""), do)
        if session.decision is None:
            raise RuntimeError(f"a request that is never decided: {session.state}")
        return session.decision

    def _caller(self, then: Decision) -> tuple[Identity | None, RequestHead]:
        """Who calls, where this folder recognises anybody; a key is shown again, and judged again."""
        identity = self._policies.identity
        if identity is None or identity.mode is Mode.DISABLED:
            return None, then.head
        if then.identity.key:
            return None, showing(self._policies, then.head, then.identity.key)
        return (then.identity if then.identity.authenticated else None), then.head

    async def _do(self, course: _Course, action: Action) -> Event | None:
        at_ns = course.then.decided_at_ns
        match action:
            case Understand():
                return self._understood(action, course.then)
            case Reserve():
                return await self._reserved(action, course)
            case Rewrite():
                return rewritten(action, course.then)
            case Record(waits=True):
                return Recorded(at_ns=at_ns)
        return None

    def _understood(self, action: Understand, then: Decision) -> Understood:
        request, at_ns = then.request, then.decided_at_ns
        if request is None:
            raise Doubt(doubts.NO_BODY)
        if (action.call.api, action.call.provider) != (request.api, request.provider):
            raise Doubt(doubts.OTHER_FORMAT)
        if request.body_bytes > action.max_body_bytes:
            refused = RequestRefused(
                status=413,
                code=Reason.BODY_TOO_LARGE,
                message=f"The request body is larger than {action.max_body_bytes} bytes.",
            )
            return Understood(at_ns=at_ns, refused=refused)
        if action.counts_large and self._was_not_counted(request, then.tokens):
            raise Doubt(doubts.NOT_COUNTED)
        request, tokens = as_it_came(then, request)
        return Understood(
            at_ns=at_ns,
            request=request,
            tokens=tokens,
            expected_output_tokens=self._expected_output_tokens(then, request),
        )

    def _was_not_counted(self, request: AIRequest, tokens: TokenEstimate) -> bool:
        """Whether a large body was only estimated, because no policy asked, although it could be counted."""
        if request.body_bytes <= INLINE_BODY_BYTES or not tokens.estimator.startswith("bytes"):
            return False
        counted = self._tokenizer.estimate(
            Prompt(), provider=request.provider, model=request.model, declared_max_output=0
        )
        return not counted.estimator.startswith("bytes")

    def _expected_output_tokens(self, then: Decision, request: AIRequest) -> int | None:
        """What was learned of the model by then: a limit that reserved by it says so, else this replay."""
        by_rate = [
            outcome.charge.amount - (then.tokens.input if outcome.charge.unit is Unit.TOKENS else 0)
            for outcome in then.outcomes
            if outcome.charge.policy.kind == RateLimit.__name__
            and outcome.charge.unit in (Unit.TOKENS, Unit.OUTPUT_TOKENS)
        ]
        if by_rate and not then.target_model:
            return min(by_rate) // max(1, request.choices)
        return self._outputs.percentile_95(request.provider, request.model)

    async def _reserved(self, action: Reserve, course: _Course) -> ChargesReserved:
        then = course.then
        counted = {outcome.charge.counter for outcome in then.outcomes}
        led_elsewhere = {f.policy for f in then.spoken if f.reason is Reason.MODEL_SUBSTITUTED}
        for charge in action.charges:
            if charge.policy in led_elsewhere and charge.counter not in counted:
                raise Doubt(doubts.NO_COUNTER)
            if not course.counts.is_known(charge.counter):
                self.begun.add(charge.policy)
        course.reservation = action.decision_id
        outcomes = await course.counts.reserve(
            action.decision_id, action.charges, course.at_us, course.held_us
        )
        return ChargesReserved(at_ns=then.decided_at_ns, outcomes=outcomes)

    # --- what they come to

    def _schedule(self, course: _Course, settlement: Settlement | None, found: Decision | None) -> None:
        then, at_us = course.then, course.at_us
        was_allowed = then.enforced_effect is Effect.ALLOW
        is_allowed = found is not None and found.enforced_effect is Effect.ALLOW
        if was_allowed and settlement is None:
            return  # nobody reported an end: what was reserved stays
        if settlement is not None:
            is_same = found is not None and found.upstream_model == then.upstream_model
            ending = _ending(settlement, settlement.model if is_same else "")
            at_us = max(at_us, settlement.ended_at_ns // 1000)
        elif is_allowed and found is not None:
            self.estimated += 1
            ending = self._estimated(found)
        else:
            return
        end = _End(
            counts=course.counts,
            then=then,
            settlement=settlement,
            found=found if is_allowed else None,
            reservation=course.reservation,
            ending=ending,
        )
        heappush(self._ends, (at_us, next(self._numbers), end))

    def _estimated(self, found: Decision) -> Ending:
        """An end for what never began: as long as answers of its model usually are."""
        request, tokens = found.request, found.tokens
        if request is None or request.operation == CONTROL:
            return Ending(status=200, usage=Usage(input_tokens=0, output_tokens=0), finished=True)
        usual = self._outputs.percentile_95(request.provider, request.model)
        output = tokens.max_output if usual is None else min(usual, tokens.max_output)
        usage = Usage(input_tokens=tokens.input, output_tokens=output * request.choices)
        return Ending(status=200, usage=usage, finished=True)

    async def _end_until(self, at_us: int) -> None:
        while self._ends and self._ends[0][0] <= at_us:
            ended_us, _, end = heappop(self._ends)
            await self._end(end, ended_us)

    async def _end(self, end: _End, at_us: int) -> None:
        settlement = end.settlement
        if settlement is not None:
            amounts = settlement.amounts or accounting.settle(end.then, end.ending, self._prices).amounts
            await end.counts.settled(end.then, amounts, at_us)
            lessons.settled(
                end.then,
                settlement,
                self._outputs,
                self._reasoning,
                self._calibration,
                bytes_per_token=self._bytes_per_token,
            )
        if end.found is not None and end.reservation:
            account = accounting.settle(end.found, end.ending, self._prices)
            await end.counts.settle(end.reservation, account.amounts, at_us)


_ENDED: Mapping[Basis, Ending] = MappingProxyType(
    {
        Basis.RESERVED: Ending(),
        Basis.UPSTREAM_ERROR: Ending(status=500),
        Basis.LOCAL_REPLY: Ending(is_local_reply=True, reached_upstream=False),
    }
)


def _ending(settlement: Settlement, model: str) -> Ending:
    """An end that comes to what was recorded."""
    known = _ENDED.get(settlement.basis)
    return known or Ending(status=200, usage=settlement.usage, finished=True, model=model)
