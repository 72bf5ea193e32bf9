"""How access rules combine: a deny beats every allow, for every model the request names.

Floor 1, pure. One rule's answer is `kinds.access_rule`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from extproc.decision import Effect, Finding, Mode, Outcome
from extproc.pb.ai_policy.v1 import facts_pb2
from extproc.policy import cel, facts
from extproc.policy.kinds.access_rule import AccessRule, ask
from extproc.policy.objects import PolicyObject

Rules = tuple[PolicyObject[AccessRule], ...]

_NO_ESTIMATES: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What the rules say together; without a deny and without a model left over, the request may pass."""

    findings: tuple[Finding, ...] = ()
    deny: Finding | None = None
    grant: Finding | None = None  # what let the first model pass
    not_granted: str | None = None  # the first model that no rule allows


def rule_on_head(rules: Rules, request_facts: facts_pb2.Facts) -> Ruling:
    """Ask the rules that need only headers. A missing grant means nothing yet."""
    activated = cel.activate(request_facts)
    findings = tuple(ask(rule, activated) for rule in rules if rule.mode is not Mode.DISABLED)
    return Ruling(findings=findings, deny=_first_deny(findings))


def rule_on_request(
    rules: Rules,
    request_facts: facts_pb2.Facts,
    activated: object,
    models: tuple[str, ...],
    early: Ruling,
    *,
    estimates_usd: Mapping[str, float] = _NO_ESTIMATES,
) -> Ruling:
    """Ask the other rules about each model; `early` holds for all of them.

    `activated` is `request_facts`, ready for CEL; they are about the first model. `estimates_usd` is what
    the request may cost with each model whose price is known.
    """
    asked = [rule for rule in rules if rule.mode is not Mode.DISABLED]
    findings: list[Finding] = list(early.findings)
    grants: list[Finding | None] = []
    for model in models:
        is_first = model == models[0]
        about = activated if is_first else _about(request_facts, model, estimates_usd.get(model))
        answers = [ask(rule, about, model=model) for rule in asked]
        findings += answers
        grants.append(_first_grant([*early.findings, *answers]))
    missing = [model for model, grant in zip(models, grants, strict=True) if grant is None]
    return Ruling(
        findings=tuple(_distinct(findings)),
        deny=_first_deny(findings),
        grant=grants[0],
        not_granted=missing[0] if missing else None,
    )


def _about(request_facts: facts_pb2.Facts, model: str, estimated_usd: float | None) -> object:
    """The facts as they are with another model, ready for CEL."""
    return cel.activate(facts.about_model(request_facts, model, estimated_usd=estimated_usd))


def _first_deny(findings: Iterable[Finding]) -> Finding | None:
    denying = [f for f in findings if f.effect is Effect.DENY and f.mode is Mode.ENFORCE]
    return min(denying, key=lambda finding: finding.policy, default=None)


def _first_grant(findings: Iterable[Finding]) -> Finding | None:
    granting = [
        f
        for f in findings
        if f.effect is Effect.ALLOW and f.outcome is Outcome.MATCHED and f.mode is Mode.ENFORCE
    ]
    return min(granting, key=lambda finding: finding.policy, default=None)


def _distinct(findings: Iterable[Finding]) -> Iterable[Finding]:
    """One finding for each thing a rule said: a body may name a thousand models."""
    seen = {(f.policy, f.outcome, f.effect): f for f in reversed(list(findings))}
    return sorted(seen.values(), key=lambda finding: finding.policy)
