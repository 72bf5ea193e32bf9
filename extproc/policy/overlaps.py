"""Rules and limits that can never matter, because others always decide before them.

Floor 1, pure. A deny beats every allow, whatever order they are written in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from extproc.decision import Effect, Mode
from extproc.errors import Problem
from extproc.policy import cel
from extproc.policy.implication import Formula, formula, implies, never
from extproc.policy.kinds.access_rule import AccessRule
from extproc.policy.kinds.request_cap import RequestCap
from extproc.policy.limited import LimitSpec
from extproc.policy.lints import NAME, Placed
from extproc.policy.needs import Fact, Need

# Every rule is compared with every other one; no more than a second is spent on that, while requests wait.
_MOST_PAIRS: Final = 500_000
_MATCH = ("spec", "match")
# Fields in which limits that count the same may differ, or that are compared as they are written.
_OF_ITS_OWN: Final = frozenset({"description", "match", "key"})


@dataclass(frozen=True, slots=True)
class _Rule:
    placed: Placed
    spec: AccessRule
    formula: Formula
    needs: Mapping[Fact, Need]

    @property
    def is_sure_deny(self) -> bool:
        """Whether it does nothing but deny what it matches, in no words of its own."""
        return self.spec.effect is Effect.DENY and not self.spec.message and self.formula.is_sure

    @property
    def parts(self) -> int:
        """How much there is to compare: without a text that it needs, every part with every other."""
        return 1 if self.needs else self.formula.leaves


def problems(active: Sequence[Placed]) -> Iterator[Problem]:
    """Everything of these objects, none of which is disabled, that never matters."""
    formulas = {
        id(placed): formula(cel.tree(placed.item.spec.match).expr)
        for placed in active
        if isinstance(placed.item.spec, AccessRule | RequestCap | LimitSpec)
    }
    for placed in active:
        if id(placed) in formulas and never(formulas[id(placed)]):
            yield placed.problem(_MATCH, f"{placed.item.ref} never matches: no request makes this true")
    yield from _useless_rules(
        [
            _Rule(
                placed,
                placed.item.spec,
                formulas[id(placed)],
                {need.fact: need for need in placed.item.spec.match.needs},
            )
            for placed in active
            if isinstance(placed.item.spec, AccessRule)
            and placed.item.mode is Mode.ENFORCE
            and not never(formulas[id(placed)])
        ]
    )
    yield from _repeated_limits(active)


def _useless_rules(rules: Sequence[_Rule]) -> Iterator[Problem]:
    if sum(rule.parts for rule in rules) ** 2 > _MOST_PAIRS:
        return
    useless: set[int] = set()
    for rule in rules:
        for other in rules:
            if id(other) in useless or not _decides_before(other, rule):
                continue
            useless.add(id(rule))
            does = "denies" if other.spec.effect is Effect.DENY else "allows"
            would = "allow" if rule.spec.effect is Effect.ALLOW else "deny"
            yield rule.placed.problem(
                _MATCH,
                f"{rule.placed.item.ref} can never matter: "
                f"{other.placed.where} {does} all that it would {would}",
            )
            break


def _decides_before(other: _Rule, rule: _Rule) -> bool:
    """Whether whatever `rule` would decide, `other` decides."""
    if other is rule or (other.spec.effect is Effect.ALLOW and rule.spec.effect is Effect.DENY):
        return False
    if other.spec.effect is rule.spec.effect is Effect.DENY and not rule.is_sure_deny:
        return False
    return not _differ(rule.needs, other.needs) and implies(rule.formula, other.formula)


def _differ(some: Mapping[Fact, Need], others: Mapping[Fact, Need]) -> bool:
    """Whether they name other texts of one fact: cheaper than a proof, and true of most pairs of rules."""
    return any(
        not (need.is_prefix or others[fact].is_prefix) and need.values.isdisjoint(others[fact].values)
        for fact, need in some.items()
        if fact in others
    )


def _repeated_limits(active: Sequence[Placed]) -> Iterator[Problem]:
    """Limits that are there twice; a wider one than another is none: an override may lift the tighter one."""
    first: dict[object, Placed] = {}
    for placed in active:
        spec = placed.item.spec
        if isinstance(spec, LimitSpec) and placed.item.mode is Mode.ENFORCE:
            key = tuple(part.text for part in spec.key)
            said = tuple(
                repr(getattr(spec, name)) for name in type(spec).model_fields if name not in _OF_ITS_OWN
            )
            same = (placed.item.ref.kind, spec.match.text, key, said)
            earlier = first.setdefault(same, placed)
            if earlier is not placed:
                yield placed.problem(NAME, f"{placed.item.ref} counts and allows the same as {earlier.where}")
