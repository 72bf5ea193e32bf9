"""Names of attributes, pinned: `ai_policy.*` is ours, `gen_ai.*` is OpenTelemetry's v1.41.0.

Floor 3. GenAI conventions are still unstable; a dependency bump must not rename what dashboards
hold on to, so the names are spelled here and not imported. Newer names are asked for with
`OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from opentelemetry.util.types import AttributeValue

from extproc.decision import Decision, Finding, LimitState, Outcome, Settlement, Unit
from extproc.policy.denials import number
from extproc.policy.money import NANO_USD

# Jaeger's search ignores longer values, and a span is not the record.
MAX_LENGTH = 256
MAX_FINDINGS = 20

# Parts of the usage that OpenTelemetry has no word for, by their names in `Usage`.
_PARTS = (
    "cache_creation_1h_input_tokens",
    "audio_input_tokens",
    "image_input_tokens",
    "tool_input_tokens",
    "audio_output_tokens",
    "image_output_tokens",
    "input_audio_ms",
)

# Renamed after v1.41.0 (semantic-conventions-genai, pull request 440), and released nowhere yet.
_RENAMED: Final[Mapping[str, str]] = MappingProxyType(
    {"gen_ai.usage.cache_creation.input_tokens": "gen_ai.usage.cache_write.input_tokens"}
)

Attributes = dict[str, AttributeValue]


def decision_attributes(decision: Decision) -> Attributes:
    """What a person needs to see of a verdict in Jaeger: short scalars, and one line a finding.

    Of more findings than a span has lines, those are left out that say nothing.
    """
    determining = next((f for f in decision.spoken if f.determining), None)
    is_whole = len(decision.findings) <= MAX_FINDINGS
    findings = decision.findings if is_whole else decision.spoken[:MAX_FINDINGS]
    attributes: Attributes = {
        "ai_policy.decision.id": decision.id,
        "ai_policy.decision.effect": decision.effect,
        "ai_policy.decision.enforced_effect": decision.enforced_effect,
        "ai_policy.decision.reason_code": decision.reason,
        "ai_policy.decision.policy_revision": decision.revision,
        "ai_policy.decision.policies_evaluated": len(decision.findings),
        "ai_policy.decision.would_deny": decision.would_deny,
        "ai_policy.decision.policies_matched": _matched(decision),
        "ai_policy.findings": tuple(finding_line(f) for f in findings),
    }
    optional: dict[str, AttributeValue | None] = {
        "ai_policy.decision.determining_policy": str(decision.determining or "") or None,
        # Of several the first: what Jaeger can search for is one value.
        "ai_policy.decision.would_deny_policy": _first_shadow(decision),
        "ai_policy.decision.target_model": decision.target_model or None,
        "ai_policy.identity.id": decision.identity.id or None,
        "ai_policy.identity.team": decision.identity.team or None,
        "ai_policy.source.route": decision.head.source.route or None,
        "error.type": decision.error_type or None,
        "http.response.status_code": decision.denial.status if decision.denial else None,
    }
    attributes |= {name: value for name, value in optional.items() if value is not None}
    limit = determining.limit if determining else None
    return _cut(attributes | _limit_attributes(limit) | _request_attributes(decision))


def finding_attributes(finding: Finding) -> Attributes:
    """What one policy said, for the event of it on the span's timeline; few, as each costs an encoding."""
    attributes: Attributes = {"ai_policy.policy": str(finding.policy), "ai_policy.outcome": finding.outcome}
    if finding.effect is not None:
        attributes["ai_policy.effect"] = _effect(finding)
    if finding.limit is not None:
        attributes["ai_policy.arithmetic"] = _arithmetic(finding.limit)
    return _cut(attributes)


def settlement_attributes(decision: Decision, settlement: Settlement, *, latest: bool = False) -> Attributes:
    """What the answer came to, on the span of the provider's work; `latest` names are not pinned."""
    usage = settlement.usage
    reported = settlement.basis in ("provider", "partial")
    attributes: Attributes = {
        "ai_policy.decision.id": decision.id,
        "ai_policy.decision.would_deny": decision.would_deny,
        "ai_policy.usage.basis": settlement.basis,
    }
    optional: dict[str, AttributeValue | None] = {
        "gen_ai.response.model": settlement.model or None,
        "gen_ai.response.id": settlement.response_id or None,
        "gen_ai.response.finish_reasons": tuple(
            reason[:MAX_LENGTH] for reason in settlement.finish_reasons[:MAX_FINDINGS]
        )
        or None,
        "http.response.status_code": settlement.status or None,
        "error.type": settlement.error_type or None,
        # Conventions forbid estimates in gen_ai.usage.*.
        f"{'gen_ai' if reported else 'ai_policy'}.usage.input_tokens": usage.input_tokens,
        f"{'gen_ai' if reported else 'ai_policy'}.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read_input_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_creation_input_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_output_tokens,
    }
    optional |= {f"ai_policy.usage.{part}": getattr(usage, part) for part in _PARTS}
    if settlement.cost is not None:
        attributes["ai_policy.cost.nano_usd"] = settlement.cost.nano_usd
        attributes["ai_policy.cost.revision"] = settlement.cost.revision
    if settlement.first_byte_at_ns:
        seconds = (settlement.first_byte_at_ns - decision.decided_at_ns) / 1e9
        optional["gen_ai.response.time_to_first_chunk"] = seconds
    attributes |= {name: value for name, value in optional.items() if value is not None}
    if decision.target_model:
        # What the provider was asked for; the decision's own span says what the client asked for.
        attributes["gen_ai.request.model"] = decision.target_model
    whole = _cut(_request_attributes(decision) | attributes)
    return {_RENAMED.get(name, name): value for name, value in whole.items()} if latest else whole


def finding_line(finding: Finding) -> str:
    """One policy's finding in one searchable line."""
    parts = [str(finding.policy), finding.outcome.value]
    if finding.effect is not None:
        parts.append(_effect(finding))
    if finding.limit is not None:
        parts.append(_arithmetic(finding.limit))
    if finding.determining:
        parts.append("determining")
    return " ".join(parts)[:MAX_LENGTH]


def _effect(finding: Finding) -> str:
    return f"would_{finding.effect}" if finding.would_deny else str(finding.effect)


def _arithmetic(limit: LimitState) -> str:
    used, size, requested = (number(limit.unit, each) for each in (limit.used, limit.limit, limit.requested))
    unit = "" if limit.unit is Unit.COST_USD else f" {limit.unit}"
    return f"used {used} of {size}{unit}, requested {requested}"


def _first_shadow(decision: Decision) -> str | None:
    if not decision.would_deny:
        return None
    return next(str(f.policy) for f in decision.spoken if f.would_deny)


def _matched(decision: Decision) -> tuple[str, ...]:
    """The policies that matched, each once."""
    matched = (str(f.policy)[:MAX_LENGTH] for f in decision.spoken if f.outcome is Outcome.MATCHED)
    return tuple(dict.fromkeys(matched))[:MAX_FINDINGS]


def _limit_attributes(limit: LimitState | None) -> Attributes:
    if limit is None:
        return {}
    attributes: Attributes = {
        "ai_policy.limit.unit": limit.unit,
        "ai_policy.limit.limit": _shown(limit.unit, limit.limit),
        "ai_policy.limit.used": _shown(limit.unit, limit.used),
        "ai_policy.limit.requested": _shown(limit.unit, limit.requested),
        "ai_policy.limit.remaining": _shown(limit.unit, limit.remaining),
    }
    if limit.wait_ms is not None:
        attributes["ai_policy.limit.retry_after_ms"] = limit.wait_ms
    return attributes


def _shown(unit: Unit, amount: int) -> int | float:
    """Whole units, but money in dollars: a span is for looking at, the record has the nano-dollars."""
    return amount / NANO_USD if unit is Unit.COST_USD else amount


def _request_attributes(decision: Decision) -> Attributes:
    request = decision.request
    if request is None:
        return {}
    attributes: Attributes = {
        "gen_ai.operation.name": request.operation,
        "gen_ai.provider.name": request.provider,
        "gen_ai.request.model": request.model,
        "gen_ai.request.stream": request.stream,
        "ai_policy.classification.api": request.api,
        "ai_policy.tokens.estimated_input": decision.tokens.input,
        "ai_policy.tokens.estimator": decision.tokens.estimator,
        "http.request.body.size": request.body_bytes,
    }
    if request.max_output_tokens is not None:
        attributes["gen_ai.request.max_tokens"] = request.max_output_tokens
    if request.temperature is not None:
        attributes["gen_ai.request.temperature"] = request.temperature
    if request.choices != 1:
        attributes["gen_ai.request.choice.count"] = request.choices
    return attributes


def _cut(attributes: Attributes) -> Attributes:
    return {
        name: value[:MAX_LENGTH] if isinstance(value, str) else value for name, value in attributes.items()
    }
