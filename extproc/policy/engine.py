"""One request's way through the policies, in the order of a request.

Floor 1, pure. `Evaluation` asks the rooms beside it (identity, access, metering), keeps what they
find, and makes the `Decision`. The caller brings the body's reading and the store's answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from extproc.decision import (
    Charge,
    ChargeOutcome,
    Decision,
    Denial,
    Effect,
    Finding,
    Mode,
    Outcome,
    PolicyRef,
    Reason,
)
from extproc.errors import RequestRefused
from extproc.measure.ceilings import call_ceiling
from extproc.measure.overrides import NO_PRICES, PriceBook
from extproc.model import AIRequest, Identity, RequestHead, TokenEstimate
from extproc.pb.ai_policy.v1 import facts_pb2
from extproc.policy import access, cel, denials, estimates, facts, metering, sizes
from extproc.policy.access import Ruling
from extproc.policy.findings import Findings
from extproc.policy.kinds.identity import path_without, recognise
from extproc.policy.metering import Substitution
from extproc.policy.policyset import PolicySet
from extproc.policy.spending import Measure

# Verdicts that say nothing about the request: `onError` or a deadline made them.
_OURS = frozenset(
    {Reason.POLICY_ERROR, Reason.STORE_UNAVAILABLE, Reason.AUDIT_UNAVAILABLE, Reason.DEADLINE_EXCEEDED}
)
# Allowed, but not as it came; the first that applies.
_QUALIFIED = (Reason.UNCLASSIFIED, Reason.MODEL_SUBSTITUTED, Reason.CLAMPED)
# An exabyte; reading a much longer number takes long, or raises.
_LONGEST_SIZE = 19
# What a client whose request we failed to judge may wait before it tries again.
_OUR_FAULT_RETRY_MS = 1_000


class Evaluation:
    """The state of one decision. Call the steps in their order; the first denial ends it.

    check_headers, check_body, charges, then check_limits or store_failed; `refuse` and
    `deadline_passed` may end it anywhere; `decision` sums up.
    """

    def __init__(
        self,
        policies: PolicySet,
        *,
        decision_id: str,
        head: RequestHead,
        at_ns: int,
        prices: PriceBook = NO_PRICES,
    ) -> None:
        self.consumed_headers: tuple[str, ...] = ()
        self.path_without_credential: str | None = None
        self._policies = policies
        self._prices = prices
        self._id = decision_id
        self._head = head
        self._started_at_ns = self._at_ns = at_ns
        self._identity = Identity()
        self._withheld: tuple[str, ...] = ()
        self._early = Ruling()
        self._request: AIRequest | None = None
        self._tokens = TokenEstimate()
        # Set by check_body, which the limits come after; CEL reads the facts where they are.
        self._facts: facts_pb2.Facts
        self._activated: object
        self._measure: Measure
        self._charges: tuple[Charge, ...] = ()
        self._outcomes: tuple[ChargeOutcome, ...] = ()
        self._uncounted: tuple[Charge, ...] = ()
        self._caps = sizes.Assessment()
        self._substitution: Substitution | None = None
        self._grant: Finding | None = None  # what let the request pass before the limits
        self._findings = Findings(policies.roll)
        self._determining: Finding | None = None
        self._denial: Denial | None = None
        self._error_type = ""

    # --- headers

    def check_headers(self) -> Denial | None:
        """Who is calling, an announced size, and the rules that need no body."""
        return self._check_identity() or self._check_size() or self._check_early_rules()

    def _check_identity(self) -> Denial | None:
        policy = self._policies.identity
        if policy is None or policy.mode is Mode.DISABLED:
            return None
        found = recognise(policy.spec, self._policies.keys, self._head, self._at_ns)
        self._identity = found.caller
        self._withheld = found.consumed_headers
        if found.refused is not Reason.CREDENTIAL_INVALID:
            # An unknown credential may be the provider's own; enforced, it goes nowhere anyway.
            self.consumed_headers = found.consumed_headers
            if found.consumed_query:
                self.path_without_credential = path_without(self._head.path, found.consumed_query)
        status, message = (
            denials.identity(policy.ref, found.refused, policy.spec.wanted) if found.refused else (0, "")
        )
        finding = Finding(
            policy=policy.ref,
            outcome=Outcome.MATCHED,
            mode=policy.mode,
            effect=Effect.DENY if found.refused else Effect.ALLOW,
            reason=found.refused or Reason.ALLOWED,
            message=message,
        )
        self._findings.add(finding)
        is_denied = found.refused is not None and policy.mode is Mode.ENFORCE
        return self._deny(finding, status, message) if is_denied else None

    def _check_size(self) -> Denial | None:
        announced = self._head.headers.get("content-length", "")
        limit = self._policies.defaults.max_body_bytes
        if not (announced.isascii() and announced.isdigit()):
            return None
        size = int(announced[:_LONGEST_SIZE])
        if size <= limit:
            return None
        message = denials.body_too_large(self._defaults, size, limit)
        finding = self._default_finding(Effect.DENY, Reason.BODY_TOO_LARGE, message)
        return self._deny(finding, denials.CONTENT_TOO_LARGE, message)

    def _check_early_rules(self) -> Denial | None:
        rules = self._policies.early_rules
        if not rules:
            return None
        known = facts.build(
            self._head, self._identity, None, self._tokens, self._at_ns, withheld=self._withheld
        )
        self._early = access.rule_on_head(rules, known)
        self._findings.asked(rules)
        self._findings.add(*self._early.findings)
        return self._deny_by_rule(self._early.deny)

    # --- body

    def refuse(self, refused: RequestRefused) -> Denial:
        """The request cannot be understood; what it says is told to the client."""
        finding = self._default_finding(Effect.DENY, Reason(refused.code), refused.message)
        return self._deny(finding, refused.status, refused.message)

    def check_body(self, request: AIRequest | None, tokens: TokenEstimate, at_ns: int) -> Denial | None:
        """The access rules, now that the request is known; None is one that no format knows."""
        self._request, self._tokens, self._at_ns = request, tokens, at_ns
        defaults = self._policies.defaults
        if request is None and defaults.unclassified is Effect.DENY:
            message = denials.unclassified(self._defaults)
            finding = self._default_finding(Effect.DENY, Reason.UNCLASSIFIED, message)
            return self._deny(finding, denials.FORBIDDEN, message)
        models = _models(request)
        estimates_usd = self._estimates_usd(models)
        self._facts = facts.build(
            self._head,
            self._identity,
            request,
            tokens,
            at_ns,
            withheld=self._withheld,
            estimated_usd=estimates_usd.get(models[0]),
        )
        self._activated = cel.activate(self._facts)
        ruling = access.rule_on_request(
            self._policies.late_rules,
            self._facts,
            self._activated,
            models,
            self._early,
            estimates_usd=estimates_usd,
        )
        self._findings.asked(self._policies.late_rules)
        self._findings.replace(ruling.findings)
        return self._deny_by_rule(ruling.deny) or self._pass(ruling) or self._check_caps()

    def _estimates_usd(self, models: tuple[str, ...]) -> dict[str, float]:
        """What the request may cost with each model that has a price, where any expression asks."""
        if self._request is None or not self._policies.needs_cost_estimates:
            return {}
        return estimates.usd(self._request, self._tokens, models, self._prices, self._at_ns)

    def _deny_by_rule(self, finding: Finding | None) -> Denial | None:
        if finding is None:
            return None
        if finding.outcome is Outcome.ERRORED:
            return self._deny(finding, denials.FORBIDDEN, denials.failed(finding.policy))
        message = denials.access_denied(finding.policy, finding.evaluated_model, finding.message)
        return self._deny(finding, denials.FORBIDDEN, message)

    def _pass(self, ruling: Ruling) -> Denial | None:
        """Let pass what the rules grant; what they leave over is for the Defaults to say."""
        if ruling.not_granted is None:
            self._determining = ruling.grant
            if self._request is None:
                # Never in silence: nobody counted what this request may spend.
                self._default_finding(Effect.ALLOW, Reason.UNCLASSIFIED, "")
            else:
                self._findings.add(Finding(policy=self._defaults, outcome=Outcome.NOT_MATCHED))
            return None
        if self._policies.defaults.access is Effect.ALLOW:
            reason = Reason.UNCLASSIFIED if self._request is None else Reason.ALLOWED
            self._determining = self._default_finding(Effect.ALLOW, reason, "")
            return None
        message = denials.access_not_granted(self._defaults, ruling.not_granted)
        finding = self._default_finding(
            Effect.DENY, Reason.ACCESS_NOT_GRANTED, message, model=ruling.not_granted
        )
        return self._deny(finding, denials.FORBIDDEN, message)

    # --- sizes

    def _check_caps(self) -> Denial | None:
        """What one request may be at most; what a cap lowers holds for the limits too."""
        caps = self._policies.request_cap_index
        if not caps:
            return None
        candidates = caps.candidates(self._facts)
        self._caps = sizes.assess(candidates, self._activated, self._request, self._tokens)
        self._findings.asked(caps)
        self._findings.replace(self._caps.findings)
        failed = self._caps.deny
        if failed is not None:
            return self._deny_by_cap(failed)
        ceiling = self._caps.max_output_tokens
        if ceiling is not None and self._request is not None:
            self._request, self._tokens = sizes.clamped(self._request, self._tokens, ceiling)
            self._facts.tokens.max_output = ceiling
            self._activated = cel.activate(self._facts)
        return None

    def _deny_by_cap(self, finding: Finding) -> Denial:
        if finding.outcome is Outcome.ERRORED:
            return self._deny(finding, denials.FORBIDDEN, denials.failed(finding.policy))
        return self._deny(finding, denials.CONTENT_TOO_LARGE, finding.message)

    @property
    def clamped_output_tokens(self) -> int | None:
        """The output ceiling of one choice that the request must be changed to; None: none."""
        return self._caps.max_output_tokens

    def rewriting_refused(self, refused: RequestRefused) -> Denial:
        """The request cannot be changed as a policy wants it: what that policy would prevent stays denied."""
        if self._substitution is not None:
            return self._deny_at_cap(self._substitution.policy, refused)
        if self._caps.clamp is None:
            return self.refuse(refused)
        finding = sizes.not_clamped(self._caps.clamp, refused)
        self._findings.replace([finding])
        return self._deny_by_cap(finding)

    # --- another model

    def substitute(self) -> str | None:
        """The model to try again with, where every cap that denies leaves one; None: the denial stands.

        Access rules are asked about that model too: a cap grants nothing.
        """
        found = metering.substitution(self._policies.limits_by_ref, self._outcomes)
        if found is None or self._request is None or self._substitution is not None:
            return None
        model = found.model.lower()
        about = facts.about_model(self._facts, model, estimated_usd=self._estimates_usd((model,)).get(model))
        activated = cel.activate(about)
        ruling = access.rule_on_request(self._policies.late_rules, about, activated, (model,), self._early)
        is_granted = ruling.not_granted is None or self._policies.defaults.access is Effect.ALLOW
        if ruling.deny is not None or not is_granted:
            return None
        self._substitution = found
        self._denial, self._determining = None, self._grant
        # What the caller asked for stays `request.model`; what limits count is the target.
        self._facts.target.model = about.target.model
        self._facts.cost.CopyFrom(about.cost)
        self._activated = cel.activate(self._facts)
        return found.model

    def _target(self) -> tuple[AIRequest | None, TokenEstimate]:
        """The request as limits see it: with the model that works for it."""
        request, tokens = self._request, self._tokens
        if self._substitution is None or request is None:
            return request, tokens
        model = self._substitution.model.lower()
        if request.max_output_tokens is None:
            ceiling = call_ceiling(request.provider, model, request.operation)
            tokens = replace(tokens, max_output=min(tokens.max_output, ceiling))
        return replace(request, model=model), tokens

    def _deny_at_cap(self, policy: PolicyRef, refused: RequestRefused) -> Denial:
        self._substitution = None
        denied = next(finding for finding in self._findings.of(policy) if finding.effect is Effect.DENY)
        return self._deny(denied, refused.status, f"{denied.message} {refused.message}")

    # --- limits

    def charges(self, expected_output_tokens: int | None) -> tuple[Charge, ...] | Denial:
        """What every limit takes; `expected_output_tokens` is the learned output of one choice."""
        request, tokens = self._target()
        self._measure = Measure(
            activated=self._activated,
            request=request,
            tokens=tokens,
            reserve=self._policies.defaults.reserve,
            # Learned of the model that was asked for; nobody looked the other one up.
            expected_output_tokens=expected_output_tokens if self._substitution is None else None,
            prices=self._prices,
            at_ns=self._at_ns,
        )
        candidates = self._policies.limit_index.candidates(self._facts)
        assessment = metering.assess(candidates, self._measure)
        if self._substitution is not None:
            # The second try may concern other limits than the first.
            self._findings.discard(self._policies.limits_by_ref)
        self._findings.replace(assessment.findings)
        self._grant = self._determining
        failed = assessment.deny
        if failed is not None:
            self._findings.asked(self._policies.limit_index)
            self._findings.replace(metering.not_run(self._policies.limits_by_ref, assessment.charges))
            return self._deny(failed, denials.FORBIDDEN, denials.failed(failed.policy, failed.message))
        self._charges = assessment.charges
        return self._charges

    def check_limits(self, outcomes: tuple[ChargeOutcome, ...]) -> Denial | None:
        """What the store answered, one outcome a charge; what was not counted is no outcome of ours."""
        self._outcomes = tuple(outcome for outcome in outcomes if not outcome.unavailable)
        self._uncounted = ()
        self._findings.asked(self._policies.limit_index)
        findings = metering.read(self._policies.limits_by_ref, self._outcomes, self._measure)
        if self._substitution is not None:
            findings = metering.substituted(findings, self._substitution)
        self._findings.replace(findings)
        uncounted = self._without_counter(outcome.charge for outcome in outcomes if outcome.unavailable)
        answering = metering.answering(self._outcomes)
        if answering is None:
            return self._deny_uncounted(uncounted)
        finding = next(f for f in findings if f.policy == answering.charge.policy)
        never_fits = answering.wait_us is None
        status = denials.CONTENT_TOO_LARGE if never_fits else denials.TOO_MANY_REQUESTS
        return self._deny(finding, status, finding.message)

    def store_failed(self) -> Denial | None:
        """Nobody knows what was used: each limit's `onError` says what that means."""
        self._outcomes, self._uncounted = (), self._charges
        self._findings.asked(self._policies.limit_index)
        return self._deny_uncounted(self._without_counter(self._charges))

    def _without_counter(self, charges: Iterable[Charge]) -> Finding | None:
        """Keep what `onError` says of each limit without its counter; the finding that denies."""
        findings = metering.without_store(self._policies.limits_by_ref, charges)
        if findings:
            self._error_type = Reason.STORE_UNAVAILABLE
        self._findings.add(*findings)
        return metering.first_enforced_deny(findings)

    def _deny_uncounted(self, finding: Finding | None) -> Denial | None:
        if finding is None:
            return None
        return self._deny(finding, denials.UNAVAILABLE, denials.store_unavailable(finding.policy))

    def deadline_passed(self) -> Denial:
        """We took too long; no policy said anything about that."""
        return self._fail(Reason.DEADLINE_EXCEEDED, denials.DEADLINE)

    def audit_failed(self) -> Denial:
        """The decision could not be put on record, and the folder says that nothing passes then."""
        return self._fail(Reason.AUDIT_UNAVAILABLE, denials.AUDIT)

    def _fail(self, reason: Reason, message: str) -> Denial:
        denial = Denial(
            status=denials.UNAVAILABLE,
            reason=reason,
            message=message,
            decision_id=self._id,
            retry_after_ms=_OUR_FAULT_RETRY_MS,
            at_ns=self._at_ns,
        )
        return self._end(denial, None)

    # --- the sum

    def decision(self, at_ns: int) -> Decision:
        """The verdict with everything that led to it."""
        found = self._findings.all(self._determining)
        denial = self._denial
        reason = denial.reason if denial else self._allowed_reason(found.spoken)
        says_deny = any(finding.would_deny for finding in found.spoken) or (
            denial is not None and reason not in _OURS
        )
        return Decision(
            id=self._id,
            effect=Effect.DENY if says_deny else Effect.ALLOW,
            enforced_effect=Effect.DENY if denial else Effect.ALLOW,
            reason=reason,
            determining=self._determining.policy if self._determining else None,
            findings=found.findings,
            spoken=found.spoken,
            revision=self._policies.revision,
            started_at_ns=self._started_at_ns,
            decided_at_ns=at_ns,
            head=facts.without_credentials(self._head, self._withheld),
            identity=self._identity,
            request=self._request,
            tokens=self._tokens,
            target_model=self._substitution.model.lower() if self._substitution else "",
            outcomes=self._outcomes,
            uncounted=self._uncounted,
            denial=denial,
            error_type=self._error_of(found.spoken, reason),
        )

    @staticmethod
    def _allowed_reason(found: tuple[Finding, ...]) -> Reason:
        reasons = {finding.reason for finding in found if finding.mode is Mode.ENFORCE}
        return next((reason for reason in _QUALIFIED if reason in reasons), Reason.ALLOWED)

    def _error_of(self, found: tuple[Finding, ...], reason: Reason) -> str:
        if reason in _OURS:
            return str(reason)
        has_errors = any(finding.outcome is Outcome.ERRORED for finding in found)
        return str(self._error_type or (Reason.POLICY_ERROR if has_errors else ""))

    @property
    def _defaults(self) -> PolicyRef:
        return self._policies.defaults_object.ref

    def _default_finding(self, effect: Effect, reason: Reason, message: str, *, model: str = "") -> Finding:
        finding = Finding(
            policy=self._defaults,
            outcome=Outcome.MATCHED,
            effect=effect,
            reason=reason,
            message=message,
            evaluated_model=model,
        )
        self._findings.replace([finding])
        return finding

    def _deny(self, finding: Finding, status: int, message: str) -> Denial:
        reason = finding.reason or Reason.POLICY_ERROR
        retry_after_ms = _OUR_FAULT_RETRY_MS if status == denials.UNAVAILABLE else None
        return self._end(
            Denial(
                status=status,
                reason=reason,
                message=message,
                decision_id=self._id,
                retry_after_ms=finding.limit.wait_ms if finding.limit else retry_after_ms,
                limit=finding.limit,
                at_ns=self._at_ns,
            ),
            finding,
        )

    def _end(self, denial: Denial, finding: Finding | None) -> Denial:
        self._denial, self._determining = denial, finding
        return denial


def _models(request: AIRequest | None) -> tuple[str, ...]:
    """Every name the rules are asked about, the request's own first."""
    names = (request.model, *request.models) if request else ()
    return tuple(dict.fromkeys(name for name in names if name)) or ("",)
