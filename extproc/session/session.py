"""One HTTP request from its first header to its settlement, as a machine without I/O.

Floor 2. `Session.receive(event)` returns what must be done, in order; the gRPC loop, the tests and
the policy tools do it. No await, no clock, no gRPC type. Which event may come when is in
`transitions`; what an answer comes to is `answer`'s; what is said to Envoy is in `replies`; the verdict
is the engine's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from extproc.decision import Cost, Decision, Denial, Effect, Settlement
from extproc.errors import ProtocolViolation, RequestRefused
from extproc.formats import FORMATS, classify, fields
from extproc.formats.base import BodyKind, Call, WireFormat
from extproc.measure.ceilings import call_ceiling
from extproc.measure.prices import Prices
from extproc.model import AIRequest, Basis, RequestHead, TokenEstimate, Usage
from extproc.policy.engine import Evaluation
from extproc.policy.policyset import PolicySet
from extproc.session import replies
from extproc.session.answer import Answer
from extproc.session.events import (
    Action,
    ChargesReserved,
    ChunkToRead,
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
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    Reserve,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    Rewrite,
    Rewritten,
    Settle,
    StoreFailed,
    StreamClosed,
    Understand,
    Understood,
)
from extproc.session.transitions import TRANSITIONS, State
from extproc.understand import without_body


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """What differs between deployments."""

    native_usage: bool = False  # Envoy reads the usage and hands it over in the trailers
    prices: Prices = field(default_factory=Prices)  # as published; none: only the folder's have a cost


class Session:
    """The state machine of one exchange; make one a request, feed it every event, do every action."""

    def __init__(self, policies: PolicySet, *, decision_id: str, settings: SessionSettings) -> None:
        self.state = State.START
        self.decision: Decision | None = None
        self._policies = policies
        self._decision_id = decision_id
        self._settings = settings
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

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do but to close."""
        return self.state in (State.SETTLED, State.DENIED, State.ABANDONED)

    def work_bytes(self, event: Event) -> int:
        """How many bytes of an answer `receive(event)` may read; an event loop would rather not."""
        match event:
            case ChunkToRead(body=body):
                return self._answer.work_bytes(len(body), is_last=False)
            case ResponseBody(body=body, end_of_stream=True):
                return self._answer.work_bytes(len(body), is_last=True)
            case ResponseTrailers() | StreamClosed():
                return self._answer.work_bytes(0, is_last=True)
        return 0

    @property
    def held_bytes(self) -> int:
        """How much of the answer was taken in and waits to be read."""
        return 0 if self.is_over else self._answer.held_bytes

    def let_go(self) -> None:
        """Forget the answer that waits to be read: it passes on, and is charged as reserved."""
        self._answer.let_go()

    def receive(self, event: Event) -> list[Action]:
        """Advance by one event; after calling it you must do every action, in order.

        Raises `ProtocolViolation` for what no order of messages allows here, and changes nothing then.
        """
        transition = TRANSITIONS.get((self.state, type(event)))
        if transition is None:
            raise ProtocolViolation(f"{type(event).__name__} in state {self.state}")
        handler, targets = transition
        actions: list[Action] = getattr(self, f"_{handler}")(event)
        if len(targets) == 1:
            self.state = targets[0]
        return actions

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
        )
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

    def _on_late_reservation(self, event: ChargesReserved) -> list[Action]:
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
            return [Record(decision=decision)]
        return [*self._forward(decision), Report(decision=decision)]

    def _on_recorded(self, event: Recorded) -> list[Action]:
        decision = self._allowed_decision
        return [*self._forward(decision), Report(decision=decision, is_on_record=True)]

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
        return [replies.refuse(decision, reply), Report(decision=decision)]

    # --- replies that Envoy makes

    def _on_reply_before_request(self, event: ResponseHeaders) -> list[Action]:
        """A filter before ours answered, such as one that verifies callers; we never saw the request."""
        if not event.is_local_reply:
            raise ProtocolViolation("an answer to a request that we were not shown")
        return self._on_pass_with_id(event)

    def _on_reply_before_body(self, event: ResponseHeaders) -> list[Action]:
        """Nothing was forwarded yet, so this answer is Envoy's; a 413 gets the caller's dialect."""
        if not event.is_local_reply and event.status < 400:  # noqa: PLR2004  errors
            # A success that nobody was asked for: the request went around us.
            raise ProtocolViolation("an answer before the request was inspected")
        if event.status != replies.CONTENT_TOO_LARGE:
            return self._on_pass_with_id(event)
        return self._deny(self._evaluation.refuse(self._too_large()), event.at_ns)

    def _too_large(self) -> RequestRefused:
        limit = self._policies.defaults.max_body_bytes
        return RequestRefused(
            status=replies.CONTENT_TOO_LARGE,
            code="body_too_large",
            message=f"The request body is larger than {limit} bytes, the most this gateway accepts.",
        )

    def _on_reply_before_verdict(self, event: ResponseHeaders) -> list[Action]:
        return self._on_pass_with_id(event)

    def _on_pass_with_id(self, event: ResponseHeaders) -> list[Action]:
        return [replies.pass_with_id(self._decision_id)]

    def _on_trailers_early(self, event: RequestTrailers) -> list[Action]:
        """Answers keep the order of the messages: the body's comes first."""
        self._owes_trailers = True
        return []

    def _on_pass(self, event: Event) -> list[Action]:
        return [Continue(phase=type(event))]

    def _on_nothing(self, event: Event) -> list[Action]:
        return []

    # --- the answer

    def _on_response_headers(self, event: ResponseHeaders) -> list[Action]:
        self.state = State.ANSWERING
        answer = self._answer = Answer(event)
        defaults = self._policies.defaults
        answer.read_through(
            self._request,
            self._format,
            native=self._settings.native_usage,
            strips=defaults.usage_chunk == "strip",
        )
        reply = replies.response_headers(
            self._allowed_decision,
            self._format,
            now_s=event.at_ns / 1e9,
            with_limits=defaults.response_headers,
            reads_body=answer.reads_body,
            changes_body=answer.changes_body,
        )
        return [reply, *(self._end(event.at_ns) if event.end_of_stream else [])]

    def _on_response_body(self, event: ResponseBody) -> list[Action]:
        answer = self._answer
        changed = answer.passed_on(event.body, is_last=event.end_of_stream)
        if not event.end_of_stream:
            chunk = ChunkToRead(at_ns=event.at_ns, body=event.body)
            return [Continue(phase=ResponseBody, body=changed), Defer(event=chunk)]
        # The end is read before it is answered: its answer carries the usage for Envoy's access log.
        answer.read(event.body)
        answer.finish()
        ending = self._end(event.at_ns)
        metadata = replies.usage_metadata(answer.seen().usage, _cost(ending))
        return [Continue(phase=ResponseBody, body=changed, metadata=metadata), *ending]

    def _on_chunk_to_read(self, event: ChunkToRead) -> list[Action]:
        self._answer.read(event.body)
        return []

    def _on_response_trailers(self, event: ResponseTrailers) -> list[Action]:
        self._answer.finish(event)
        ending = self._end(event.at_ns)
        metadata = replies.usage_metadata(self._answer.seen().usage, _cost(ending))
        return [Continue(phase=ResponseTrailers, metadata=metadata), *ending]

    def _on_exchange_over(self, event: StreamClosed) -> list[Action]:
        # A client that knows the length may hang up at the last byte, before Envoy tells us of the end.
        self._answer.finish()
        return self._end(event.at_ns)

    # --- the settlement

    @property
    def _allowed_decision(self) -> Decision:
        if self.decision is None or self.decision.enforced_effect is not Effect.ALLOW:
            raise ProtocolViolation("an answer to a request that was not allowed")
        return self.decision

    def _end(self, at_ns: int) -> list[Action]:
        """Settle now, or first count the text of an answer that did not say what it cost."""
        text = self._answer.text_to_count()
        if not text or self._request is None:
            return self._settle(at_ns, observed_output_tokens=None)
        self.state = State.COUNTING
        model = self._answer.seen().model or self._allowed_decision.upstream_model
        return [CountOutput(provider=self._request.provider, model=model, text=text)]

    def _on_output_counted(self, event: OutputCounted) -> list[Action]:
        return self._settle(event.at_ns, observed_output_tokens=event.tokens)

    def _settle(self, at_ns: int, *, observed_output_tokens: int | None) -> list[Action]:
        self.state = State.SETTLED
        decision = self._allowed_decision
        settlement = self._answer.settlement(
            decision,
            at_ns,
            observed_output_tokens=observed_output_tokens,
            usual_reasoning_tokens=self._usual_reasoning_tokens,
            prices=self._prices,
        )
        self._settled = settlement
        return [self._settle_as(settlement), Report(decision=decision, settlement=settlement)]


def _cost(ending: list[Action]) -> Cost | None:
    """What it cost, where that is known already: the text of some answers is yet to be counted."""
    return next((action.settlement.cost for action in ending if isinstance(action, Settle)), None)
