"""The first half of a session: from a request's first header to the verdict, and its record.

Floor 2, no I/O. What the session does once the request is on its way is `session`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from extproc.decision import Decision, Denial, Effect, Settlement
from extproc.errors import ProtocolViolation, RequestRefused
from extproc.formats import FORMATS, classify, fields
from extproc.formats.base import BodyKind, Call, WireFormat
from extproc.measure.ceilings import call_ceiling
from extproc.measure.prices import Prices
from extproc.model import AIRequest, Basis, Identity, RequestHead, TokenEstimate, Trace, Usage
from extproc.policy.engine import Evaluation
from extproc.policy.policyset import PolicySet
from extproc.session import inquiry, replies
from extproc.session.actions import (
    Action,
    Ask,
    Continue,
    Record,
    Report,
    Reserve,
    Rewrite,
    Settle,
    Understand,
)
from extproc.session.answer import Answer
from extproc.session.events import (
    ChargesReserved,
    DeadlinePassed,
    Recorded,
    RecordFailed,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseHeaders,
    Rewritten,
    StoreFailed,
    StreamClosed,
    Told,
    Understood,
)
from extproc.session.transitions import State
from extproc.understand import without_body


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """What differs between deployments."""

    native_usage: bool = False  # Envoy reads the usage and hands it over in the trailers
    prices: Prices = field(default_factory=Prices)  # as published; none: only the folder's have a cost
    caller: Identity | None = None  # who calls, where that is known without a credential: in policy tests


class Admission:
    """Handlers of the events that come before a request is forwarded; `Session` adds the others."""

    def __init__(
        self,
        policies: PolicySet,
        *,
        decision_id: str,
        settings: SessionSettings,
        trace: Trace = Trace(),  # noqa: B008  a frozen value
    ) -> None:
        self.state = State.START
        self.decision: Decision | None = None
        self._policies = policies
        self._decision_id = decision_id
        self._settings = settings
        self._trace = trace
        self._prices = policies.prices.over(settings.prices)
        self._owes_trailers = False
        # Set by _on_request_headers, which every other handler comes after.
        self._evaluation: Evaluation
        self._head: RequestHead
        self._format: WireFormat
        self._call: Call | None = None
        self._request: AIRequest | None = None
        self._body = b""
        self._new_body: bytes | None = None
        self._expected_output_tokens: int | None = None
        self._reservation_id = decision_id
        self._is_left = False  # allowed, and gone before it was sent upstream
        self._settled: Settlement | None = None
        self._content_type = ""
        self._usual_reasoning_tokens = 0
        self._skips_body = False
        self._answers_phase: type = RequestHeaders
        self._answer = Answer()

    # --- the request

    def _on_request_headers(self, event: RequestHeaders) -> list[Action]:
        head = self._head = event.head
        self._format = classify.dialect(head)
        self._evaluation = Evaluation(
            self._policies,
            decision_id=self._decision_id,
            head=head,
            at_ns=event.at_ns,
            prices=self._prices,
            trace=self._trace,
            caller=self._settings.caller,
        )
        return self._inquire(event) if inquiry.is_one(head) else self._admit(event)

    def _admit(self, event: RequestHeaders) -> list[Action]:
        """Wait for the body, or decide without one."""
        head = event.head
        refused = self._classify(head)
        denial = self._evaluation.check_headers()
        if denial is None and refused is not None:
            denial = self._evaluation.refuse(refused)
        if denial is not None:
            return self._deny(denial, event.at_ns)
        may_be_unclassified = self._policies.defaults.unclassified is Effect.ALLOW
        if self._call is None and not (head.has_body and may_be_unclassified):
            # Nothing a body holds could classify it: decided before a byte is buffered.
            return self._judge(None, TokenEstimate(), event.at_ns)
        if self._call is not None and head.is_upgrade:
            return self._upgrade(self._call, event)
        if head.has_body:
            self.state = State.AWAITING_BODY
            return [Continue(phase=RequestHeaders)]
        if self._call is not None and self._call.body in (BodyKind.NONE, BodyKind.OPAQUE):
            return self._judge(without_body(self._call), TokenEstimate(), event.at_ns)
        refused = RequestRefused(
            status=400, code="body_missing", message="This endpoint needs a JSON body; the request has none."
        )
        return self._deny(self._evaluation.refuse(refused), event.at_ns)

    def _inquire(self, event: RequestHeaders) -> list[Action]:
        """Who asks about itself must be known; no policy but Identity is asked, and nothing is decided."""
        denial = self._evaluation.check_identity()
        if denial is not None:
            return self._deny(denial, event.at_ns)
        try:
            inquiry.check_caller(self._evaluation.caller)
            asked = inquiry.read(event.head)
        except RequestRefused as refused:
            return self._deny(self._evaluation.refuse(refused), event.at_ns)
        self.state = State.ASKING
        return [Ask(inquiry=asked, caller=self._evaluation.caller)]

    def _on_told(self, event: Told) -> list[Action]:
        return [replies.tell(event.reply)]

    def _on_not_told(self, event: DeadlinePassed) -> list[Action]:
        return [replies.tell(replies.NOT_TOLD)]

    def _upgrade(self, call: Call, event: RequestHeaders) -> list[Action]:
        """A connection that becomes another protocol: only where the request line says all there is."""
        if call.operation != "realtime" or call.body is not BodyKind.NONE:
            refused = fields.not_this_call("The header upgrade is not accepted: this call is plain HTTP")
            return self._deny(self._evaluation.refuse(refused), event.at_ns)
        # Buffered, its body would be waited for in vain: envoyproxy/envoy#47081.
        self._skips_body = True
        # Nobody will read what it spends: one answer's ceiling is set aside, and charged.
        ceiling = TokenEstimate(max_output=call_ceiling(call.provider, call.model, call.operation))
        return self._judge(without_body(call), ceiling, event.at_ns)

    def _classify(self, head: RequestHead) -> RequestRefused | None:
        """Find the call and its dialect; what must not pass is said after who calls was checked."""
        try:
            self._call = classify.claim(head, self._policies.providers)
        except RequestRefused as refused:
            return refused
        if self._call is not None:
            self._format = FORMATS[self._call.api]
        return None

    def _on_request_body(self, event: RequestBody) -> list[Action]:
        self._answers_phase = RequestBody
        self._body = event.body
        limit = self._policies.defaults.max_body_bytes
        if self._call is not None:
            self.state = State.UNDERSTANDING
            understand = Understand(
                head=self._head,
                call=self._call,
                body=event.body,
                max_body_bytes=limit,
                asks_for_usage=self._policies.defaults.usage_chunk != "off",
                counts_large=self._policies.needs_token_counts,
            )
            return [understand]
        # No format reads this body, and it passes as it is where the rules allow that.
        if len(event.body) > limit:
            return self._deny(self._evaluation.refuse(self._too_large()), event.at_ns)
        return self._judge(None, TokenEstimate(), event.at_ns)

    def _on_understood(self, event: Understood) -> list[Action]:
        if event.refused is not None:
            return self._deny(self._evaluation.refuse(event.refused), event.at_ns)
        self._new_body, self._content_type = event.body_with_usage, event.content_type
        self._usual_reasoning_tokens = event.usual_reasoning_tokens
        self._expected_output_tokens = event.expected_output_tokens
        return self._judge(event.request, event.tokens, event.at_ns)

    def _judge(self, request: AIRequest | None, tokens: TokenEstimate, at_ns: int) -> list[Action]:
        self._request = request
        denial = self._evaluation.check_body(request, tokens, at_ns)
        if denial is not None:
            return self._deny(denial, at_ns)
        ceiling = self._evaluation.clamped_output_tokens
        if ceiling is not None:
            return self._rewrite(max_output_tokens=ceiling)
        return self._reserve(at_ns)

    def _rewrite(self, *, model: str | None = None, max_output_tokens: int | None = None) -> list[Action]:
        """Have the body changed that goes upstream; where there is none, nothing can be."""
        if self._call is None:
            raise ProtocolViolation("a change to a request that no format reads")
        self.state = State.REWRITING
        is_decoded = self._new_body is not None
        rewrite = Rewrite(
            head=self._head,
            call=self._call,
            body=self._body if self._new_body is None else self._new_body,
            is_decoded=is_decoded,
            max_body_bytes=self._policies.defaults.max_body_bytes,
            model=model,
            max_output_tokens=max_output_tokens,
        )
        return [rewrite]

    def _on_rewritten(self, event: Rewritten) -> list[Action]:
        if event.refused is not None:
            return self._deny(self._evaluation.rewriting_refused(event.refused), event.at_ns)
        self._new_body = event.body
        return self._reserve(event.at_ns)

    # --- the limits

    def _reserve(self, at_ns: int) -> list[Action]:
        charges = self._evaluation.charges(self._expected_output_tokens)
        if isinstance(charges, Denial):
            return self._deny(charges, at_ns)
        if charges:
            self.state = State.RESERVING
            return [Reserve(decision_id=self._reservation_id, charges=charges)]
        denial = self._evaluation.check_limits(())
        return self._allow(at_ns) if denial is None else self._deny(denial, at_ns)

    def _on_charges_reserved(self, event: ChargesReserved) -> list[Action]:
        denial = self._evaluation.check_limits(event.outcomes)
        if denial is None:
            return self._allow(event.at_ns)
        model = self._evaluation.substitute()
        if model is None:
            return self._deny(denial, event.at_ns)
        # A reservation of its own: the first was denied, and is remembered as that.
        self._reservation_id = f"{self._decision_id}~{model}"
        return self._rewrite(model=model)

    def _on_store_failed(self, event: StoreFailed | DeadlinePassed) -> list[Action]:
        denial = self._evaluation.store_failed()
        if denial is None:
            return self._allow(event.at_ns)
        denied = self._deny(denial, event.at_ns)
        if isinstance(event, DeadlinePassed):
            return denied  # what is taken yet is given back when it is known
        return [*denied, self._give_back(event.at_ns)]

    def _on_deadline(self, event: DeadlinePassed) -> list[Action]:
        return self._deny(self._evaluation.deadline_passed(), event.at_ns)

    def _on_late_reservation(self, event: ChargesReserved | StoreFailed) -> list[Action]:
        """Settle what was taken too late like the rest: a request that was not forwarded spent nothing."""
        if self._is_forwarded:
            return [] if self._settled is None else [self._settle_as(self._settled)]
        return [self._give_back(event.at_ns)]

    @property
    def _is_forwarded(self) -> bool:
        decision = self.decision
        return decision is not None and decision.enforced_effect is Effect.ALLOW and not self._is_left

    def _give_back(self, at_ns: int) -> Settle:
        return self._settle_as(self._nothing_spent(at_ns))

    def _settle_as(self, settlement: Settlement) -> Settle:
        return Settle(settlement=settlement, reservation_id=self._reservation_id)

    def _nothing_spent(self, at_ns: int) -> Settlement:
        return Settlement(
            decision_id=self._decision_id,
            basis=Basis.LOCAL_REPLY,
            usage=Usage(input_tokens=0, output_tokens=0),
            amounts={},
            cost=self._prices.nothing(),
            ended_at_ns=at_ns,
        )

    # --- the verdict

    def _allow(self, at_ns: int) -> list[Action]:
        decision = self.decision = self._evaluation.decision(at_ns)
        if self._policies.defaults.audit == "required":
            self.state = State.RECORDING
            return [Record(decision=decision, waits=True)]
        return [Record(decision=decision), *self._forward(decision), Report(decision=decision)]

    def _on_recorded(self, event: Recorded) -> list[Action]:
        decision = self._allowed_decision
        return [*self._forward(decision), Report(decision=decision)]

    def _on_record_failed(self, event: RecordFailed | DeadlinePassed) -> list[Action]:
        denied = self._deny(self._evaluation.audit_failed(), event.at_ns)
        return [*denied, self._give_back(event.at_ns)]

    def _on_reply_before_forwarding(self, event: ResponseHeaders) -> list[Action]:
        return [replies.pass_with_id(self._decision_id), *self._leave(event.at_ns)]

    def _on_left_before_forwarding(self, event: StreamClosed) -> list[Action]:
        return self._leave(event.at_ns)

    def _leave(self, at_ns: int) -> list[Action]:
        """The decision may be on disk as allowed: it has an end, and that is nothing."""
        self._is_left = True
        decision, settlement = self._allowed_decision, self._nothing_spent(at_ns)
        reports = [Report(decision=decision), Report(decision=decision, settlement=settlement)]
        return [self._settle_as(settlement), *reports]

    def _forward(self, decision: Decision) -> list[Action]:
        self.state = State.FORWARDED
        self._body = b""
        forward = replies.forward(
            decision,
            phase=self._answers_phase,
            consumed_headers=self._evaluation.consumed_headers,
            path=self._evaluation.path_without_credential,
            body=self._new_body,
            content_type=self._content_type,
            skip_request_body=self._skips_body,
        )
        actions: list[Action] = [forward]
        if self._owes_trailers:
            actions.append(Continue(phase=RequestTrailers))
        return actions

    def _deny(self, denial: Denial, at_ns: int) -> list[Action]:
        self.state = State.DENIED
        decision = self.decision = self._evaluation.decision(at_ns)
        reply = self._format.render_denial(denial, self._call.provider if self._call else "")
        return [Record(decision=decision), replies.refuse(decision, reply), Report(decision=decision)]

    def _too_large(self) -> RequestRefused:
        limit = self._policies.defaults.max_body_bytes
        return RequestRefused(
            status=replies.CONTENT_TOO_LARGE,
            code="body_too_large",
            message=f"The request body is larger than {limit} bytes, the most this gateway accepts.",
        )

    @property
    def _allowed_decision(self) -> Decision:
        if self.decision is None or self.decision.enforced_effect is not Effect.ALLOW:
            raise ProtocolViolation("an answer to a request that was not allowed")
        return self.decision
