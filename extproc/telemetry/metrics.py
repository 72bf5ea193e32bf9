"""Counters and histograms, for Prometheus on the admin port.

Floor 3. Attributes are bounded: policies, reasons and providers, never a caller, a model name that
a client made up, or a decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from extproc.decision import Decision, Effect, Settlement
from extproc.model import Basis

_HISTOGRAMS = {
    "ai_policy.decision.duration": (
        *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025),
        *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
    ),
    # Tight about 1, where an estimate is right.
    "ai_policy.tokens.estimate_ratio": (
        *(0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0),
        *(1.01, 1.05, 1.1, 1.25, 1.5, 2.0, 4.0),
    ),
    # OpenTelemetry's boundaries.
    "gen_ai.client.operation.duration": (
        *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
        *(1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    ),
}

Labels = tuple[tuple[str, str], ...]


class Tally:
    """A counter that requests only add to in a dictionary; the SDK reads it when it collects.

    A synchronous SDK counter costs several microseconds an addition, eight of them a request.
    """

    def __init__(
        self, meter: Meter, name: str, unit: str, description: str, *, starts_at_zero: bool = False
    ) -> None:
        self._counts: dict[Labels, int] = {(): 0} if starts_at_zero else {}
        meter.create_observable_counter(name, [self._observe], unit, description)

    def add(self, amount: int, **labels: str) -> None:
        """Add; the same labels always come in the same order from one place."""
        key = tuple(labels.items())
        self._counts[key] = self._counts.get(key, 0) + amount

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(count, dict(labels)) for labels, count in list(self._counts.items())]


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that somebody else keeps; what only rises is a counter."""

    name: str
    unit: str
    description: str
    read: Callable[[], int]
    only_rises: bool = False


class Metrics:
    """Every instrument of the sidecar, with a registry of its own."""

    def __init__(self, *, version: str) -> None:
        self._registry = CollectorRegistry()
        reader = PrometheusMetricReader(registry=self._registry, scope_info_enabled=False)
        views = [
            View(instrument_name=name, aggregation=ExplicitBucketHistogramAggregation(buckets))
            for name, buckets in _HISTOGRAMS.items()
        ]
        resource = Resource.create({"service.name": "extproc", "service.version": version})
        self._provider = MeterProvider(metric_readers=[reader], resource=resource, views=views)
        meter = self._meter = self._provider.get_meter("extproc", version)
        self.decisions = Tally(meter, "ai_policy.decisions", "{decision}", "Verdicts given.")
        self.denials = Tally(meter, "ai_policy.denials", "{decision}", "Denials by policy.")
        self.divergence = Tally(
            meter, "ai_policy.policy.divergence", "{decision}", "Shadow policies that would have denied."
        )
        self.tokens = Tally(meter, "ai_policy.tokens", "{token}", "Tokens settled.")
        # A double counts nano-dollars exactly up to nine million dollars.
        self.cost = Tally(meter, "ai_policy.cost", "nano_usd", "Nano-dollars settled, at the prices known.")
        self.unpriced = Tally(
            meter, "ai_policy.unpriced", "{settlement}", "Settlements of models without a known price."
        )
        self.settlements = Tally(meter, "ai_policy.settlements", "{settlement}", "Settlements by basis.")
        self.abandoned = Tally(
            meter, "ai_policy.abandoned", "{request}", "Clients that left before their verdict."
        )
        self.health_checks = Tally(
            meter, "ai_policy.health_checks", "{check}", "Health checks by gRPC that were answered."
        )
        self.failures = Tally(meter, "ai_policy.failures", "{failure}", "What we failed to do.")
        # A counter that was never touched is not exported, and an alert on it would never fire.
        self.reload_failures = Tally(
            meter,
            "ai_policy.reload_failures",
            "{reload}",
            "Policy folders that did not load.",
            starts_at_zero=True,
        )
        self.streams_active = meter.create_up_down_counter(
            "ai_policy.streams.active", "{stream}", "Open now."
        )
        self.decision_duration = meter.create_histogram(
            "ai_policy.decision.duration", "s", "From the first header to the verdict."
        )
        self.operation_duration = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", "From the verdict to the end of the answer."
        )
        self.estimate_ratio = meter.create_histogram(
            "ai_policy.tokens.estimate_ratio", "1", "Input as estimated, by what the provider reported."
        )

    def watch(self, *figures: Figure) -> None:
        """Export these too, as they are when somebody collects."""
        for figure in figures:
            create = (
                self._meter.create_observable_counter
                if figure.only_rises
                else self._meter.create_observable_gauge
            )
            create(figure.name, [partial(_observed, figure)], figure.unit, figure.description)

    def decided(self, decision: Decision) -> None:
        """Count a verdict."""
        effect, enforced, reason = (
            decision.effect.value,
            decision.enforced_effect.value,
            decision.reason.value,
        )
        self.decisions.add(1, effect=effect, enforced_effect=enforced, reason_code=reason)
        duration_s = (decision.decided_at_ns - decision.started_at_ns) / 1e9
        self.decision_duration.record(duration_s, {"enforced_effect": enforced})
        if decision.enforced_effect is Effect.DENY:
            self.denials.add(1, policy=str(decision.determining or "none"), reason_code=reason)
        for finding in decision.spoken:
            if finding.would_deny:
                self.divergence.add(1, policy=str(finding.policy))
        if decision.error_type:
            self.failures.add(1, error_type=decision.error_type)

    def settled(self, decision: Decision, settlement: Settlement) -> None:
        """Count what an allowed request came to."""
        request, usage = decision.request, settlement.usage
        provider, basis = request.provider if request else "unknown", settlement.basis.value
        self.settlements.add(1, basis=basis, provider=provider)
        for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if count:
                self.tokens.add(count, basis=basis, kind=kind, provider=provider)
        if settlement.cost is None:
            self.unpriced.add(1, basis=basis, provider=provider)
        elif settlement.cost.nano_usd:
            self.cost.add(settlement.cost.nano_usd, basis=basis, provider=provider)
        if request is None or request.operation == "control":
            return
        duration_s = max(0, settlement.ended_at_ns - decision.decided_at_ns) / 1e9
        attributes = {"gen_ai.operation.name": request.operation, "gen_ai.provider.name": request.provider}
        if settlement.error_type:
            # The provider's own words are for the span; here only what is bounded.
            is_status = settlement.status >= 400  # noqa: PLR2004  errors
            attributes["error.type"] = str(settlement.status) if is_status else "_OTHER"
        self.operation_duration.record(duration_s, attributes)
        reported = usage.input_tokens
        # What a provider adds from its own memory was never there to be estimated.
        if settlement.basis is Basis.PROVIDER and reported and not request.has_state:
            estimate = decision.tokens
            labels = {"provider": provider, "estimator": estimate.estimator}
            self.estimate_ratio.record(estimate.input / reported, labels)

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Stop collecting."""
        self._provider.shutdown()


def _observed(figure: Figure, _: CallbackOptions) -> Iterable[Observation]:
    return [Observation(figure.read())]
