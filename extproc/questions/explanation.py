"""The story of one decision as an explanation: why it was decided so, and where its tokens went.

Floor 3, but pure. The values are `explained`'s; what every policy said is `lines`', what would have let
the request pass `remedies`', what it came to `endings`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from types import MappingProxyType

from extproc.decision import Decision, Effect, Mode, Reason
from extproc.ledger.storable import storable
from extproc.questions import endings, known, lines, remedies
from extproc.questions.base import Story
from extproc.questions.explained import Alteration, Asked, Caller, Explanation, Verdict, Where

__all__ = ["Explanation", "explain"]

_DENIED: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.CREDENTIAL_MISSING: "the request showed no credential",
        Reason.CREDENTIAL_INVALID: "nobody knows the credential of the request",
        Reason.CREDENTIAL_EXPIRED: "the caller's key has expired",
        Reason.CREDENTIAL_DISABLED: "the caller's key is disabled",
        Reason.ACCESS_DENIED: "a rule denies requests like this one",
        Reason.ACCESS_NOT_GRANTED: "no AccessRule allows this request",
        Reason.UNCLASSIFIED: "this is no AI request of a known format",
        Reason.BODY_TOO_LARGE: "the body is too large",
        Reason.BODY_MISSING: "the request has no body",
        Reason.BODY_MALFORMED: "the body cannot be understood",
        Reason.ENCODING_UNSUPPORTED: "the body's encoding is not known",
        Reason.HEADER_MISMATCH: "a header says something else than the body",
        Reason.RATE_LIMITED: "a rate limit had no room for it",
        Reason.CAP_REACHED: "a usage cap is reached",
        Reason.CONCURRENCY_LIMITED: "too many requests are in flight",
        Reason.REQUEST_EXCEEDS_LIMIT: "the request is larger than it may ever be",
        Reason.POLICY_ERROR: "a policy could not be evaluated, and denies then (onError: deny)",
        Reason.STORE_UNAVAILABLE: "the counters did not answer, and a limit denies then (onError: deny)",
        Reason.AUDIT_UNAVAILABLE: "the decision could not be put on record, and nothing passes without",
        Reason.DEADLINE_EXCEEDED: "deciding took too long",
    }
)
_ALLOWED: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.UNCLASSIFIED: "although nobody could say what it asks for, so that no tokens were counted",
        Reason.MODEL_SUBSTITUTED: "with another model than it asked for",
        Reason.CLAMPED: "with a lower output limit than it asked for",
    }
)


def explain(story: Story) -> Explanation:
    """Everything that is known of a decision, as a person or a program reads it."""
    decision = storable(story.decision)
    what = known.source(decision, story.shed, story.wording)
    is_allowed = decision.enforced_effect is Effect.ALLOW
    return Explanation(
        decision_id=decision.id,
        verdict=_verdict(decision),
        asked=_asked(decision, story.shed),
        caller=_caller(decision),
        where=_where(decision, story.instance),
        policies=tuple(lines.line(finding, what) for finding in decision.findings),
        remedies=remedies.remedies(what),
        not_asked=remedies.not_asked(what),
        alterations=_alterations(decision),
        reservations=endings.reservations(decision, story.endings),
        endings=endings.endings(decision, story.endings),
        is_open=is_allowed and not story.endings,
        attributes=dict(decision.attributes),
        shed=tuple(story.shed),
    )


def _verdict(decision: Decision) -> Verdict:
    denial = decision.denial
    return Verdict(
        sentence=_sentence(decision),
        shadow=_shadow(decision),
        effect=decision.effect,
        enforced_effect=decision.enforced_effect,
        reason=decision.reason,
        would_deny=decision.would_deny,
        determining=str(decision.determining or ""),
        status=denial.status if denial else 0,
        message=denial.message if denial else "",
        retry_after_ms=denial.retry_after_ms if denial else None,
        error_type=decision.error_type,
    )


def _sentence(decision: Decision) -> str:
    by = f" by {decision.determining}" if decision.determining else ""
    if decision.enforced_effect is Effect.DENY:
        status = f" with HTTP {decision.denial.status}" if decision.denial else ""
        return f"Denied{status}{by}: {_DENIED.get(decision.reason, str(decision.reason))}."
    how = _ALLOWED.get(decision.reason, "")
    return f"Allowed{by}{f', {how}' if how else ''}."


def _shadow(decision: Decision) -> str:
    policies = tuple(dict.fromkeys(str(f.policy) for f in decision.spoken if f.would_deny))
    if not policies:
        return ""
    return f"In shadow, {' and '.join(policies)} would have denied it."


def _asked(decision: Decision, shed: tuple[str, ...]) -> Asked:
    head, request, tokens = decision.head, decision.request, decision.tokens
    if request is None:
        return Asked(method=head.method, host=head.host, path=head.path_only)
    upstream = decision.upstream_model
    return Asked(
        method=head.method,
        host=head.host,
        path=head.path_only,
        api=request.api,
        provider=request.provider,
        operation=request.operation,
        model=request.model,
        models=request.models,
        upstream_model=upstream if upstream != request.model else "",
        stream=request.stream,
        choices=request.choices,
        message_count=request.message_count,
        tool_count=None if "tools" in shed else len(request.tools),
        modalities=request.modalities,
        has_state=request.has_state,
        # A body may well write a number that JSON cannot.
        temperature=request.temperature if isfinite(request.temperature or 0) else None,
        end_user=request.end_user,
        body_bytes=request.body_bytes,
        input_tokens=tokens.input,
        input_upper_bound_tokens=tokens.input_upper_bound,
        tokens_are_exact=tokens.exact,
        estimator=tokens.estimator,
        declared_max_output_tokens=request.max_output_tokens,
        max_output_tokens=tokens.max_output,
    )


def _caller(decision: Decision) -> Caller:
    who, source = decision.identity, decision.head.source
    return Caller(
        id=who.id,
        user=who.user,
        team=who.team,
        org=who.org,
        groups=who.groups,
        key=who.key,
        authenticated=who.authenticated,
        address=source.address,
        principal=source.principal,
        route=source.route,
    )


def _where(decision: Decision, instance: str) -> Where:
    return Where(
        started_at_us=decision.started_at_ns // 1_000,
        decided_at_us=decision.decided_at_ns // 1_000,
        decided_in_us=max(0, decision.decided_at_ns - decision.started_at_ns) // 1_000,
        revision=decision.revision,
        instance=instance,
        trace_id=decision.trace.trace_id,
        span_id=decision.trace.span_id,
    )


def _alterations(decision: Decision) -> tuple[Alteration, ...]:
    """What was changed of a request that went upstream."""
    if decision.enforced_effect is Effect.DENY:
        return ()
    found = []
    for finding in decision.spoken:
        if finding.mode is not Mode.ENFORCE or finding.reason not in {
            Reason.CLAMPED,
            Reason.MODEL_SUBSTITUTED,
        }:
            continue
        text = finding.message or finding.warning
        if finding.reason is Reason.MODEL_SUBSTITUTED and decision.request is not None:
            text = (
                f"{finding.policy} is used up for {decision.request.model!r}, "
                f"so {decision.target_model!r} answers in its place"
            )
        found.append(Alteration(policy=str(finding.policy), reason=finding.reason, text=text.rstrip(".")))
    return tuple(found)
