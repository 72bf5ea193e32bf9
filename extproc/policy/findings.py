"""The findings of one decision: every policy has at least one, in the order of a request.

Floor 1, pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from extproc.decision import Finding, Outcome, PolicyRef
from extproc.policy.policyset import PolicySet


class Findings:
    """What was found so far; adding for a policy that has findings keeps both."""

    def __init__(self, policies: PolicySet) -> None:
        self._policies = policies
        self._found: dict[PolicyRef, list[Finding]] = {}

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

    def all(self, determining: Finding | None) -> tuple[Finding, ...]:
        """Everything, with what was not run, and the one that decided marked."""
        found: list[Finding] = []
        for item in self._policies.speakers:
            found += self._found.get(
                item.ref, [Finding(policy=item.ref, outcome=Outcome.NOT_RUN, mode=item.mode)]
            )
        return tuple(replace(f, determining=True) if f is determining else f for f in found)
