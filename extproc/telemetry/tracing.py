"""One decision span and one span of the provider's work, in the trace that Envoy's ingress span is in.

Floor 3. Spans are made after the fact, so that the sampler sees the verdict: denied, shadow-denied
and failed decisions are always kept, and an unsampled allow costs no span.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes

from extproc.decision import Decision, Settlement
from extproc.model import Trace
from extproc.telemetry.attributes import decision_attributes, settlement_attributes

_PROPAGATOR = TraceContextTextMapPropagator()
_CLIENT_CONTEXT = otel_context.create_key("ai_policy-client-context")
_EXPORT_VARIABLES = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """Where a decision hangs in the trace, and the client's own context where that is another one."""

    context: Context
    link: SpanContext | None = None

    @property
    def trace(self) -> Trace:
        """The trace and the span that the decision hangs under."""
        parent = trace.get_current_span(self.context).get_span_context()
        if not parent.is_valid:
            return Trace()
        return Trace(trace.format_trace_id(parent.trace_id), trace.format_span_id(parent.span_id))


def parent_of(metadata: Mapping[str, str], headers: Mapping[str, str]) -> Parent:
    """Find the parent: Envoy's span from the gRPC metadata first, the client's header only without it.

    The header is the client's word: it may name a trace, it may not force that trace to be exported.
    """
    client = trace.get_current_span(_extract(headers)).get_span_context()
    ours = _extract(metadata)
    envoy = trace.get_current_span(ours).get_span_context()
    if envoy.is_valid:
        mismatched = client.is_valid and client.trace_id != envoy.trace_id
        return Parent(context=ours, link=client if mismatched else None)
    return Parent(context=otel_context.set_value(_CLIENT_CONTEXT, value=True, context=_extract(headers)))


def _extract(carrier: Mapping[str, str]) -> Context:
    # An empty context, never the current one: nothing else of this process belongs in the trace.
    return _PROPAGATOR.extract(carrier, context=Context())


class DecisionSampler(Sampler):
    """Keeps every decision that somebody will ask about; leaves the rest to the user's sampler."""

    def __init__(self, allowed: Sampler) -> None:
        self._allowed = allowed

    def should_sample(  # noqa: PLR0917  the SDK's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide with the verdict at hand: spans here are made with all their attributes."""
        verdict = attributes or {}
        must_keep = (
            verdict.get("ai_policy.decision.enforced_effect") == "deny"
            or verdict.get("ai_policy.decision.would_deny")
            or "error.type" in verdict
        )
        is_clients = parent_context is not None and bool(
            otel_context.get_value(_CLIENT_CONTEXT, parent_context)
        )
        sampler = ALWAYS_ON if must_keep else self._allowed
        trusted_parent = None if is_clients else parent_context
        return sampler.should_sample(trusted_parent, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """Name the sampler in the SDK's own words."""
        return f"DecisionSampler{{{self._allowed.get_description()}}}"


class Tracing:
    """The tracer; exports by OTLP where the standard variables name an endpoint, else does nothing."""

    def __init__(self, *, instance_id: str, version: str) -> None:
        self._provider: TracerProvider | None = None
        disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        if disabled or not any(os.environ.get(name) for name in _EXPORT_VARIABLES):
            return
        resource = Resource.create(
            {"service.name": os.environ.get("OTEL_SERVICE_NAME", "extproc"), "service.version": version}
            | {"service.instance.id": instance_id}
        )
        self._provider = provider = TracerProvider(resource=resource)
        provider.sampler = DecisionSampler(provider.sampler)
        # A dead collector fills the queue and drops; half a second keeps traces fresh in the UI.
        provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(), max_queue_size=8192, schedule_delay_millis=500)
        )
        self._tracer = provider.get_tracer("extproc", version)

    def decided(self, decision: Decision, parent: Parent) -> None:
        """Record the verdict; the span ends before the provider starts."""
        if self._provider is None:
            return
        attributes = decision_attributes(decision)
        if parent.link is not None:
            attributes["ai_policy.client_trace"] = "mismatched"
        span = self._tracer.start_span(
            "ai_policy.decide",
            context=parent.context,
            kind=SpanKind.INTERNAL,
            attributes=attributes,
            links=[Link(parent.link)] if parent.link is not None else None,
            start_time=decision.started_at_ns,
        )
        # A denial is an answer, not an error: the status stays unset. Only our own failure is one.
        if decision.error_type:
            span.set_status(StatusCode.ERROR)
        span.end(end_time=decision.decided_at_ns)

    def settled(self, decision: Decision, settlement: Settlement, parent: Parent) -> None:
        """Record the provider's work and what it came to."""
        request = decision.request
        if self._provider is None or request is None or request.operation == "control":
            return
        span = self._tracer.start_span(
            f"{request.operation} {request.model}"[:100],
            context=parent.context,
            kind=SpanKind.CLIENT,
            attributes=settlement_attributes(decision, settlement),
            start_time=decision.decided_at_ns,
        )
        if settlement.error_type:
            span.set_status(StatusCode.ERROR)
        span.end(end_time=settlement.ended_at_ns)

    def close(self) -> None:
        """Export what is queued, within the exporter's own time limit."""
        if self._provider is not None:
            self._provider.shutdown()
