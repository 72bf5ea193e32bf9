"""One HTTP request from its first header to its settlement, as a machine without I/O.

Floor 2. `Session.receive(event)` returns what must be done, in order; the gRPC loop, the tests and
the policy tools do it. No await, no clock, no gRPC type. Which event may come when is in
`transitions`; what an answer comes to is `answer`'s; what is said to Envoy is in `replies`; the verdict
is the engine's.
"""

from __future__ import annotations

from extproc.decision import Cost
from extproc.errors import ProtocolViolation
from extproc.session import replies
from extproc.session.actions import Action, AwaitBytes, Continue, CountOutput, Defer, Report, Settle
from extproc.session.admission import Admission
from extproc.session.answer import Answer
from extproc.session.events import (
    BytesSent,
    ChunkToRead,
    Event,
    OutputCounted,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    StreamClosed,
)
from extproc.session.transitions import TRANSITIONS, State


class Session(Admission):
    """The state machine of one exchange; make one a request, feed it every event, do every action."""

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
        # Envoy's access log tells of answers whose output nobody wrote here.
        is_known = self.state is not State.AWAITING_BYTES
        metadata = replies.usage_metadata(self._answer.seen().usage if is_known else None, _cost(ending))
        return [Continue(phase=ResponseTrailers, metadata=metadata), *ending]

    def _on_exchange_over(self, event: StreamClosed) -> list[Action]:
        # A client that knows the length may hang up at the last byte, before Envoy tells us of the end.
        self._answer.finish()
        return self._end(event.at_ns)

    # --- the settlement

    def _end(self, at_ns: int) -> list[Action]:
        """Settle now, or first find out how long an answer was that did not say what it cost."""
        form = self._answer.form_unread(self._request, self._allowed_decision.upstream_model)
        if form is not None:
            self.state = State.AWAITING_BYTES
            self._ended_at_ns = at_ns
            return [AwaitBytes(decision_id=self._decision_id, answer=form)]
        text = self._answer.text_to_count()
        if not text or self._request is None:
            return self._settle(at_ns)
        self.state = State.COUNTING
        model = self._answer.seen().model or self._allowed_decision.upstream_model
        return [CountOutput(provider=self._request.provider, model=model, text=text)]

    def _on_output_counted(self, event: OutputCounted) -> list[Action]:
        return self._settle(event.at_ns, observed_output_tokens=event.tokens)

    def _on_bytes_sent(self, event: BytesSent) -> list[Action]:
        # It ended when its stream did, however long its length took to be known.
        return self._settle(self._ended_at_ns, output_tokens_by_size=event.output_tokens)

    def _settle(
        self,
        at_ns: int,
        *,
        observed_output_tokens: int | None = None,
        output_tokens_by_size: int | None = None,
    ) -> list[Action]:
        self.state = State.SETTLED
        decision = self._allowed_decision
        settlement = self._answer.settlement(
            decision,
            at_ns,
            observed_output_tokens=observed_output_tokens,
            output_tokens_by_size=output_tokens_by_size,
            usual_reasoning_tokens=self._usual_reasoning_tokens,
            prices=self._prices,
        )
        self._settled = settlement
        return [self._settle_as(settlement), Report(decision=decision, settlement=settlement)]


def _cost(ending: list[Action]) -> Cost | None:
    """What it cost, where that is known already: the text of some answers is yet to be counted."""
    return next((action.settlement.cost for action in ending if isinstance(action, Settle)), None)
