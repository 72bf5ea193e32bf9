"""One attempt to pass the limits: what they take, and what their counters' answers come to.

Floor 1, pure. A request that is tried with another model is a second attempt.
"""

from __future__ import annotations

from collections.abc import Iterable

from extproc.decision import Charge, ChargeOutcome, Denial, Finding, Reason
from extproc.policy import denials, metering
from extproc.policy.findings import first_enforced_deny
from extproc.policy.limited import Limit
from extproc.policy.metering import Substitution
from extproc.policy.policyset import PolicySet
from extproc.policy.spending import Measure
from extproc.policy.verdict import Verdict


class Attempt:
    """Call `charge`, then `answered` or `unanswered`; what they find the verdict is told.

    With a substitution, it is of another model than the one before.
    """

    def __init__(
        self, policies: PolicySet, verdict: Verdict, measure: Measure, substitution: Substitution | None
    ) -> None:
        self._policies = policies
        self._verdict = verdict
        self._measure = measure
        self._substitution = substitution
        self._charges: tuple[Charge, ...] = ()
        self._grant = verdict.determining  # what let the request come this far

    def charge(self, candidates: Iterable[Limit]) -> tuple[Charge, ...] | Denial:
        """What every limit takes."""
        verdict, limits = self._verdict, self._policies.limits_by_ref
        assessment = metering.assess(candidates, self._measure)
        if self._substitution is not None:
            # It may concern other limits than the first; the one that led here is remembered even so.
            led = metering.led_elsewhere(verdict.findings.of(self._substitution.policy), self._substitution)
            verdict.findings.discard(limits)
            verdict.findings.add(led)
        verdict.findings.replace(assessment.findings)
        failed = assessment.deny
        if failed is not None:
            verdict.findings.asked(self._policies.limit_index)
            verdict.findings.replace(metering.not_run(limits, assessment.charges))
            return verdict.deny(failed, denials.FORBIDDEN, denials.failed(failed.policy, failed.message))
        self._charges = assessment.charges
        return self._charges

    def answered(self, outcomes: tuple[ChargeOutcome, ...]) -> Denial | None:
        """What the store answered, one outcome a charge; what was not counted is no outcome of ours."""
        verdict, limits = self._verdict, self._policies.limits_by_ref
        counted = tuple(outcome for outcome in outcomes if not outcome.unavailable)
        verdict.outcomes, verdict.uncounted = counted, ()
        verdict.findings.asked(self._policies.limit_index)
        findings = metering.read(limits, counted, self._measure)
        if self._substitution is not None:
            findings = metering.substituted(findings, self._substitution)
        verdict.findings.replace(findings)
        uncounted = self._without_counter(outcome.charge for outcome in outcomes if outcome.unavailable)
        answering = metering.answering(counted)
        if answering is None:
            return self._deny_uncounted(uncounted)
        finding = next(f for f in findings if f.policy == answering.charge.policy)
        never_fits = answering.wait_us is None
        status = denials.CONTENT_TOO_LARGE if never_fits else denials.TOO_MANY_REQUESTS
        return verdict.deny(finding, status, finding.message)

    def unanswered(self) -> Denial | None:
        """Nobody knows what was used: each limit's `onError` says what that means."""
        self._verdict.outcomes, self._verdict.uncounted = (), self._charges
        self._verdict.findings.asked(self._policies.limit_index)
        return self._deny_uncounted(self._without_counter(self._charges))

    def substitution(self) -> Substitution | None:
        """The other model to try, where every limit that denies offers one; there is no third attempt."""
        if self._substitution is not None:
            return None
        return metering.substitution(self._policies.limits_by_ref, self._verdict.outcomes)

    def take_back(self) -> None:
        """Forget that this one was denied: another is made."""
        self._verdict.let_pass(self._grant)

    def _without_counter(self, charges: Iterable[Charge]) -> Finding | None:
        """Keep what `onError` says of each limit without its counter; the finding that denies."""
        findings = metering.without_store(self._policies.limits_by_ref, charges)
        if findings:
            self._verdict.error_type = Reason.STORE_UNAVAILABLE
        self._verdict.findings.add(*findings)
        return first_enforced_deny(findings)

    def _deny_uncounted(self, finding: Finding | None) -> Denial | None:
        if finding is None:
            return None
        message = denials.store_unavailable(finding.policy)
        return self._verdict.deny(finding, denials.UNAVAILABLE, message)
