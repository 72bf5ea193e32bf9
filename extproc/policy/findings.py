"""The findings of one decision: every policy has at least one, in the order of a request.

Floor 1, pure. Of a thousand policies a request concerns a few. What the others are silent about is the
same for every request, so it is made once for a folder.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from typing import Any

from extproc.decision import SPOKEN, Effect, Finding, Mode, Outcome, PolicyRef
from extproc.policy.index import Index
from extproc.policy.objects import PolicyObject, Spec

Asked = Index[PolicyObject[Any]]


@dataclass(frozen=True, slots=True)
class Found:
    """Every finding, and those of them that say something: what each request pays for reading."""

    findings: tuple[Finding, ...]
    spoken: tuple[Finding, ...]


def first_enforced_deny(findings: Iterable[Finding]) -> Finding | None:
    """The denying finding that the client is told of, by name."""
    denying = [f for f in findings if f.effect is Effect.DENY and f.mode is Mode.ENFORCE]
    return min(denying, key=lambda finding: finding.policy, default=None)


class Roll:
    """The objects of a folder that speak, in the order of a request, and what their silence means."""

    def __init__(self, objects: Iterable[PolicyObject[Spec]]) -> None:
        self._objects = tuple(objects)
        self.places = {item.ref: place for place, item in enumerate(self._objects)}
        self._silences: dict[tuple[Asked, ...], tuple[Finding, ...]] = {}

    def silence(self, asked: tuple[Asked, ...]) -> tuple[Finding, ...]:
        """One finding for each object, if none of those asked spoke and the others were not run."""
        known = self._silences.get(asked)
        if known is None:
            known = self._silences[asked] = self._silent(asked)
        return known

    def _silent(self, asked: tuple[Asked, ...]) -> tuple[Finding, ...]:
        heard = {item.ref for index in asked for item in index.items}
        return tuple(
            Finding(
                policy=item.ref,
                outcome=Outcome.NOT_MATCHED if item.ref in heard else Outcome.NOT_RUN,
                mode=item.mode,
            )
            for item in self._objects
        )


class Findings:
    """What was found so far; adding for a policy that has findings keeps both."""

    def __init__(self, roll: Roll) -> None:
        self._roll = roll
        self._asked: tuple[Asked, ...] = ()
        self._found: dict[PolicyRef, list[Finding]] = {}

    def asked(self, index: Asked) -> None:
        """The policies of this index had their turn: one without a finding did not match."""
        if index not in self._asked:
            self._asked += (index,)

    def add(self, *findings: Finding) -> None:
        """Keep these."""
        for finding in findings:
            self._found.setdefault(finding.policy, []).append(finding)

    def replace(self, findings: Iterable[Finding]) -> None:
        """Keep these instead of what their policies said before."""
        findings = list(findings)
        for finding in findings:
            self._found.pop(finding.policy, None)
        self.add(*findings)

    def of(self, policy: PolicyRef) -> tuple[Finding, ...]:
        """What this policy said so far."""
        return tuple(self._found.get(policy, ()))

    def discard(self, policies: Container[PolicyRef]) -> None:
        """Forget what these said: they are asked again."""
        self._found = {ref: said for ref, said in self._found.items() if ref not in policies}

    def all(self, determining: Finding | None) -> Found:
        """Everything, with what was not run, and the one that decided marked."""
        findings = list(self._roll.silence(self._asked))
        spoken: list[Finding] = []
        # From the end, because a policy with several findings moves those behind it.
        for ref in sorted(self._found, key=self._roll.places.__getitem__, reverse=True):
            said = [replace(f, determining=True) if f is determining else f for f in self._found[ref]]
            place = self._roll.places[ref]
            findings[place : place + 1] = said
            spoken[:0] = [finding for finding in said if finding.outcome in SPOKEN]
        return Found(tuple(findings), tuple(spoken))
