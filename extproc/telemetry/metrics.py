"""Counters and histograms, for Prometheus on the admin port.

Floor 3. Attributes are bounded: policies, reasons and providers, never a caller, a model name that
a client made up, or a decision.
"""

from __future__ import annotations

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from extproc.decision import Decision, Effect, Settlement

_DECISION_BUCKETS_S = (
    0.00005,
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    1,
)
# OpenTelemetry's boundaries for gen_ai.client.operation.duration.
_OPERATION_BUCKETS_S = (
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
    81.92,
)


class Metrics:
    """Every instrument of the sidecar, with a registry of its own."""

    def __init__(self, *, version: str) -> None:
        self._registry = CollectorRegistry()
        reader = PrometheusMetricReader(registry=self._registry, scope_info_enabled=False)
        self._provider = MeterProvider(
            metric_readers=[reader],
            resource=Resource.create({"service.name": "extproc", "service.version": version}),
            views=[
                View(
                    instrument_name="ai_policy.decision.duration",
                    aggregation=ExplicitBucketHistogramAggregation(_DECISION_BUCKETS_S),
                ),
                View(
                    instrument_name="gen_ai.client.operation.duration",
                    aggregation=ExplicitBucketHistogramAggregation(_OPERATION_BUCKETS_S),
                ),
            ],
        )
        meter = self._provider.get_meter("extproc", version)
        self.decisions = meter.create_counter("ai_policy.decisions", "{decision}", "Verdicts given.")
        self.denials = meter.create_counter("ai_policy.denials", "{decision}", "Denials by policy.")
        self.divergence = meter.create_counter(
            "ai_policy.policy.divergence", "{decision}", "Shadow policies that would have denied."
        )
        self.decision_duration = meter.create_histogram(
            "ai_policy.decision.duration", "s", "From the first header to the verdict."
        )
        self.operation_duration = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", "From the verdict to the end of the answer."
        )
        self.tokens = meter.create_counter("ai_policy.tokens", "{token}", "Tokens settled.")
        self.settlements = meter.create_counter(
            "ai_policy.settlements", "{settlement}", "Settlements by basis."
        )
        self.failures = meter.create_counter("ai_policy.failures", "{failure}", "What we failed to do.")
        self.streams_active = meter.create_up_down_counter(
            "ai_policy.streams.active", "{stream}", "Open now."
        )
        self.reload_failures = meter.create_counter(
            "ai_policy.reload_failures", "{reload}", "Policy folders that did not load."
        )
        # A counter that was never touched is not exported, and an alert on it would never fire.
        self.reload_failures.add(0)

    def decided(self, decision: Decision) -> None:
        """Count a verdict."""
        labels = {"effect": decision.effect.value, "enforced_effect": decision.enforced_effect.value}
        self.decisions.add(1, labels | {"reason_code": decision.reason.value})
        duration_s = (decision.decided_at_ns - decision.started_at_ns) / 1e9
        self.decision_duration.record(duration_s, {"enforced_effect": decision.enforced_effect.value})
        if decision.enforced_effect is Effect.DENY:
            policy = str(decision.determining or "none")
            self.denials.add(1, {"policy": policy, "reason_code": decision.reason.value})
        for finding in decision.findings:
            if finding.would_deny:
                self.divergence.add(1, {"policy": str(finding.policy)})
        if decision.error_type:
            self.failures.add(1, {"error_type": decision.error_type})

    def settled(self, decision: Decision, settlement: Settlement) -> None:
        """Count what an allowed request came to."""
        request = decision.request
        labels = {"basis": settlement.basis.value, "provider": request.provider if request else "unknown"}
        self.settlements.add(1, labels)
        usage = settlement.usage
        for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if count:
                self.tokens.add(count, labels | {"kind": kind})
        if request is None or request.operation == "control":
            return
        duration_s = max(0, settlement.ended_at_ns - decision.decided_at_ns) / 1e9
        attributes = {"gen_ai.operation.name": request.operation, "gen_ai.provider.name": request.provider}
        if settlement.error_type:
            attributes["error.type"] = settlement.error_type
        self.operation_duration.record(duration_s, attributes)

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Stop collecting."""
        self._provider.shutdown()
