"""One decision span and one span of the provider's work, in the trace that Envoy's ingress span is in.

Floor 3. Spans are made after the fact, when the verdict is known: denied, shadow-denied and failed
decisions are always kept, the user's sampler is asked about the rest, and nothing is built for what is
not kept. Ids follow from the decision's, so that records and logs name spans they never saw.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.trace.sampling import Decision as Sampled
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from extproc.decision import Decision, Effect, Settlement
from extproc.formats.base import CONTROL
from extproc.model import Trace
from extproc.telemetry import otlp, outlets
from extproc.telemetry.attributes import (
    MAX_FINDINGS,
    MAX_LENGTH,
    decision_attributes,
    finding_attributes,
    settlement_attributes,
)
from extproc.telemetry.events import Events
from extproc.telemetry.inference import wants_latest
from extproc.telemetry.instruments import Figure
from extproc.telemetry.outlets import SpanOutlet
from extproc.telemetry.parents import Parent, Remote, span_id_of, trace_id_of

# Switches off the events on spans of denials: OpenTelemetry means to replace them by log records, which
# Jaeger does not show.
_SPAN_EVENTS: Final = "EXTPROC_SPAN_EVENTS"
_LIMITS: Final = SpanLimits(
    max_span_attributes=40,
    max_events=MAX_FINDINGS,
    max_links=2,
    max_event_attributes=4,
    max_attribute_length=MAX_LENGTH,
    max_span_attribute_length=MAX_LENGTH,
)
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_DECIDE: Final = "ai_policy.decide"
_LONGEST_NAME: Final = 100


class Tracing:
    """The tracer; exports by OTLP where the standard variables ask for it, else does nothing.

    Raises `SettingsInvalid` for variables that make no sense.
    """

    def __init__(self, *, instance_id: str, version: str) -> None:
        with otlp.understood():
            self._begin(instance_id=instance_id, version=version)

    def _begin(self, *, instance_id: str, version: str) -> None:
        self._events = Events.wanted(instance_id=instance_id, version=version)
        self._outlet: SpanOutlet | None = None
        exporter = otlp.span_exporter()
        if exporter is None:
            return
        self._outlet = outlet = SpanOutlet(exporter)
        self._ids = _GivenIds()
        provider = TracerProvider(
            resource=otlp.resource(version=version, instance_id=instance_id),
            id_generator=self._ids,
            span_limits=_LIMITS,
            shutdown_on_exit=False,
        )
        # The user's sampler is asked before anything is made; what is made is kept.
        self._sampler = provider.sampler
        provider.sampler = ALWAYS_ON
        provider.add_span_processor(outlet.processor)
        self._tracer = provider.get_tracer("extproc", version)
        self._latest = wants_latest()
        self._has_events = os.environ.get(_SPAN_EVENTS, "denials").strip().lower() != "none"

    def trace_of(self, decision_id: str, parent: Parent) -> Trace:
        """The trace to put on record; where Envoy has none, the decision's own if it would be exported."""
        if parent.above is None and self._outlet is not None:
            return Trace(trace_id_of(decision_id))
        return parent.trace

    def decided(self, decision: Decision, parent: Parent) -> None:
        """Record the verdict; the span ends before the provider starts."""
        is_kept = self._is_kept(decision, parent)
        if is_kept:
            self._decide_span(decision, parent)
        if self._events is not None:
            self._events.decided(decision, _own_context(decision, parent, is_kept=is_kept))

    def settled(self, decision: Decision, settlement: Settlement, parent: Parent) -> None:
        """Record the provider's work and what it came to; a failure is kept whatever the sampler says."""
        request = decision.request
        if request is None or request.operation == CONTROL:
            return
        is_kept = self._is_kept(decision, parent)
        if is_kept or (settlement.error_type and self._outlet is not None):
            if not is_kept:
                # Nobody knew yet that it would be asked about.
                self._decide_span(decision, parent)
            self._work_span(decision, settlement, parent)
        if self._events is not None:
            self._events.settled(decision, settlement, _own_context(decision, parent, is_kept=is_kept))

    def figures(self) -> Iterator[Figure]:
        """How much was exported, dropped and is pending, of each signal that is exported."""
        if self._outlet is not None:
            yield from self._outlet.figures()
        if self._events is not None:
            yield from self._events.outlet.figures()

    def close(self) -> None:
        """Export what is pending, for a few seconds at most."""
        events = () if self._events is None else (self._events.outlet,)
        outlets.close((*events, *(() if self._outlet is None else (self._outlet,))))

    def _is_kept(self, decision: Decision, parent: Parent) -> bool:
        if self._outlet is None:
            return False
        if decision.enforced_effect is Effect.DENY or decision.error_type or decision.would_deny:
            return True
        above = parent.above
        trace_id = trace_id_of(decision.id) if above is None else above.trace_id
        # A client may name a trace; whether that is sampled is not the client's to say.
        context = _FLAGS[above.is_sampled] if above is not None and parent.is_envoys else Context()
        sampled = self._sampler.should_sample(context, int(trace_id, 16), _DECIDE)
        return sampled.decision is Sampled.RECORD_AND_SAMPLE

    def _decide_span(self, decision: Decision, parent: Parent) -> None:
        if self._outlet is None or not self._outlet.has_room():
            return
        attributes = decision_attributes(decision)
        if parent.client is not None:
            attributes["ai_policy.client_trace"] = "mismatched"
        own = _own_context(decision, parent, is_kept=True)
        self._ids.take(own.trace_id, own.span_id)
        span = self._tracer.start_span(
            _DECIDE,
            context=_under(parent.above),
            kind=SpanKind.INTERNAL,
            attributes=attributes,
            links=None if parent.client is None else [Link(parent.client.context)],
            start_time=decision.started_at_ns,
        )
        if self._has_events and (decision.enforced_effect is Effect.DENY or decision.would_deny):
            _add_findings(span, decision)
        # A denial is an answer, not an error: the status stays unset. Only our own failure is one.
        if decision.error_type:
            span.set_status(StatusCode.ERROR)
        self._outlet.take()
        span.end(end_time=decision.decided_at_ns)

    def _work_span(self, decision: Decision, settlement: Settlement, parent: Parent) -> None:
        request = decision.request
        if self._outlet is None or request is None or not self._outlet.has_room():
            return
        own = _own_context(decision, parent, is_kept=True)
        self._ids.take(own.trace_id)
        span = self._tracer.start_span(
            f"{request.operation} {decision.upstream_model}"[:_LONGEST_NAME],
            # Without anything above, the decision is the root and this hangs under it.
            context=_under(parent.above) if parent.above else _within(own),
            kind=SpanKind.CLIENT,
            attributes=settlement_attributes(decision, settlement, latest=self._latest),
            links=[Link(own)],
            start_time=decision.decided_at_ns,
        )
        if settlement.error_type:
            span.set_status(StatusCode.ERROR)
        self._outlet.take()
        span.end(end_time=settlement.ended_at_ns)


class _GivenIds(IdGenerator):
    """Ids that are known before the SDK asks for them, else random ones."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()
        self._trace_id = self._span_id = 0

    def take(self, trace_id: int, span_id: int = 0) -> None:
        """Give these to the next span; 0 is a random span."""
        self._trace_id, self._span_id = trace_id, span_id

    def generate_span_id(self) -> int:
        """The next span's id."""
        return self._span_id or self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        """The next span's trace, if it has no parent."""
        return self._trace_id


def _own_context(decision: Decision, parent: Parent, *, is_kept: bool) -> SpanContext:
    """The decision's own span, whether it is made or not."""
    above = parent.above
    return SpanContext(
        trace_id=int(trace_id_of(decision.id) if above is None else above.trace_id, 16),
        span_id=int(span_id_of(decision.id), 16),
        is_remote=False,
        trace_flags=_SAMPLED if is_kept else TraceFlags(TraceFlags.DEFAULT),
    )


def _under(above: Remote | None) -> Context:
    # An empty context, never the current one: nothing else of this process belongs in the trace.
    return Context() if above is None else _within(above.context)


def _within(context: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(context), Context())


# What samplers look at in a parent is its flag; one of each saves making one a request.
_FLAGS: Final[Mapping[bool, Context]] = MappingProxyType(
    {
        bool(flags): _within(Remote("1" * 32, "1" * 16, flags).context)
        for flags in (TraceFlags.DEFAULT, TraceFlags.SAMPLED)
    }
)


def _add_findings(span: Span, decision: Decision) -> None:
    """What each policy said, in order, on the timeline that Jaeger shows."""
    for finding in decision.spoken[:MAX_FINDINGS]:
        span.add_event("ai_policy.finding", finding_attributes(finding), timestamp=decision.decided_at_ns)
