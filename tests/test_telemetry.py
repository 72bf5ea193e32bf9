"""Spans, metrics and log records of a decision: names, bounds, and what is never in them."""

import json
import logging
import sys
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.sdk.trace.sampling import Decision as Sampled

from extproc.decision import (
    Cost,
    Decision,
    Denial,
    Effect,
    Finding,
    LimitState,
    Mode,
    Outcome,
    PolicyRef,
    Reason,
    Settlement,
    Unit,
)
from extproc.model import AIRequest, Basis, Identity, RequestHead, TokenEstimate, Usage
from extproc.telemetry import logs, parent_of
from extproc.telemetry.attributes import MAX_LENGTH, decision_attributes, settlement_attributes
from extproc.telemetry.logs import JSONFormatter
from extproc.telemetry.tracing import DecisionSampler

ENVOY = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
CLIENT = {"traceparent": "00-11111111111111111111111111111111-2222222222222222-01"}
LIMIT = LimitState(
    unit=Unit.TOKENS,
    limit=1000,
    window_s=60,
    used=900,
    requested=200,
    reserved=0,
    remaining=100,
    reset_ms=54_000,
    wait_ms=6_000,
)


def decision(**changes: Any) -> Decision:
    values: dict[str, Any] = {
        "id": "d-1",
        "effect": Effect.ALLOW,
        "enforced_effect": Effect.ALLOW,
        "reason": Reason.ALLOWED,
        "determining": None,
        "findings": (),
        "revision": "abc",
        "started_at_ns": 1_000_000,
        "decided_at_ns": 2_000_000,
        "head": RequestHead(method="POST", host="h", path="/v1/chat/completions?key=secret"),
        "identity": Identity(id="demo", team="demo"),
        "request": AIRequest(api="openai_chat", provider="openai", operation="chat", model="gpt-4o-mini"),
        "tokens": TokenEstimate(input=8, estimator="tiktoken:o200k_base"),
    }
    values |= changes
    return Decision(spoken=values["findings"], **values)


def denied() -> Decision:
    ref = PolicyRef("RateLimit", "team-tokens")
    finding = Finding(
        policy=ref,
        outcome=Outcome.MATCHED,
        effect=Effect.DENY,
        reason=Reason.RATE_LIMITED,
        limit=LIMIT,
        determining=True,
    )
    denial = Denial(status=429, reason=Reason.RATE_LIMITED, message="m", decision_id="d-1")
    return decision(
        effect=Effect.DENY,
        enforced_effect=Effect.DENY,
        reason=Reason.RATE_LIMITED,
        determining=ref,
        findings=(finding,),
        denial=denial,
    )


def settlement(**changes: Any) -> Settlement:
    values: dict[str, Any] = {
        "decision_id": "d-1",
        "basis": Basis.PROVIDER,
        "usage": Usage(input_tokens=8, output_tokens=3),
        "amounts": {},
        "status": 200,
        "ended_at_ns": 3_000_000,
    }
    return Settlement(**(values | changes))


# --- attributes


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
    finding = Finding(
        policy=PolicyRef("AccessRule", "new"), outcome=Outcome.MATCHED, mode=Mode.SHADOW, effect=Effect.DENY
    )

    attributes = decision_attributes(decision(effect=Effect.DENY, findings=(finding,)))

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


# --- parents and sampling


def test_envoys_span_is_the_parent_and_a_client_of_another_trace_is_linked() -> None:
    parent = parent_of(ENVOY, CLIENT)

    span = trace.get_current_span(parent.context).get_span_context()
    assert f"{span.span_id:016x}" == "b7ad6b7169203331"
    assert parent.link is not None
    assert f"{parent.link.trace_id:032x}" == "1" * 32


def test_a_client_in_the_same_trace_is_not_linked() -> None:
    assert parent_of(ENVOY, ENVOY).link is None


def sampled(sampler: DecisionSampler, context: Any, **attributes: Any) -> bool:
    result = sampler.should_sample(context, 1, "ai_policy.decide", attributes=attributes)
    return result.decision is Sampled.RECORD_AND_SAMPLE


@pytest.mark.parametrize(
    "attributes",
    [
        {"ai_policy.decision.enforced_effect": "deny"},
        {"ai_policy.decision.would_deny": True},
        {"error.type": "deadline_exceeded"},
    ],
)
def test_what_somebody_will_ask_about_is_always_kept(attributes: dict[str, Any]) -> None:
    never = DecisionSampler(ParentBased(ALWAYS_OFF))

    assert sampled(never, None, **attributes)
    assert not sampled(never, None, **{"ai_policy.decision.enforced_effect": "allow"})


def test_envoys_sampling_is_followed_and_the_clients_flag_is_not() -> None:
    sampler = DecisionSampler(ParentBased(TraceIdRatioBased(0.0)))

    assert sampled(sampler, parent_of(ENVOY, {}).context)
    assert not sampled(sampler, parent_of({}, CLIENT).context)


# --- logs


def test_denials_are_logged_and_allowed_requests_are_not(caplog: pytest.LogCaptureFixture) -> None:
    logs.decided(decision())
    logs.decided(denied())

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert vars(record)["policy"] == "RateLimit/team-tokens"


def test_what_passes_unread_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    logs.decided(decision(request=None, reason=Reason.UNCLASSIFIED))

    (record,) = caplog.records
    assert vars(record)["reason_code"] == "unclassified"


def test_a_log_line_is_json_and_an_exception_is_its_type_without_its_text() -> None:
    try:
        int("prompt-canary")
    except ValueError:
        record = logging.makeLogRecord(
            {"msg": "stream failed", "exc_info": sys.exc_info(), "decision_id": "d"}
        )

    line = JSONFormatter().format(record)

    fields = json.loads(line)
    assert fields["exception"] == "ValueError"
    assert fields["decision_id"] == "d"
    assert fields["stack"]
    assert "prompt-canary" not in line
