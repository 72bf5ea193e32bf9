"""Records as the decisions and settlements that they were made of; for whoever asks the ledger. Pure.

What a record leaves out comes back empty: headers, whether a body came, and whatever was shed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from extproc.decision import (
    CalendarWindow,
    Charge,
    ChargeOutcome,
    Cost,
    Decision,
    Denial,
    Effect,
    Finding,
    Leases,
    LimitState,
    Mode,
    Outcome,
    PolicyRef,
    Reason,
    Settlement,
    SlidingWindow,
    TokenBucket,
    Unit,
    Window,
)
from extproc.ledger.base import Change
from extproc.ledger.records import USAGE_FIELDS
from extproc.model import AIRequest, Basis, Identity, RequestHead, Source, TokenEstimate, Trace, Usage
from extproc.pb.ai_policy.v1 import facts_pb2
from extproc.pb.ai_policy.v1 import records_pb2 as pb


def decision(record: pb.DecisionRecord) -> Decision:
    """The decision that was recorded."""
    known = facts_pb2.Facts.FromString(record.facts)
    verdict = record.verdict
    outcomes = tuple(_outcome(charge) for charge in record.charges if charge.HasField("outcome"))
    uncounted = tuple(_charge(charge) for charge in record.charges if not charge.HasField("outcome"))
    return Decision(
        id=record.decision_id,
        effect=Effect(verdict.effect),
        enforced_effect=Effect(verdict.enforced_effect),
        reason=Reason(verdict.reason),
        determining=_ref(verdict.determining) if verdict.determining else None,
        findings=tuple(_finding(finding) for finding in record.findings),
        revision=record.revision,
        started_at_ns=record.started_at_ns,
        decided_at_ns=record.decided_at_ns,
        head=_head(known),
        trace=Trace(record.trace_id, record.span_id),
        identity=_identity(known.identity),
        request=_request(known.request, record) if known.request.api else None,
        target_model=record.target_model,
        tokens=TokenEstimate(
            input=known.tokens.input,
            input_upper_bound=known.tokens.input_upper_bound,
            max_output=known.tokens.max_output,
            exact=known.tokens.exact,
            estimator=record.estimator,
            uncalibrated=record.uncalibrated_input_tokens,
        ),
        outcomes=outcomes,
        uncounted=uncounted,
        denial=_denial(record) if verdict.status else None,
        error_type=record.error_type,
        attributes=dict(record.attributes),
    )


def settlement(record: pb.UsageRecord) -> Settlement:
    """What was recorded of a decision's end."""
    priced = record.HasField("nano_usd")
    return Settlement(
        decision_id=record.decision_id,
        basis=Basis(record.basis),
        usage=usage(record),
        amounts={amount.counter: amount.amount for amount in record.amounts},
        cost=Cost(record.nano_usd, record.price_revision) if priced else None,
        status=record.status,
        model=record.model,
        response_id=record.response_id,
        finish_reasons=tuple(record.finish_reasons),
        error_type=record.error_type,
        first_byte_at_ns=record.first_byte_at_ns,
        ended_at_ns=record.ended_at_ns,
    )


def usage(record: pb.UsageRecord) -> Usage:
    """What was recorded of the tokens; what is not there was not known."""
    known = record.usage
    return Usage(**{name: getattr(known, name) for name in USAGE_FIELDS if known.HasField(name)})


def change(record: pb.ChangeRecord) -> Change:
    """What was recorded of a change."""
    details = {
        name: detail.text if detail.HasField("text") else detail.number
        for name, detail in record.details.items()
    }
    return Change(
        change_id=record.change_id,
        at_ns=record.at_ns,
        action=record.action,
        subject=record.subject,
        key=tuple(record.key),
        details=details,
    )


def _ref(policy: str) -> PolicyRef:
    kind, _, name = policy.partition("/")
    return PolicyRef(kind, name)


def _head(known: facts_pb2.Facts) -> RequestHead:
    request, source = known.request, known.source
    return RequestHead(
        method=request.method,
        host=request.host,
        path=request.path,
        source=Source(address=source.address, principal=source.principal, route=source.route),
    )


def _identity(known: facts_pb2.IdentityFacts) -> Identity:
    return Identity(
        id=known.id,
        user=known.user,
        team=known.team,
        org=known.org,
        groups=tuple(known.groups),
        labels=dict(known.labels),
        claims=dict(known.claims),
        key=known.key,
        authenticated=known.authenticated,
    )


def _request(known: facts_pb2.RequestFacts, record: pb.DecisionRecord) -> AIRequest:
    declared = record.declared_max_output_tokens if record.HasField("declared_max_output_tokens") else None
    return AIRequest(
        api=known.api,
        provider=known.provider,
        operation=known.operation,
        model=known.model,
        models=tuple(known.models),
        stream=known.stream,
        choices=known.choices,
        message_count=known.message_count,
        tools=tuple(known.tools),
        modalities=tuple(known.modalities),
        end_user=known.end_user,
        temperature=known.temperature if known.HasField("temperature") else None,
        has_state=known.has_state,
        max_output_tokens=declared,
        body_bytes=known.body_bytes,
    )


def _denial(record: pb.DecisionRecord) -> Denial:
    verdict = record.verdict
    return Denial(
        status=verdict.status,
        reason=Reason(verdict.denial_reason),
        message=verdict.message,
        decision_id=record.decision_id,
        policy=_ref(verdict.determining) if verdict.determining else None,
        retry_after_ms=verdict.retry_after_ms if verdict.HasField("retry_after_ms") else None,
        limit=_limit(verdict.limit) if verdict.HasField("limit") else None,
        at_ns=verdict.denied_at_ns,
    )


def _finding(record: pb.FindingRecord) -> Finding:
    return Finding(
        policy=_ref(record.policy),
        outcome=Outcome(record.outcome),
        mode=Mode(record.mode),
        effect=Effect(record.effect) if record.effect else None,
        reason=Reason(record.reason) if record.reason else None,
        message=record.message,
        limit=_limit(record.limit) if record.HasField("limit") else None,
        determining=record.determining,
        evaluated_model=record.evaluated_model,
        warning=record.warning,
    )


def _limit(record: pb.LimitRecord) -> LimitState:
    return LimitState(
        unit=Unit(record.unit),
        limit=record.limit,
        window_s=record.window_s,
        used=record.used,
        requested=record.requested,
        reserved=record.reserved,
        remaining=record.remaining,
        reset_ms=record.reset_ms,
        wait_ms=record.wait_ms if record.HasField("wait_ms") else None,
        key=tuple(record.key),
    )


def _charge(record: pb.ChargeRecord) -> Charge:
    named = record.WhichOneof("window") or "leases"
    return Charge(
        policy=_ref(record.policy),
        counter=record.counter,
        unit=Unit(record.unit),
        amount=record.amount,
        minimum=record.minimum,
        window=_WINDOWS[named](getattr(record, named)),
        enforced=record.enforced,
        must_count=record.must_count,
        key=tuple(record.key),
    )


def _outcome(record: pb.ChargeRecord) -> ChargeOutcome:
    found = record.outcome
    return ChargeOutcome(
        charge=_charge(record),
        granted=found.granted,
        reserved=found.reserved,
        used=found.used,
        remaining=found.remaining,
        wait_us=found.wait_us if found.HasField("wait_us") else None,
        reset_us=found.reset_us,
        limit=found.limit,
        unavailable=found.unavailable,
    )


def _edges(record: pb.CalendarWindowRecord) -> tuple[int, int, int, int]:
    before, this, following, after = record.edges_us
    return before, this, following, after


_WINDOWS: Mapping[str, Callable[[Any], Window]] = MappingProxyType(
    {
        "token_bucket": lambda window: TokenBucket(window.amount, window.per_us, window.burst),
        "sliding_window": lambda window: SlidingWindow(window.size, window.per_us),
        "calendar_window": lambda window: CalendarWindow(window.size, window.period, _edges(window)),
        "leases": lambda window: Leases(window.size, window.ttl_us),
    }
)
