"""Records there and back, how small they stay, and what is never in them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.decision import (
    CalendarWindow,
    Charge,
    ChargeOutcome,
    Decision,
    Denial,
    Effect,
    Finding,
    Leases,
    LimitState,
    PolicyRef,
    Reason,
    Settlement,
    SlidingWindow,
    TokenBucket,
)
from extproc.ledger import restored
from extproc.ledger.base import Change
from extproc.ledger.records import change_record, decision_record, usage_record
from extproc.ledger.shedding import LARGEST_RECORD_BYTES, fitting
from extproc.ledger.storable import column, storable
from extproc.model import AIRequest, RequestHead, Source, TokenEstimate, Usage
from extproc.pb.ai_policy.v1 import facts_pb2
from extproc.pb.ai_policy.v1 import records_pb2 as pb
from tests.ledger.samples import COUNTER, TRACE, allowed, denied, outcome, reset, settlement

TEXTS = st.text(max_size=8)
NAMES = st.from_regex(r"[a-z][a-z-]{0,6}", fullmatch=True)
AMOUNTS = st.integers(-(2**63) + 1, 2**63 - 1)
TIMES = st.integers(0, 2**60)
REFS = st.builds(PolicyRef, st.sampled_from(["RateLimit", "UsageCap"]), NAMES)
KEYS = st.lists(TEXTS, max_size=2).map(tuple)
MAPS = st.dictionaries(TEXTS, TEXTS, max_size=2)
LIMITS = st.builds(
    LimitState,
    limit=AMOUNTS, used=AMOUNTS, requested=AMOUNTS, reserved=AMOUNTS, remaining=AMOUNTS, reset_ms=AMOUNTS,
    wait_ms=st.none() | AMOUNTS, window_s=st.floats(0, 1e9), key=KEYS,
)  # fmt: skip
EDGES = st.tuples(TIMES, TIMES, TIMES, TIMES)
WINDOWS = st.one_of(
    st.builds(TokenBucket, AMOUNTS, AMOUNTS, AMOUNTS),
    st.builds(SlidingWindow, AMOUNTS, AMOUNTS),
    st.builds(CalendarWindow, AMOUNTS, NAMES, EDGES),
    st.builds(Leases, AMOUNTS, AMOUNTS),
)
CHARGES = st.builds(
    Charge,
    policy=REFS, counter=TEXTS, amount=AMOUNTS, minimum=AMOUNTS, window=WINDOWS, key=KEYS,
    enforced=..., must_count=...,
)  # fmt: skip
OUTCOMES = st.builds(
    ChargeOutcome,
    charge=CHARGES, reserved=AMOUNTS, used=AMOUNTS, remaining=AMOUNTS, wait_us=st.none() | AMOUNTS,
    reset_us=AMOUNTS, limit=AMOUNTS, unavailable=...,
)  # fmt: skip
FINDINGS = st.builds(
    Finding,
    policy=REFS, mode=..., effect=..., reason=..., message=TEXTS, limit=st.none() | LIMITS, determining=...,
    evaluated_model=TEXTS, warning=TEXTS,
)  # fmt: skip
REQUESTS = st.builds(
    AIRequest,
    api=NAMES, provider=TEXTS, operation=TEXTS, model=TEXTS, models=KEYS, stream=..., choices=AMOUNTS,
    message_count=AMOUNTS, tools=KEYS, modalities=KEYS, end_user=TEXTS,
    temperature=st.none() | st.floats(allow_nan=False), has_state=...,
    max_output_tokens=st.none() | AMOUNTS, body_bytes=AMOUNTS,
)  # fmt: skip


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    name = draw(NAMES)
    denials = st.builds(
        Denial,
        status=st.integers(1, 599), message=TEXTS, decision_id=st.just(name),
        retry_after_ms=st.none() | AMOUNTS, limit=st.none() | LIMITS, at_ns=TIMES,
    )  # fmt: skip
    made: Decision = draw(
        st.builds(
            Decision,
            id=st.just(name), determining=st.none() | REFS, revision=NAMES, started_at_ns=TIMES,
            decided_at_ns=TIMES, error_type=TEXTS, target_model=TEXTS, attributes=MAPS,
            findings=st.lists(FINDINGS, max_size=2).map(tuple),
            head=st.builds(
                RequestHead, method=NAMES, host=TEXTS, path=NAMES,
                source=st.builds(Source, address=TEXTS, principal=TEXTS, route=TEXTS),
            ),
            identity=..., request=st.none() | REQUESTS,
            tokens=st.builds(
                TokenEstimate, input=AMOUNTS, input_upper_bound=AMOUNTS, max_output=AMOUNTS, exact=...,
                estimator=TEXTS, uncalibrated=AMOUNTS,
            ),
            outcomes=st.lists(OUTCOMES, max_size=2).map(tuple),
            uncounted=st.lists(CHARGES, max_size=2).map(tuple),
            denial=st.none() | denials,
        )
    )  # fmt: skip
    if made.denial is None:
        return made
    # A denial names the policy that decided.
    return replace(made, denial=replace(made.denial, policy=made.determining))


@settings(max_examples=60)
@given(decisions())
def test_a_decision_comes_back_as_it_was(decision: Decision) -> None:
    record = pb.DecisionRecord.FromString(decision_record(decision, "here").SerializeToString())

    assert restored.decision(record) == decision
    assert record.verdict.would_deny == decision.would_deny


USAGES = st.builds(Usage, **dict.fromkeys(Usage.__dataclass_fields__, st.none() | st.just(0) | AMOUNTS))


@given(
    st.builds(
        Settlement,
        decision_id=NAMES, usage=USAGES, amounts=st.dictionaries(TEXTS, AMOUNTS, max_size=3),
        cost=st.none() | st.builds(lambda cost: cost, st.just(settlement().cost)),
        status=st.integers(0, 599), model=TEXTS, response_id=TEXTS, finish_reasons=KEYS, error_type=TEXTS,
        first_byte_at_ns=TIMES, ended_at_ns=TIMES,
    )
)  # fmt: skip
def test_a_settlement_comes_back_as_it_was(settled: Settlement) -> None:
    record = pb.UsageRecord.FromString(usage_record(settled, "here").SerializeToString())

    assert restored.settlement(record) == settled


def test_a_change_comes_back_as_it_was() -> None:
    record = pb.ChangeRecord.FromString(change_record(reset(), "here").SerializeToString())

    assert restored.change(record) == reset()


@settings(max_examples=30)
@given(decisions(), st.text(st.characters(), max_size=4), st.integers())
def test_whatever_a_client_writes_has_a_record(decision: Decision, text: str, number: int) -> None:
    request = AIRequest(api="a", provider=text, operation=text, model=text, max_output_tokens=number)
    head = replace(decision.head, headers={"traceparent": text})
    odd = replace(decision, request=request, target_model=text, head=head)

    record = decision_record(odd, "here")

    back = restored.decision(record).request
    assert back is not None
    assert back.model == storable(text)
    assert back.max_output_tokens == storable(number)


def test_the_record_names_the_trace_of_its_decision() -> None:
    record = decision_record(allowed(), "here")

    assert (record.trace_id, record.span_id) == (TRACE.trace_id, TRACE.span_id)


def test_headers_the_query_and_tokens_stay_out() -> None:
    head = RequestHead(
        method="POST",
        host="h",
        path="/v1/chat?key=cAnArY",
        headers={"x-anything": "cAnArY"},
        source=Source(jwt_payloads={"issuer": {"sub": "cAnArY"}}),
    )

    assert b"cAnArY" not in decision_record(allowed(head=head), "here").SerializeToString()


# --- how small records stay


def kept(record: Any) -> Any:
    """The record as it would be written."""
    written = type(record).FromString(fitting(record))
    assert written.ByteSize() <= LARGEST_RECORD_BYTES
    return written


def known(record: pb.DecisionRecord) -> facts_pb2.Facts:
    return facts_pb2.Facts.FromString(record.facts)


def request(**changes: Any) -> AIRequest:
    made = allowed().request
    assert made is not None
    return replace(made, **changes)


def test_a_record_that_fits_is_left_whole() -> None:
    record = decision_record(allowed(), "here")

    assert kept(record) == record
    assert not record.shed


MANY = tuple(f"name-{number:04}" for number in range(600))
UNASKED = tuple(
    replace(allowed().findings[0], policy=PolicyRef("AccessRule", name), outcome="not_matched")  # type: ignore[arg-type]  # as written
    for name in MANY
)


@pytest.mark.parametrize(
    ("decision", "shed"),
    [
        (allowed(request=request(models=MANY, tools=MANY[:300])), ["models"]),
        (allowed(request=request(models=MANY[:300], tools=MANY)), ["tools"]),
        (allowed(request=request(models=MANY * 2, tools=MANY * 3)), ["tools", "models"]),
        (allowed(findings=(*allowed().findings, *UNASKED)), ["findings_not_matched"]),
        (allowed(identity=replace(allowed().identity, groups=MANY * 2)), ["groups"]),
        (allowed(request=request(model="m" * 9000)), ["long_texts"]),
        (allowed(attributes=dict.fromkeys(MANY, "a value")), ["attributes"]),
    ],
)
def test_the_longest_lists_go_first_and_the_record_says_so(decision: Decision, shed: list[str]) -> None:
    record = kept(decision_record(decision, "here"))

    assert list(record.shed) == shed
    assert record.decision_id == decision.id
    assert record.charges[0].counter == COUNTER


def test_ids_and_the_verdict_survive_whatever_else_there_is() -> None:
    findings = tuple(
        replace(denied().findings[0], message="m" * 500, determining=number == 0) for number in range(200)
    )
    outcomes = tuple(outcome(f"counter-{number}") for number in range(500))
    denial = Denial(status=429, reason=Reason.RATE_LIMITED, message="M" * 9000, decision_id="d")
    decision = denied(
        findings=findings, outcomes=outcomes, denial=denial, request=request(model="m" * 9000, models=MANY)
    )

    record = kept(decision_record(decision, "here"))

    assert {"models", "long_texts", "findings_not_determining", "charges"} <= set(record.shed)
    assert (record.decision_id, record.instance, record.revision) == (decision.id, "here", "5f2a")
    assert (record.verdict.effect, record.verdict.reason) == ("deny", "rate_limited")
    assert record.verdict.message == "M" * 1023 + "…"
    assert [finding.determining for finding in record.findings] == [True]


@settings(max_examples=15)
@given(decisions(), st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 20_000))
def test_no_record_is_too_large(decision: Decision, models: int, findings: int, text: int) -> None:
    large = replace(
        decision,
        request=request(models=MANY * (models // 600), model="m" * text),
        findings=UNASKED[: findings // 5] * 5,
    )

    assert kept(decision_record(large, "here")).verdict.effect == decision.effect


def test_settlements_and_changes_stay_small_too() -> None:
    settled = settlement(amounts=dict.fromkeys(MANY, 1), model="m" * 9000, finish_reasons=MANY)
    changed = replace(reset(), details={**dict.fromkeys(MANY, 7), "why": "w" * 9000}, key=MANY * 2)

    usage, change = kept(usage_record(settled, "here")), kept(change_record(changed, "here"))

    assert list(usage.shed) == ["finish_reasons", "long_texts", "amounts"]
    assert (usage.usage.input_tokens, usage.nano_usd) == (90, 1200)
    assert list(change.shed) == ["long_texts", "details", "key"]
    assert change.subject == "RateLimit/team-tokens"


@given(st.text(st.characters(), max_size=300))
def test_a_column_is_text_of_either_database(text: str) -> None:
    made = column(text)

    made.encode("utf-8")
    assert "\0" not in made
    assert len(made) <= 200
    assert made == text or not text.isascii() or "\0" in text or len(text) > 200


def test_changes_may_have_no_details() -> None:
    change = Change(change_id="c", at_ns=1, action="policies_activated", subject="5f2a")

    assert restored.change(change_record(change, "here")) == replace(change, details={})


def test_the_effect_is_what_policy_said_and_what_was_done() -> None:
    record = decision_record(allowed(effect=Effect.DENY), "here")

    assert (record.verdict.effect, record.verdict.enforced_effect) == ("deny", "allow")
