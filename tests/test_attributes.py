"""Attributes of spans: names that are pinned, values that Jaeger can search, and what is never in them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from extproc.decision import Cost, Effect, Finding, Outcome, PolicyRef, Unit
from extproc.model import AIRequest, Basis, Identity, Usage
from extproc.telemetry.attributes import (
    MAX_FINDINGS,
    MAX_LENGTH,
    decision_attributes,
    finding_attributes,
    settlement_attributes,
)
from extproc.telemetry.inference import wants_latest
from tests.verdicts import LIMIT, decision, denied, settlement, shadow_denied


def test_a_denial_names_its_policy_its_limit_and_the_wait_in_short_scalars() -> None:
    attributes = decision_attributes(denied())

    assert attributes["ai_policy.decision.determining_policy"] == "RateLimit/team-tokens"
    assert attributes["ai_policy.limit.used"] == 900
    assert attributes["ai_policy.limit.retry_after_ms"] == 6_000
    assert attributes["http.response.status_code"] == 429
    assert attributes["ai_policy.findings"] == (
        "RateLimit/team-tokens matched deny used 900 of 1000 tokens, requested 200 determining",
    )


def test_a_shadow_finding_says_what_it_would_have_done() -> None:
    attributes = decision_attributes(shadow_denied(effect=Effect.DENY))

    assert attributes["ai_policy.decision.would_deny_policy"] == "AccessRule/new"
    assert attributes["ai_policy.decision.would_deny"] is True
    assert attributes["ai_policy.findings"] == ("AccessRule/new matched would_deny",)


def test_no_value_is_longer_than_jaeger_searches_and_no_query_is_in_any() -> None:
    long = AIRequest(api="openai_chat", provider="openai", operation="chat", model="m" * 1000)

    attributes = decision_attributes(decision(request=long))

    assert all(len(value) <= MAX_LENGTH for value in attributes.values() if isinstance(value, str))
    assert "secret" not in repr(attributes)


def test_estimates_never_pose_as_reported_usage() -> None:
    reported = settlement_attributes(decision(), settlement())
    estimated = settlement_attributes(decision(), settlement(basis=Basis.TOKENIZER))

    assert reported["gen_ai.usage.output_tokens"] == 3
    assert "gen_ai.usage.output_tokens" not in estimated
    assert estimated["ai_policy.usage.output_tokens"] == 3


def test_usage_that_is_zero_is_reported_as_zero() -> None:
    usage = Usage(input_tokens=0, output_tokens=0)

    assert settlement_attributes(decision(), settlement(usage=usage))["gen_ai.usage.input_tokens"] == 0


def test_a_cost_names_the_prices_it_was_computed_from() -> None:
    attributes = settlement_attributes(decision(), settlement(cost=Cost(nano_usd=1950, revision="prices 7")))

    assert attributes["ai_policy.cost.nano_usd"] == 1950
    assert attributes["ai_policy.cost.revision"] == "prices 7"


def test_an_unknown_cost_is_absent_and_not_zero() -> None:
    assert not [name for name in settlement_attributes(decision(), settlement()) if "cost" in name]


def test_parts_of_the_usage_are_there_only_where_they_were_reported() -> None:
    usage = Usage(input_tokens=9, output_tokens=3, audio_input_tokens=4, cache_creation_1h_input_tokens=0)

    attributes = settlement_attributes(decision(), settlement(usage=usage))

    parts = {name: value for name, value in attributes.items() if name.startswith("ai_policy.usage.")}
    assert parts == {
        "ai_policy.usage.basis": "provider",
        "ai_policy.usage.audio_input_tokens": 4,
        "ai_policy.usage.cache_creation_1h_input_tokens": 0,
    }


def finding(name: str, **changes: Any) -> Finding:
    values: dict[str, Any] = {"outcome": Outcome.MATCHED, "effect": Effect.ALLOW}
    return Finding(policy=PolicyRef("RateLimit", name), **(values | changes))


def everything() -> tuple[dict[str, Any], dict[str, Any]]:
    """The attributes of a decision and a settlement of which nothing is left out."""
    request = AIRequest(
        api="openai_chat",
        provider="openai",
        operation="chat",
        model="m" * 1000,
        temperature=0.5,
        choices=2,
        max_output_tokens=9,
    )
    findings = (
        *denied().findings,
        *shadow_denied().findings,
        *(finding(f"{number} {'n' * 300}", limit=LIMIT) for number in range(40)),
    )
    decided = denied(
        findings=findings,
        request=request,
        target_model="t" * 1000,
        error_type="policy_error",
        identity=Identity(id="i" * 1000, team="t"),
        enforced_effect=Effect.ALLOW,
    )
    decided = replace(decided, head=replace(decided.head, source=replace(decided.head.source, route="r")))
    usage = Usage(**{field.name: 1 for field in fields(Usage)})
    settled = settlement(
        usage=usage,
        cost=Cost(nano_usd=1, revision="r"),
        model="a",
        response_id="r" * 1000,
        finish_reasons=("stop",),
        error_type="overloaded",
        first_byte_at_ns=3_000_000,
    )
    return decision_attributes(decided), settlement_attributes(decided, settled)


def test_a_policy_that_matched_twice_is_named_once_and_those_that_did_not_are_not() -> None:
    findings = (finding("a"), finding("b"), finding("a"), finding("c", outcome=Outcome.NOT_MATCHED))

    attributes = decision_attributes(decision(findings=findings))

    assert attributes["ai_policy.decision.policies_matched"] == ("RateLimit/a", "RateLimit/b")
    assert attributes["ai_policy.decision.policies_evaluated"] == 4


def test_a_span_stays_small_whatever_is_decided() -> None:
    for attributes in everything():
        values = [
            text
            for value in attributes.values()
            for text in (value if isinstance(value, tuple) else (value,))
        ]
        assert len(attributes) <= 40
        assert all(len(value) <= MAX_LENGTH for value in values if isinstance(value, str))
        assert all(len(value) <= MAX_FINDINGS for value in attributes.values() if isinstance(value, tuple))


def test_every_name_is_pinned() -> None:
    """A name that changes breaks somebody's dashboard; a new one belongs into this list."""
    decided, settled = everything()

    request = {
        "ai_policy.classification.api",
        "ai_policy.tokens.estimated_input",
        "ai_policy.tokens.estimator",
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.choice.count",
        "gen_ai.request.max_tokens",
        "gen_ai.request.model",
        "gen_ai.request.stream",
        "gen_ai.request.temperature",
        "http.request.body.size",
    }
    assert decided.keys() == request | {
        "ai_policy.decision.determining_policy",
        "ai_policy.decision.effect",
        "ai_policy.decision.enforced_effect",
        "ai_policy.decision.id",
        "ai_policy.decision.policies_evaluated",
        "ai_policy.decision.policies_matched",
        "ai_policy.decision.policy_revision",
        "ai_policy.decision.reason_code",
        "ai_policy.decision.target_model",
        "ai_policy.decision.would_deny",
        "ai_policy.decision.would_deny_policy",
        "ai_policy.findings",
        "ai_policy.identity.id",
        "ai_policy.identity.team",
        "ai_policy.limit.limit",
        "ai_policy.limit.remaining",
        "ai_policy.limit.requested",
        "ai_policy.limit.retry_after_ms",
        "ai_policy.limit.unit",
        "ai_policy.limit.used",
        "ai_policy.source.route",
        "error.type",
        "http.response.status_code",
    }
    assert settled.keys() == request | {
        "ai_policy.cost.nano_usd",
        "ai_policy.cost.revision",
        "ai_policy.decision.id",
        "ai_policy.decision.would_deny",
        "ai_policy.usage.audio_input_tokens",
        "ai_policy.usage.audio_output_tokens",
        "ai_policy.usage.basis",
        "ai_policy.usage.cache_creation_1h_input_tokens",
        "ai_policy.usage.image_input_tokens",
        "ai_policy.usage.image_output_tokens",
        "ai_policy.usage.input_audio_ms",
        "ai_policy.usage.tool_input_tokens",
        "error.type",
        "gen_ai.response.finish_reasons",
        "gen_ai.response.id",
        "gen_ai.response.model",
        "gen_ai.response.time_to_first_chunk",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.reasoning.output_tokens",
        "http.response.status_code",
    }


def test_opentelemetry_knows_every_genai_name_of_ours() -> None:
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    ours = {name for attributes in everything() for name in attributes if name.startswith("gen_ai.")}

    assert ours - known - {"gen_ai.request.stream", "gen_ai.response.time_to_first_chunk"} == set()


@pytest.mark.parametrize(
    ("said", "is_latest"),
    [
        ("", False),
        ("http, gen_ai_latest_experimental", True),
        ("gen_ai_latest", False),
        ("http/dup", False),
    ],
)
def test_newer_names_are_for_who_asks_and_words_of_others_are_passed_over(
    *, said: str, is_latest: bool
) -> None:
    latest = wants_latest({"OTEL_SEMCONV_STABILITY_OPT_IN": said})
    usage = Usage(cache_creation_input_tokens=7)
    attributes = settlement_attributes(decision(), settlement(usage=usage), latest=latest)

    assert latest is is_latest
    assert attributes.get("gen_ai.usage.cache_write.input_tokens") == (7 if is_latest else None)
    assert attributes.get("gen_ai.usage.cache_creation.input_tokens") == (None if is_latest else 7)


def test_a_substitute_is_what_the_provider_was_asked_for() -> None:
    substituted = decision(target_model="gpt-4o-nano")

    assert decision_attributes(substituted)["gen_ai.request.model"] == "gpt-4o-mini"
    assert decision_attributes(substituted)["ai_policy.decision.target_model"] == "gpt-4o-nano"
    assert settlement_attributes(substituted, settlement())["gen_ai.request.model"] == "gpt-4o-nano"


def test_money_is_dollars_on_spans() -> None:
    limit = replace(LIMIT, unit=Unit.COST_USD, limit=2_500_000_000, used=1_000_000_000, requested=4)
    attributes = finding_attributes(finding("spend", limit=limit))

    assert attributes["ai_policy.arithmetic"] == "used $1.00 of $2.50, requested $0.000000004"


def test_a_findings_event_says_who_what_and_the_arithmetic() -> None:
    (limited,), (shadow,) = denied().findings, shadow_denied().findings

    assert finding_attributes(limited) == {
        "ai_policy.policy": "RateLimit/team-tokens",
        "ai_policy.outcome": "matched",
        "ai_policy.effect": "deny",
        "ai_policy.arithmetic": "used 900 of 1000 tokens, requested 200",
    }
    assert finding_attributes(shadow)["ai_policy.effect"] == "would_deny"
