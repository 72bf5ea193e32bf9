"""The limits of one request: which take what, and what their counters' answers mean.

Floor 1, pure. One limit's charge is `kinds.rate_limit`'s, bucket arithmetic is `limits`'.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from extproc.decision import Charge, ChargeOutcome, Effect, Finding, Mode, Outcome, PolicyRef, Reason
from extproc.model import AIRequest, TokenEstimate
from extproc.policy import denials
from extproc.policy.cel import Failure
from extproc.policy.kinds.rate_limit import RateLimit, charge, key_of
from extproc.policy.objects import PolicyObject

Limits = tuple[PolicyObject[RateLimit], ...]

# RateLimit's own default; Defaults.reserve and the object's field come before it.
_RESERVE = "expected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What the limits are told about a request."""

    activated: object  # the facts, ready for CEL
    request: AIRequest | None
    tokens: TokenEstimate
    reserve: str | None  # Defaults.reserve
    expected_output_tokens: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What is to be charged; limits without a charge have a finding already."""

    charges: tuple[Charge, ...]
    findings: tuple[Finding, ...]

    @property
    def deny(self) -> Finding | None:
        """The first enforced limit that failed and denies then."""
        return first_enforced_deny(self.findings)


def assess(limits: Limits, measure: Measure) -> Assessment:
    """Ask every limit what it takes."""
    asked = [_assess(limit, measure) for limit in limits if limit.mode is not Mode.DISABLED]
    return Assessment(
        charges=tuple(answer for answer in asked if isinstance(answer, Charge)),
        findings=tuple(answer for answer in asked if isinstance(answer, Finding)),
    )


def _assess(limit: PolicyObject[RateLimit], measure: Measure) -> Charge | Finding:
    matched = limit.spec.match.evaluate(measure.activated)
    if isinstance(matched, Failure):
        return _errored(limit, f"The match of {limit.ref} failed: {matched.code}.", Reason.POLICY_ERROR)
    if not matched:
        return Finding(policy=limit.ref, outcome=Outcome.NOT_MATCHED, mode=limit.mode)
    key = key_of(limit, measure.activated)
    if isinstance(key, Failure):
        return _errored(limit, f"The key of {limit.ref} failed: {key.code}.", Reason.POLICY_ERROR)
    taken = charge(
        limit,
        key,
        measure.request,
        measure.tokens,
        reserve=limit.spec.reserve or measure.reserve or _RESERVE,
        expected_output_tokens=measure.expected_output_tokens,
    )
    return taken or Finding(
        policy=limit.ref,
        outcome=Outcome.MATCHED,
        mode=limit.mode,
        effect=Effect.ALLOW,
        reason=Reason.ALLOWED,
        message=f"The request spends nothing of {limit.ref}.",
    )


def without_store(limits: Limits, charges: Iterable[Charge]) -> tuple[Finding, ...]:
    """What `onError` says for each limit whose counter did not answer."""
    charged = {taken.policy for taken in charges}
    return tuple(
        _errored(limit, f"The counters of {limit.ref} did not answer.", Reason.STORE_UNAVAILABLE)
        for limit in limits
        if limit.ref in charged
    )


def read(
    outcomes: Iterable[ChargeOutcome], request: AIRequest | None, tokens: TokenEstimate
) -> tuple[Finding, ...]:
    """What each counter's answer means for its limit."""
    return tuple(_read(outcome, request, tokens) for outcome in outcomes)


def _read(outcome: ChargeOutcome, request: AIRequest | None, tokens: TokenEstimate) -> Finding:
    taken = outcome.charge
    state = denials.limit_state(outcome)
    if outcome.granted:
        reason, message = Reason.ALLOWED, ""
    elif outcome.wait_us is None:
        reason, message = Reason.REQUEST_EXCEEDS_LIMIT, denials.never_fits(taken, request, tokens)
    else:
        reason, message = Reason.RATE_LIMITED, denials.rate_limited(state, taken)
    return Finding(
        policy=taken.policy,
        outcome=Outcome.MATCHED,
        mode=Mode.ENFORCE if taken.enforced else Mode.SHADOW,
        effect=Effect.ALLOW if outcome.granted else Effect.DENY,
        reason=reason,
        message=message,
        limit=state,
    )


def answering(outcomes: Iterable[ChargeOutcome]) -> ChargeOutcome | None:
    """The enforced outcome the client is told of: never beats any wait, a longer wait a shorter one."""
    denied = [outcome for outcome in outcomes if outcome.charge.enforced and not outcome.granted]
    return min(denied, key=_precedence, default=None)


def _precedence(outcome: ChargeOutcome) -> tuple[bool, int, PolicyRef]:
    wait_us = outcome.wait_us
    return wait_us is not None, -(wait_us or 0), outcome.charge.policy


def first_enforced_deny(findings: Iterable[Finding]) -> Finding | None:
    """The denying finding that the client is told of, by name."""
    denying = [f for f in findings if f.effect is Effect.DENY and f.mode is Mode.ENFORCE]
    return min(denying, key=lambda finding: finding.policy, default=None)


def _errored(limit: PolicyObject[RateLimit], message: str, reason: Reason) -> Finding:
    return Finding(
        policy=limit.ref,
        outcome=Outcome.ERRORED,
        mode=limit.mode,
        effect=Effect.DENY if limit.spec.on_error is Effect.DENY else None,
        reason=reason,
        message=message,
    )
