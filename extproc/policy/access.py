"""How access rules combine: a deny beats every allow, for every model the request names.

Floor 1, pure. One rule's answer is `kinds.access_rule`'s; which rules are asked at all, the index's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from extproc.decision import Effect, Finding, Mode, Outcome, PolicyRef
from extproc.pb.ai_policy.v1 import facts_pb2
from extproc.policy import cel, facts
from extproc.policy.findings import first_enforced_deny
from extproc.policy.index import Index
from extproc.policy.kinds.access_rule import AccessRule, ask
from extproc.policy.objects import PolicyObject

Rules = Index[PolicyObject[AccessRule]]
_Answers = dict[PolicyRef, Finding]

_NO_ESTIMATES: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What the rules say together; without a deny and without a model left over, the request may pass."""

    findings: tuple[Finding, ...] = ()  # a rule without one did not match
    deny: Finding | None = None
    grant: Finding | None = None  # what let the first model pass
    not_granted: str | None = None  # the first model that no rule allows


def rule_on_head(rules: Rules, request_facts: facts_pb2.Facts) -> Ruling:
    """Ask the rules that need only headers. A missing grant means nothing yet."""
    candidates = rules.candidates(request_facts)
    findings = tuple(_ask(candidates, cel.activate(request_facts)).values()) if candidates else ()
    return Ruling(findings=findings, deny=first_enforced_deny(findings))


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
    early_grant = _first_grant(early.findings)
    answers: dict[str, _Answers] = {}
    for model in models:
        if not answers:
            answers[model] = _ask(rules.candidates(request_facts), activated, model)
            continue
        about = facts.about_model(request_facts, model, estimated_usd=estimates_usd.get(model))
        candidates = rules.candidates(about)
        answers[model] = _ask(candidates, cel.activate(about), model) if candidates else {}
    findings = [*early.findings, *(finding for said in answers.values() for finding in said.values())]
    grants = [
        _first_grant([*([early_grant] if early_grant else []), *said.values()]) for said in answers.values()
    ]
    missing = [model for model, grant in zip(models, grants, strict=True) if grant is None]
    return Ruling(
        findings=tuple(_distinct([*findings, *_silent_about(answers)])),
        deny=first_enforced_deny(findings),
        grant=grants[0],
        not_granted=missing[0] if missing else None,
    )


def _ask(rules: Iterable[PolicyObject[AccessRule]], activated: object, model: str = "") -> _Answers:
    """What each rule says that does not just not match."""
    asked = ((rule.ref, ask(rule, activated, model=model)) for rule in rules)
    return {ref: finding for ref, finding in asked if finding is not None}


def _silent_about(answers: Mapping[str, _Answers]) -> Iterable[Finding]:
    """The first model that a rule does not match, of rules that say something about another one."""
    if len(answers) == 1:
        return
    spoken = {ref: finding.mode for said in answers.values() for ref, finding in said.items()}
    for ref, mode in spoken.items():
        silent = next((model for model, said in answers.items() if ref not in said), None)
        if silent is not None:
            yield Finding(policy=ref, outcome=Outcome.NOT_MATCHED, mode=mode, evaluated_model=silent)


def _first_grant(findings: Iterable[Finding]) -> Finding | None:
    granting = [
        f
        for f in findings
        if f.effect is Effect.ALLOW and f.outcome is Outcome.MATCHED and f.mode is Mode.ENFORCE
    ]
    return min(granting, key=lambda finding: finding.policy, default=None)


def _distinct(findings: Iterable[Finding]) -> Iterable[Finding]:
    """One finding for each thing a rule said: a body may name a thousand models."""
    first: dict[tuple[PolicyRef, Outcome], Finding] = {}
    for finding in findings:
        first.setdefault((finding.policy, finding.outcome), finding)
    return (first[said] for said in sorted(first))
