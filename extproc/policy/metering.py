"""The limits of one request: which take what, and what their counters' answers mean.

Floor 1, pure. What a request takes of a unit is `spending`'s; what a limit is, `limited`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache

from extproc.decision import (
    Charge,
    ChargeOutcome,
    Effect,
    Finding,
    LimitState,
    Mode,
    Outcome,
    PolicyRef,
    Reason,
    Unit,
)
from extproc.model import AIRequest
from extproc.policy import denials, spending
from extproc.policy.cel import Failure
from extproc.policy.findings import first_enforced_deny
from extproc.policy.limited import Limit, charge, key_of
from extproc.policy.spending import Measure, Reserve, Taken

Limits = Mapping[PolicyRef, Limit]
_Taken = Callable[[Unit, Reserve], Taken | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What is to be charged; limits without a charge have a finding already."""

    charges: tuple[Charge, ...]
    findings: tuple[Finding, ...]

    @property
    def deny(self) -> Finding | None:
        """The first enforced limit that failed and denies then."""
        return first_enforced_deny(self.findings)


def assess(limits: Iterable[Limit], measure: Measure) -> Assessment:
    """Ask active limits what each takes."""
    # Many limits count the same unit, and a cost is looked up in price lists.
    taken_of = cache(lambda unit, reserve: spending.taken(unit, measure, reserve))
    asked = [_assess(limit, measure, taken_of) for limit in limits]
    return Assessment(
        charges=tuple(answer for answer in asked if isinstance(answer, Charge)),
        findings=tuple(answer for answer in asked if isinstance(answer, Finding)),
    )


def _assess(limit: Limit, measure: Measure, taken_of: _Taken) -> Charge | Finding:
    spec = limit.spec
    matched = spec.match.evaluate(measure.activated)
    if isinstance(matched, Failure):
        return _errored(limit, f"The match of {limit.ref} failed: {matched.code}.", Reason.POLICY_ERROR)
    if not matched:
        return Finding(policy=limit.ref, outcome=Outcome.NOT_MATCHED, mode=limit.mode)
    key = key_of(limit, measure.activated)
    if isinstance(key, Failure):
        return _errored(limit, f"The key of {limit.ref} failed: {key.code}.", Reason.POLICY_ERROR)
    taken = taken_of(spec.unit, spec.reserves(measure.reserve))
    if taken is None:
        model = measure.request.model if measure.request else ""
        return _errored(limit, denials.unpriced(limit.ref, model), Reason.POLICY_ERROR)
    if taken.amount == 0:
        return _allowed(limit, f"The request spends nothing of {limit.ref}.")
    is_spared = measure.request is not None and _names_only(measure.request, spec.substitute.lower())
    return charge(limit, key, taken, measure.at_ns // 1_000, is_spared=is_spared)


def _names_only(request: AIRequest, model: str) -> bool:
    """Whether nothing else can answer: beside the first a body may name models to fall back to."""
    return request.model == model != "" and {*request.models} <= {model}


def not_run(limits: Limits, charges: Iterable[Charge]) -> tuple[Finding, ...]:
    """The findings of limits that would have been charged, and were not: another one failed."""
    return tuple(
        Finding(policy=taken.policy, outcome=Outcome.NOT_RUN, mode=limits[taken.policy].mode)
        for taken in charges
    )


def without_store(limits: Limits, charges: Iterable[Charge]) -> tuple[Finding, ...]:
    """What `onError` says for each limit whose counter did not answer."""
    return tuple(
        _errored(
            limits[taken.policy],
            f"The counters of {taken.policy} did not answer.",
            Reason.STORE_UNAVAILABLE,
        )
        for taken in charges
    )


def read(limits: Limits, outcomes: Iterable[ChargeOutcome], measure: Measure) -> tuple[Finding, ...]:
    """What each counter's answer means for its limit."""
    return tuple(_read(limits[outcome.charge.policy], outcome, measure) for outcome in outcomes)


def _read(limit: Limit, outcome: ChargeOutcome, measure: Measure) -> Finding:
    state = denials.limit_state(outcome)
    is_enforced = outcome.charge.enforced
    if outcome.granted:
        warning = _warning(limit, outcome) if is_enforced else ""
        return _allowed(limit, "", state, warning=warning)
    if limit.mode is Mode.ENFORCE and not is_enforced:
        model = limit.spec.substitute
        return _allowed(limit, f"{limit.ref} is used up, and lets {model} pass.", state)
    reason, message = _denied(limit, outcome, measure)
    return Finding(
        policy=limit.ref,
        outcome=Outcome.MATCHED,
        mode=limit.mode,
        effect=Effect.DENY,
        reason=reason,
        message=message,
        limit=state,
    )


def _denied(limit: Limit, outcome: ChargeOutcome, measure: Measure) -> tuple[Reason, str]:
    if outcome.wait_us is None:
        ceiling = spending.largest_ceiling(outcome.charge.unit, outcome.limit, measure)
        return Reason.REQUEST_EXCEEDS_LIMIT, denials.never_fits(outcome, ceiling)
    spec = limit.spec
    return spec.full, denials.full(
        spec.full, outcome, per=spec.per, at_us=measure.at_ns // 1_000, zone=spec.zone
    )


def _warning(limit: Limit, outcome: ChargeOutcome) -> str:
    """What the caller is told where a share of the limit is used that its policy names."""
    spent = outcome.used + outcome.reserved
    if not any(spent >= share * outcome.limit for share in limit.spec.warning_shares):
        return ""
    return denials.nearly_full(outcome, spent, per=limit.spec.per, zone=limit.spec.zone)


def answering(outcomes: Iterable[ChargeOutcome]) -> ChargeOutcome | None:
    """The enforced outcome the client is told of: never beats any wait, a longer wait a shorter one."""
    denied = [outcome for outcome in outcomes if outcome.charge.enforced and not outcome.granted]
    return min(denied, key=_precedence, default=None)


def _precedence(outcome: ChargeOutcome) -> tuple[bool, int, PolicyRef]:
    wait_us = outcome.wait_us
    return wait_us is not None, -(wait_us or 0), outcome.charge.policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Substitution:
    """The model to try instead of a denial, and the limit that offers it."""

    model: str  # as its policy writes it
    policy: PolicyRef


def substitution(limits: Limits, outcomes: Iterable[ChargeOutcome]) -> Substitution | None:
    """What to try instead: a model, where every enforced limit that denies offers one.

    They may offer several; it is that of the limit which would answer. With this model that limit
    spares the request, another one may still deny it.
    """
    denied = [outcome for outcome in outcomes if outcome.charge.enforced and not outcome.granted]
    offered = {each.charge.policy: limits[each.charge.policy].spec.substitute for each in denied}
    answer = answering(denied)
    if answer is None or not all(offered.values()):
        return None
    return Substitution(model=offered[answer.charge.policy], policy=answer.charge.policy)


def substituted(findings: Iterable[Finding], by: Substitution) -> tuple[Finding, ...]:
    """The findings of the second try: the limit that offered the model says that it is in use."""
    return tuple(
        _substituting(finding, by)
        if finding.policy == by.policy and finding.effect is Effect.ALLOW
        else finding
        for finding in findings
    )


def led_elsewhere(findings: Iterable[Finding], by: Substitution) -> Finding:
    """What the limit that offered the model said at the first try; it may not match the second."""
    denied = next(finding for finding in findings if finding.effect is Effect.DENY)
    return _substituting(replace(denied, effect=Effect.ALLOW, message=""), by)


def _substituting(finding: Finding, by: Substitution) -> Finding:
    return replace(
        finding,
        reason=Reason.MODEL_SUBSTITUTED,
        warning=f"{finding.policy} is used up: {by.model} answers",
    )


def _allowed(limit: Limit, message: str, state: LimitState | None = None, *, warning: str = "") -> Finding:
    return Finding(
        policy=limit.ref,
        outcome=Outcome.MATCHED,
        mode=limit.mode,
        effect=Effect.ALLOW,
        reason=Reason.ALLOWED,
        message=message,
        limit=state,
        warning=warning,
    )


def _errored(limit: Limit, message: str, reason: Reason) -> Finding:
    return Finding(
        policy=limit.ref,
        outcome=Outcome.ERRORED,
        mode=limit.mode,
        effect=Effect.DENY if limit.spec.on_error is Effect.DENY else None,
        reason=reason,
        message=message,
    )
