"""Tests of a policy folder, run: what was expected, what came, and which policies said nothing.

Floor 3.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic.alias_generators import to_camel

from extproc.decision import Decision, Effect, Mode, PolicyRef
from extproc.policy.policyset import PolicySet
from extproc.policy.wording import wording
from extproc.questions.base import Story
from extproc.questions.explained import PolicyLine
from extproc.questions.explanation import explain
from extproc.rehearsal.cases import Case
from extproc.rehearsal.stage import Instruments, Rehearsed, rehearse
from extproc.rehearsal.written import Expect


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One expectation that does not hold, in the words of the test file."""

    field: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.field}: expected {self.expected}, got {self.got}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One test, and what it came to."""

    case: Case
    decision: Decision
    mismatches: tuple[Mismatch, ...]

    @property
    def is_ok(self) -> bool:
        """Whether everything is as expected."""
        return not self.mismatches


async def run(case: Case, instruments: Instruments) -> Trial:
    """Decide the request of one test, and compare."""
    found = await rehearse(case.policies, case.given, instruments)
    return Trial(
        case=case,
        decision=found.decision,
        mismatches=(*_compared(case.expect, found.decision), *_idle(case, found)),
    )


def unheard(policies: PolicySet, trials: Iterable[Trial]) -> tuple[PolicyRef, ...]:
    """The policies that said nothing in any test; disabled ones never do."""
    heard = {finding.policy for trial in trials for finding in trial.decision.spoken}
    return tuple(
        item.ref for item in policies.speakers if item.mode is not Mode.DISABLED and item.ref not in heard
    )


def spoken(case: Case, decision: Decision) -> tuple[PolicyLine, ...]:
    """What the policies said, the one that decided first, as `extproc explain` says it."""
    explained = explain(Story(decision=decision, instance="", wording=wording(case.policies.objects)))
    said = [line for line in explained.policies if line.effect is not None]
    return tuple(sorted(said, key=lambda line: (not line.determining, line.effect is Effect.ALLOW)))


# --- what is compared


def _status(decision: Decision) -> int | None:
    return decision.denial.status if decision.denial else None


def _would_deny(decision: Decision) -> frozenset[PolicyRef]:
    return frozenset(finding.policy for finding in decision.spoken if finding.would_deny)


_ACTUAL: Mapping[str, Callable[[Decision], Any]] = MappingProxyType(
    {
        "effect": lambda decision: decision.effect,
        "enforced_effect": lambda decision: decision.enforced_effect,
        "by": lambda decision: decision.determining,
        "reason": lambda decision: decision.reason,
        "status": _status,
        "message": lambda decision: decision.denial.message if decision.denial else None,
        "retry_after_ms": lambda decision: decision.denial.retry_after_ms if decision.denial else None,
        "would_deny": _would_deny,
        "model": lambda decision: decision.upstream_model,
        "max_output_tokens": lambda decision: decision.request and decision.request.max_output_tokens,
        "warnings": lambda decision: decision.warnings,
    }
)


def _is_part(expected: str, actual: str | None) -> bool:
    return actual is not None and expected in actual


def _are_parts(expected: tuple[str, ...], actual: tuple[str, ...]) -> bool:
    return len(expected) == len(actual) and all(map(_is_part, expected, actual))


_HOLDS: Mapping[str, Callable[[Any, Any], bool]] = MappingProxyType(
    {
        "message": _is_part,
        "warnings": _are_parts,
        "would_deny": lambda expected, actual: frozenset(expected) == actual,
        "model": lambda expected, actual: expected.lower() == actual,
    }
)


def _compared(expect: Expect, decision: Decision) -> Iterable[Mismatch]:
    for name in Expect.model_fields:
        expected = getattr(expect, name)
        if name not in expect.model_fields_set:
            continue
        actual = _ACTUAL[name](decision)
        holds: Callable[[Any, Any], bool] = _HOLDS.get(name, operator.eq)
        if not holds(expected, actual):
            got = _shown(actual) + (_shadow(decision) if name == "effect" else "")
            yield Mismatch(field=to_camel(name), expected=_shown(expected), got=got)


def _shadow(decision: Decision) -> str:
    """Why the effect is not what was done."""
    if decision.effect is decision.enforced_effect:
        return ""
    shadow = ", ".join(sorted(map(str, _would_deny(decision))))
    by = f"in shadow by {shadow}; " if shadow else ""
    return f" ({by}enforcedEffect is {decision.enforced_effect})"


def _idle(case: Case, found: Rehearsed) -> Iterable[Mismatch]:
    """What the test says is used of a limit that the request has nothing to do with."""
    asked = {finding.policy for finding in found.decision.findings if finding.outcome != "not_run"}
    for ref in case.given.used:
        if ref in asked and ref not in found.charged:
            yield Mismatch(
                field=f"given.used.{ref}",
                expected="that the request is counted by it",
                got="that it does not match, or takes nothing",
            )


def _shown(value: Any) -> str:
    if isinstance(value, tuple | frozenset):
        return f"[{', '.join(sorted(map(str, value)) if isinstance(value, frozenset) else map(str, value))}]"
    return "none" if value is None or value == "" else str(value)
