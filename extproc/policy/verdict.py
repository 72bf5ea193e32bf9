"""What was said of one request so far, and the denial that ends it.

Floor 1, pure. Who says it is `engine`'s and `attempt`'s; this is where they say it.
"""

from __future__ import annotations

from extproc.decision import Charge, ChargeOutcome, Denial, Effect, Finding, Mode, Outcome, Reason
from extproc.policy import denials
from extproc.policy.findings import Findings, Found
from extproc.policy.policyset import PolicySet

# They say nothing about the request: `onError` or a deadline made them.
_OURS = frozenset(
    {Reason.POLICY_ERROR, Reason.STORE_UNAVAILABLE, Reason.AUDIT_UNAVAILABLE, Reason.DEADLINE_EXCEEDED}
)
# Allowed, but not as it came; the first that applies.
_QUALIFIED = (Reason.UNCLASSIFIED, Reason.MODEL_SUBSTITUTED, Reason.CLAMPED)
# What a client whose request we failed to judge may wait before it tries again.
_OUR_FAULT_RETRY_MS = 1_000


class Verdict:
    """The findings, which of them decided, the last denial, and what counters answered."""

    def __init__(self, policies: PolicySet, *, decision_id: str, at_ns: int) -> None:
        self.findings = Findings(policies.roll)
        self.denial: Denial | None = None
        self.determining: Finding | None = None
        self.outcomes: tuple[ChargeOutcome, ...] = ()
        self.uncounted: tuple[Charge, ...] = ()  # they may have been taken: nobody answered
        self.error_type = ""
        self.at_ns = at_ns  # of whatever is judged now
        self.defaults = policies.defaults_object.ref
        self._decision_id = decision_id

    def by_default(self, effect: Effect, reason: Reason, message: str, *, model: str = "") -> Finding:
        """What the folder's Defaults say where no other policy does."""
        finding = Finding(
            policy=self.defaults,
            outcome=Outcome.MATCHED,
            effect=effect,
            reason=reason,
            message=message,
            evaluated_model=model,
        )
        self.findings.replace([finding])
        return finding

    def deny(self, finding: Finding, status: int, message: str) -> Denial:
        """Deny for what this finding says."""
        ours_ms = _OUR_FAULT_RETRY_MS if status == denials.UNAVAILABLE else None
        denial = Denial(
            status=status,
            reason=finding.reason or Reason.POLICY_ERROR,
            message=message,
            decision_id=self._decision_id,
            policy=finding.policy,
            retry_after_ms=finding.limit.wait_ms if finding.limit else ours_ms,
            limit=finding.limit,
            at_ns=self.at_ns,
        )
        return self._end(denial, finding)

    def fail(self, reason: Reason, message: str) -> Denial:
        """Deny because we could not do our part; no policy says so."""
        denial = Denial(
            status=denials.UNAVAILABLE,
            reason=reason,
            message=message,
            decision_id=self._decision_id,
            retry_after_ms=_OUR_FAULT_RETRY_MS,
            at_ns=self.at_ns,
        )
        return self._end(denial, None)

    def let_pass(self, grant: Finding | None) -> None:
        """Nothing denies the request; this is what grants it."""
        self.denial, self.determining = None, grant

    def _end(self, denial: Denial, finding: Finding | None) -> Denial:
        self.denial, self.determining = denial, finding
        return denial

    # --- the sum

    def found(self) -> Found:
        """Every finding, the one that decided marked."""
        return self.findings.all(self.determining)

    def reason(self, spoken: tuple[Finding, ...]) -> Reason:
        """Why it was denied, or how it was allowed."""
        if self.denial is not None:
            return self.denial.reason
        reasons = {finding.reason for finding in spoken if finding.mode is Mode.ENFORCE}
        return next((reason for reason in _QUALIFIED if reason in reasons), Reason.ALLOWED)

    def effect(self, spoken: tuple[Finding, ...]) -> Effect:
        """What the policies say of the request, shadow ones too."""
        is_denied = self.denial is not None and self.denial.reason not in _OURS
        return Effect.DENY if is_denied or any(finding.would_deny for finding in spoken) else Effect.ALLOW

    def error(self, spoken: tuple[Finding, ...]) -> str:
        """What went wrong on our side, in a word; empty: nothing."""
        reason = self.reason(spoken)
        if reason in _OURS:
            return str(reason)
        has_errors = any(finding.outcome is Outcome.ERRORED for finding in spoken)
        return str(self.error_type or (Reason.POLICY_ERROR if has_errors else ""))
