"""Counters and histograms of decisions and answers, for Prometheus and by OTLP.

Floor 3. Attributes are bounded: policies, reasons, providers, and models that somebody priced or
configured; never a caller, a model name that a client made up, or a decision.
"""

from __future__ import annotations

import platform
from functools import lru_cache
from typing import Final

from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from extproc.decision import Decision, Effect, PolicyRef, Reason, Settlement
from extproc.formats.base import CONTROL
from extproc.model import Basis
from extproc.telemetry import otlp
from extproc.telemetry.inference import Inference
from extproc.telemetry.instruments import Distribution, Figure, Labels, Level, Tally
from extproc.telemetry.names import Named, Names
from extproc.telemetry.readers import Points, PushingReader, ScrapedReader

# What our own decisions fail by, and what else can fail; an alert wants each at zero before its first time.
_OURS: Final = (
    Reason.POLICY_ERROR,
    Reason.STORE_UNAVAILABLE,
    Reason.AUDIT_UNAVAILABLE,
    Reason.DEADLINE_EXCEEDED,
)
FAILURES: Final = (
    *(reason.value for reason in _OURS),
    "answer_not_held",
    "internal",
    "leases_not_renewed",
    "settlement_failed",
    "state_not_written",
    "telemetry_failed",
    "unsupported_protocol_config",
)

_DECISION_S: Final = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025),
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
)
# Tight about 1, where an estimate is right.
_RATIOS: Final = (
    *(0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0),
    *(1.01, 1.05, 1.1, 1.25, 1.5, 2.0, 4.0),
)
# A last export; traces have theirs after it.
_CLOSE_MS: Final = 3_000

_AT_ZERO: Final[tuple[Labels, ...]] = ((),)


class Metrics:
    """Every instrument of the sidecar, with a registry of its own. Raises `SettingsInvalid`.

    `names` may be given later: until then every model is `other`.
    """

    def __init__(self, *, version: str, instance_id: str = "", names: Names | None = None) -> None:
        self.names = names or Names()
        self._registry = CollectorRegistry()
        self._distributions: list[Distribution] = []
        points = Points(self._distributions)
        readers: list[ScrapedReader | PushingReader] = [ScrapedReader(self._registry, points)]
        with otlp.understood():
            exporter = otlp.metric_exporter()
            if exporter is not None:
                readers.append(PushingReader(exporter, self._distributions, self._export_failed))
            resource = otlp.resource(version=version, instance_id=instance_id)
            self._provider = MeterProvider(metric_readers=readers, resource=resource)
        self._meter = self._provider.get_meter("extproc", version)
        self._count()
        self._measure()
        self.inference = Inference(self._meter)
        self._distributions += self.inference.distributions
        self.watch(_build_info(version))

    def _count(self) -> None:
        meter = self._meter
        allowed = (("effect", "allow"), ("enforced_effect", "allow"), ("reason_code", "allowed"))
        self.decisions = Tally(
            meter, "ai_policy.decisions", "{decision}", "Verdicts given.", begins=(allowed,)
        )
        self.denials = Tally(meter, "ai_policy.denials", "{decision}", "Denials by policy.")
        self.evaluations = Tally(
            meter, "ai_policy.policy.evaluations", "{evaluation}", "Policies that matched, or failed."
        )
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
        self.reservations = Level(
            meter, "ai_policy.reservations.open", "{reservation}", "Reservations not settled yet."
        )
        self.abandoned = Tally(
            meter,
            "ai_policy.abandoned",
            "{request}",
            "Clients that left before their verdict.",
            begins=_AT_ZERO,
        )
        self.health_checks = Tally(
            meter, "ai_policy.health_checks", "{check}", "Health checks by gRPC that were answered."
        )
        self.failures = Tally(
            meter,
            "ai_policy.failures",
            "{failure}",
            "What we failed to do.",
            begins=[(("error_type", name),) for name in FAILURES],
        )
        self.failed_open = Tally(
            meter,
            "ai_policy.failed_open",
            "{decision}",
            "Requests that passed although a policy could not be asked.",
            begins=[(("error_type", reason.value),) for reason in _OURS],
        )
        self.reload_failures = Tally(
            meter,
            "ai_policy.reload_failures",
            "{reload}",
            "Policy folders that did not load.",
            begins=_AT_ZERO,
        )
        self.exports_dropped = Tally(
            meter,
            "ai_policy.telemetry.metrics.dropped",
            "{export}",
            "Exports of metrics that the collector did not take.",
            begins=_AT_ZERO,
        )
        self.streams_active = Level(meter, "ai_policy.streams.active", "{stream}", "Open now.")

    def _measure(self) -> None:
        self.decision_duration = Distribution(
            name="ai_policy.decision.duration",
            unit="s",
            description="From the first header to the verdict.",
            labels=("enforced_effect",),
            bounds=_DECISION_S,
        )
        self.stage_duration = Distribution(
            name="ai_policy.stage.duration",
            unit="s",
            description="What one part of the work on a request took, waiting included.",
            labels=("stage",),
            bounds=_DECISION_S,
        )
        self.eventloop_lag = Distribution(
            name="ai_policy.eventloop.lag",
            unit="s",
            description="How much later than due the event loop came to what was due.",
            bounds=_DECISION_S,
        )
        self.estimate_ratio = Distribution(
            name="ai_policy.tokens.estimate_ratio",
            unit="1",
            description="Input as estimated, by what the provider reported.",
            labels=("provider", "model", "estimator"),
            bounds=_RATIOS,
        )
        self._distributions += [
            self.decision_duration,
            self.stage_duration,
            self.eventloop_lag,
            self.estimate_ratio,
        ]

    def watch(self, *figures: Figure) -> None:
        """Export these too, as they are when somebody collects."""
        for figure in figures:
            figure.register(self._meter)

    def decided(self, decision: Decision) -> None:
        """Count a verdict."""
        effect, enforced, reason = (
            decision.effect.value,
            decision.enforced_effect.value,
            decision.reason.value,
        )
        self.decisions.add(1, effect=effect, enforced_effect=enforced, reason_code=reason)
        self.decision_duration.record((decision.decided_at_ns - decision.started_at_ns) / 1e9, enforced)
        if decision.enforced_effect is Effect.DENY:
            self.denials.add(1, policy=str(decision.determining or "none"), reason_code=reason)
        for finding in decision.spoken:
            policy = _name(finding.policy)
            self.evaluations.add(1, policy=policy, outcome=finding.outcome.value, mode=finding.mode.value)
            if finding.would_deny:
                self.divergence.add(1, policy=policy)
        if decision.error_type:
            self.failures.add(1, error_type=decision.error_type)
            if decision.enforced_effect is Effect.ALLOW:
                self.failed_open.add(1, error_type=decision.error_type)
        if _holds(decision):
            self.reservations.add(1)

    def settled(self, decision: Decision, settlement: Settlement) -> None:
        """Count what an allowed request came to."""
        request, usage, basis = decision.request, settlement.usage, settlement.basis.value
        named = self.names.of(
            request.provider if request else "unknown", decision.upstream_model, settlement.model
        )
        provider, model = named.provider, named.priced
        if _holds(decision):
            self.reservations.add(-1)
        self.settlements.add(1, basis=basis, provider=provider, model=model)
        for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if count:
                self.tokens.add(count, basis=basis, kind=kind, provider=provider, model=model)
        if settlement.cost is None:
            self.unpriced.add(1, basis=basis, provider=provider)
        elif settlement.cost.nano_usd:
            self.cost.add(settlement.cost.nano_usd, basis=basis, provider=provider, model=model)
        if request is None or request.operation == CONTROL:
            return
        self.inference.settled(decision, settlement, request, named)
        self._compare(decision, settlement, named)

    def _compare(self, decision: Decision, settlement: Settlement, named: Named) -> None:
        """Hold the estimate against what was reported."""
        reported, request = settlement.usage.input_tokens, decision.request
        # What a provider adds from its own memory was never there to be estimated.
        if settlement.basis is Basis.PROVIDER and reported and request and not request.has_state:
            estimate = decision.tokens
            ratio = estimate.input / reported
            self.estimate_ratio.record(ratio, named.provider, named.priced, estimate.estimator)

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self._registry)

    def flush(self) -> None:
        """Export now where anybody wants it."""
        self._provider.force_flush()

    def close(self) -> None:
        """Export a last time where anybody wants it, for a moment; then stop collecting."""
        self._provider.shutdown(timeout_millis=_CLOSE_MS)

    def _export_failed(self) -> None:
        self.exports_dropped.add(1)


def _holds(decision: Decision) -> bool:
    """Whether anything was reserved that its settlement gives back."""
    return any(outcome.reserved > 0 for outcome in decision.outcomes)


@lru_cache(4096)
def _name(policy: PolicyRef) -> str:
    return str(policy)


def _build_info(version: str) -> Figure:
    described = {"version": version, "python_version": platform.python_version()}
    return Figure("ai_policy.build_info", "", "What runs here.", lambda: 1, labels=lambda: described)
