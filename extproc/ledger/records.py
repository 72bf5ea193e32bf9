"""Decisions, settlements and changes as the records that are kept.

Floor 3, but pure. No prompt text is in what comes in here; headers and the query stay out, because
nobody knows what they hold. The way back is `restored`'s; how a record is kept small is `shedding`'s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from extproc.decision import (
    CalendarWindow,
    Charge,
    ChargeOutcome,
    Decision,
    Denial,
    Finding,
    Leases,
    LimitState,
    Settlement,
    SlidingWindow,
    TokenBucket,
)
from extproc.ledger.base import Change
from extproc.ledger.storable import storable
from extproc.model import Usage
from extproc.pb.ai_policy.v1 import facts_pb2
from extproc.pb.ai_policy.v1 import records_pb2 as pb
from extproc.policy import facts

# Above this many the silent ones would fill the record, and take a millisecond to write.
_ALL_FINDINGS: Final = 50
SILENT: Final = "findings_not_matched"

USAGE_FIELDS: Final = tuple(field.name for field in dataclasses.fields(Usage))


def decision_record(decision: Decision, instance: str) -> pb.DecisionRecord:
    """The record of a verdict as it is, however large."""
    # Protobuf refuses what a body may well say, half a surrogate pair or a number of a thousand digits.
    # Looking for it first would cost every request.
    try:
        return _decision(decision, instance)
    except ValueError:
        return _decision(storable(decision), instance)


def usage_record(settlement: Settlement, instance: str, kind: pb.UsageKind = pb.SETTLE) -> pb.UsageRecord:
    """The first record of what a decision came to."""
    try:
        return _settlement(settlement, instance, kind)
    except ValueError:
        return _settlement(storable(settlement), instance, kind)


def change_record(change: Change, instance: str) -> pb.ChangeRecord:
    """The record of what somebody changed."""
    try:
        return _change(change, instance)
    except ValueError:
        return _change(storable(change), instance)


def _decision(decision: Decision, instance: str) -> pb.DecisionRecord:
    tokens, request = decision.tokens, decision.request
    findings = decision.findings if len(decision.findings) <= _ALL_FINDINGS else decision.spoken
    return pb.DecisionRecord(
        decision_id=decision.id,
        instance=instance,
        revision=decision.revision,
        started_at_ns=decision.started_at_ns,
        decided_at_ns=decision.decided_at_ns,
        trace_id=decision.trace.trace_id,
        span_id=decision.trace.span_id,
        facts=_facts(decision).SerializeToString(),
        declared_max_output_tokens=request.max_output_tokens if request else None,
        estimator=tokens.estimator,
        uncalibrated_input_tokens=tokens.uncalibrated,
        target_model=decision.target_model,
        verdict=_verdict(decision),
        findings=[_finding(finding) for finding in findings],
        charges=[
            *(_charge(outcome.charge, outcome) for outcome in decision.outcomes),
            *(_charge(charge, None) for charge in decision.uncounted),
        ],
        error_type=decision.error_type,
        attributes=decision.attributes,
        # The revision says which policies were silent.
        shed=() if findings is decision.findings else (SILENT,),
    )


def _facts(decision: Decision) -> facts_pb2.Facts:
    head = dataclasses.replace(decision.head, headers={}) if decision.head.headers else decision.head
    return facts.build(head, decision.identity, decision.request, decision.tokens, decision.decided_at_ns)


def _verdict(decision: Decision) -> pb.Verdict:
    verdict = pb.Verdict(
        effect=decision.effect,
        enforced_effect=decision.enforced_effect,
        reason=decision.reason,
        determining=str(decision.determining or ""),
        would_deny=decision.would_deny,
    )
    if decision.denial is not None:
        verdict.MergeFrom(_denial(decision.denial))
    return verdict


def _denial(denial: Denial) -> pb.Verdict:
    return pb.Verdict(
        status=denial.status,
        denial_reason=denial.reason,
        message=denial.message,
        denied_at_ns=denial.at_ns,
        retry_after_ms=denial.retry_after_ms,
        limit=_limit(denial.limit) if denial.limit else None,
    )


def _finding(finding: Finding) -> pb.FindingRecord:
    return pb.FindingRecord(
        policy=str(finding.policy),
        outcome=finding.outcome,
        mode=finding.mode,
        effect=finding.effect,
        reason=finding.reason,
        message=finding.message,
        limit=_limit(finding.limit) if finding.limit else None,
        determining=finding.determining,
        evaluated_model=finding.evaluated_model,
        warning=finding.warning,
    )


def _limit(limit: LimitState) -> pb.LimitRecord:
    return pb.LimitRecord(
        unit=limit.unit,
        limit=limit.limit,
        window_s=limit.window_s,
        used=limit.used,
        requested=limit.requested,
        reserved=limit.reserved,
        remaining=limit.remaining,
        reset_ms=limit.reset_ms,
        wait_ms=limit.wait_ms,
        key=limit.key,
    )


def _charge(charge: Charge, outcome: ChargeOutcome | None) -> pb.ChargeRecord:
    record = pb.ChargeRecord(
        policy=str(charge.policy),
        counter=charge.counter,
        unit=charge.unit,
        amount=charge.amount,
        minimum=charge.minimum,
        enforced=charge.enforced,
        must_count=charge.must_count,
        key=charge.key,
        outcome=_outcome(outcome) if outcome else None,
    )
    _WINDOWS[type(charge.window)](record, charge.window)
    return record


def _outcome(outcome: ChargeOutcome) -> pb.OutcomeRecord:
    return pb.OutcomeRecord(
        granted=outcome.granted,
        reserved=outcome.reserved,
        used=outcome.used,
        remaining=outcome.remaining,
        wait_us=outcome.wait_us,
        reset_us=outcome.reset_us,
        limit=outcome.limit,
        unavailable=outcome.unavailable,
    )


def _token_bucket(record: pb.ChargeRecord, window: TokenBucket) -> None:
    into = record.token_bucket
    into.amount, into.per_us, into.burst = window.amount, window.per_us, window.burst


def _sliding_window(record: pb.ChargeRecord, window: SlidingWindow) -> None:
    into = record.sliding_window
    into.size, into.per_us = window.size, window.per_us


def _calendar_window(record: pb.ChargeRecord, window: CalendarWindow) -> None:
    into = record.calendar_window
    into.size, into.period = window.size, window.period
    into.edges_us.extend(window.edges_us)


def _leases(record: pb.ChargeRecord, window: Leases) -> None:
    into = record.leases
    into.size, into.ttl_us = window.size, window.ttl_us


_WINDOWS: Mapping[type, Callable[[pb.ChargeRecord, Any], None]] = MappingProxyType(
    {
        TokenBucket: _token_bucket,
        SlidingWindow: _sliding_window,
        CalendarWindow: _calendar_window,
        Leases: _leases,
    }
)


def _settlement(settlement: Settlement, instance: str, kind: pb.UsageKind) -> pb.UsageRecord:
    usage, cost = settlement.usage, settlement.cost
    tokens = {name: getattr(usage, name) for name in USAGE_FIELDS}
    return pb.UsageRecord(
        decision_id=settlement.decision_id,
        sequence=1,
        kind=kind,
        basis=settlement.basis,
        usage=pb.UsageTokens(**tokens),
        nano_usd=cost.nano_usd if cost else None,
        price_revision=cost.revision if cost else "",
        amounts=[
            pb.AmountRecord(counter=counter, amount=amount) for counter, amount in settlement.amounts.items()
        ],
        model=settlement.model,
        response_id=settlement.response_id,
        status=settlement.status,
        finish_reasons=settlement.finish_reasons,
        error_type=settlement.error_type,
        first_byte_at_ns=settlement.first_byte_at_ns,
        ended_at_ns=settlement.ended_at_ns,
        instance=instance,
        provisional=kind == pb.EXPIRE,
    )


def _change(change: Change, instance: str) -> pb.ChangeRecord:
    details = {
        name: pb.DetailRecord(text=value) if isinstance(value, str) else pb.DetailRecord(number=value)
        for name, value in (change.details or {}).items()
    }
    return pb.ChangeRecord(
        change_id=change.change_id,
        at_ns=change.at_ns,
        action=change.action,
        subject=change.subject,
        key=change.key,
        details=details,
        instance=instance,
    )
