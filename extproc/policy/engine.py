"""One request's way through the policies, in the order of a request.

Floor 1, pure. `Evaluation` asks the rooms beside it (identity, access, sizes, attempt), which tell the
verdict what they find, and makes the `Decision`. The caller brings the body's reading and the store's
answers.
"""

from __future__ import annotations

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
from extproc.measure.overrides import NO_PRICES, PriceBook
from extproc.model import AIRequest, Identity, RequestHead, TokenEstimate, Trace
from extproc.pb.ai_policy.v1 import facts_pb2
from extproc.policy import access, cel, denials, estimates, facts, sizes
from extproc.policy.access import Ruling
from extproc.policy.attempt import Attempt
from extproc.policy.kinds.identity import Identity as IdentitySpec
from extproc.policy.kinds.identity import Recognition, path_without, recognise
from extproc.policy.metering import Substitution
from extproc.policy.policyset import PolicySet
from extproc.policy.spending import Measure
from extproc.policy.verdict import Verdict

# An exabyte; reading a much longer number takes long, or raises.
_LONGEST_SIZE = 19


class Evaluation:
    """The state of one decision. Call the steps in their order; the first denial ends it.

    check_headers, check_body, charges, then check_limits or store_failed; `refuse` and
    `deadline_passed` may end it anywhere; `decision` sums up. `caller` is given where a test or a record
    knows who calls: no credential is looked for then.
    """

    def __init__(
        self,
        policies: PolicySet,
        *,
        decision_id: str,
        head: RequestHead,
        at_ns: int,
        prices: PriceBook = NO_PRICES,
        trace: Trace = Trace(),  # noqa: B008  a frozen value
        caller: Identity | None = None,
    ) -> None:
        self.consumed_headers: tuple[str, ...] = ()
        self.path_without_credential: str | None = None
        self._policies = policies
        self._prices = prices
        self._id = decision_id
        self._head = head
        self._started_at_ns = at_ns
        self._trace = trace
        self._given_caller = caller
        self._identity = caller or Identity()
        self._withheld: tuple[str, ...] = ()
        self._early = Ruling()
        self._request: AIRequest | None = None
        self._tokens = TokenEstimate()
        # Set by check_body, which the limits come after; CEL reads the facts where they are.
        self._facts: facts_pb2.Facts
        self._activated: object
        self._caps = sizes.Assessment()
        self._attempt: Attempt  # set by charges
        self._substitution: Substitution | None = None
        self._verdict = Verdict(policies, decision_id=decision_id, at_ns=at_ns)

    # --- headers

    def check_headers(self) -> Denial | None:
        """Who is calling, an announced size, and the rules that need no body."""
        return self.check_identity() or self._check_size() or self._check_early_rules()

    @property
    def caller(self) -> Identity:
        """Who calls, once `check_identity` has looked."""
        return self._identity

    def check_identity(self) -> Denial | None:
        """Who is calling; the first step of `check_headers`, alone where nothing else is asked."""
        policy = self._policies.identity
        if policy is None or policy.mode is Mode.DISABLED:
            return None
        found = self._recognised(policy.spec)
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
        self._verdict.findings.add(finding)
        is_denied = found.refused is not None and policy.mode is Mode.ENFORCE
        return self._verdict.deny(finding, status, message) if is_denied else None

    def _recognised(self, spec: IdentitySpec) -> Recognition:
        if self._given_caller is not None:
            return Recognition(caller=self._given_caller)
        return recognise(spec, self._policies.keys, self._head, self._verdict.at_ns)

    def _check_size(self) -> Denial | None:
        announced = self._head.headers.get("content-length", "")
        limit = self._policies.defaults.max_body_bytes
        if not (announced.isascii() and announced.isdigit()):
            return None
        size = int(announced[:_LONGEST_SIZE])
        if size <= limit:
            return None
        message = denials.body_too_large(self._verdict.defaults, size, limit)
        finding = self._verdict.by_default(Effect.DENY, Reason.BODY_TOO_LARGE, message)
        return self._verdict.deny(finding, denials.CONTENT_TOO_LARGE, message)

    def _check_early_rules(self) -> Denial | None:
        rules = self._policies.early_rules
        if not rules:
            return None
        known = facts.build(
            self._head, self._identity, None, self._tokens, self._verdict.at_ns, withheld=self._withheld
        )
        self._early = access.rule_on_head(rules, known)
        self._verdict.findings.asked(rules)
        self._verdict.findings.add(*self._early.findings)
        return self._deny_by_rule(self._early.deny)

    # --- body

    def refuse(self, refused: RequestRefused) -> Denial:
        """The request cannot be understood; what it says is told to the client."""
        finding = self._verdict.by_default(Effect.DENY, Reason(refused.code), refused.message)
        return self._verdict.deny(finding, refused.status, refused.message)

    def check_body(self, request: AIRequest | None, tokens: TokenEstimate, at_ns: int) -> Denial | None:
        """The access rules, now that the request is known; None is one that no format knows."""
        self._request, self._tokens, self._verdict.at_ns = request, tokens, at_ns
        defaults = self._policies.defaults
        if request is None and defaults.unclassified is Effect.DENY:
            message = denials.unclassified(self._verdict.defaults)
            finding = self._verdict.by_default(Effect.DENY, Reason.UNCLASSIFIED, message)
            return self._verdict.deny(finding, denials.FORBIDDEN, message)
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
        self._verdict.findings.asked(self._policies.late_rules)
        self._verdict.findings.replace(ruling.findings)
        return self._deny_by_rule(ruling.deny) or self._pass(ruling) or self._check_caps()

    def _estimates_usd(self, models: tuple[str, ...]) -> dict[str, float]:
        """What the request may cost with each model that has a price, where any expression asks."""
        if self._request is None or not self._policies.needs_cost_estimates:
            return {}
        return estimates.usd(self._request, self._tokens, models, self._prices, self._verdict.at_ns)

    def _deny_by_rule(self, finding: Finding | None) -> Denial | None:
        if finding is None:
            return None
        if finding.outcome is Outcome.ERRORED:
            return self._verdict.deny(finding, denials.FORBIDDEN, denials.failed(finding.policy))
        message = denials.access_denied(finding.policy, finding.evaluated_model, finding.message)
        return self._verdict.deny(finding, denials.FORBIDDEN, message)

    def _pass(self, ruling: Ruling) -> Denial | None:
        """Let pass what the rules grant; what they leave over is for the Defaults to say."""
        verdict = self._verdict
        if ruling.not_granted is None:
            verdict.let_pass(ruling.grant)
            if self._request is None:
                # Never in silence: nobody counted what this request may spend.
                verdict.by_default(Effect.ALLOW, Reason.UNCLASSIFIED, "")
            else:
                verdict.findings.add(Finding(policy=verdict.defaults, outcome=Outcome.NOT_MATCHED))
            return None
        if self._policies.defaults.access is Effect.ALLOW:
            reason = Reason.UNCLASSIFIED if self._request is None else Reason.ALLOWED
            verdict.let_pass(verdict.by_default(Effect.ALLOW, reason, ""))
            return None
        message = denials.access_not_granted(verdict.defaults, ruling.not_granted)
        finding = verdict.by_default(
            Effect.DENY, Reason.ACCESS_NOT_GRANTED, message, model=ruling.not_granted
        )
        return verdict.deny(finding, denials.FORBIDDEN, message)

    # --- sizes

    def _check_caps(self) -> Denial | None:
        """What one request may be at most; what a cap lowers holds for the limits too."""
        caps = self._policies.request_cap_index
        if not caps:
            return None
        candidates = caps.candidates(self._facts)
        self._caps = sizes.assess(candidates, self._activated, self._request, self._tokens)
        self._verdict.findings.asked(caps)
        self._verdict.findings.replace(self._caps.findings)
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
            return self._verdict.deny(finding, denials.FORBIDDEN, denials.failed(finding.policy))
        return self._verdict.deny(finding, denials.CONTENT_TOO_LARGE, finding.message)

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
        self._verdict.findings.replace([finding])
        return self._deny_by_cap(finding)

    # --- another model

    def substitute(self) -> str | None:
        """The model to try again with, where every cap that denies leaves one; None: the denial stands.

        Access rules are asked about that model too: a cap grants nothing.
        """
        found = self._attempt.substitution()
        if found is None or self._request is None:
            return None
        model = found.model.lower()
        about = facts.about_model(self._facts, model, estimated_usd=self._estimates_usd((model,)).get(model))
        activated = cel.activate(about)
        ruling = access.rule_on_request(self._policies.late_rules, about, activated, (model,), self._early)
        is_granted = ruling.not_granted is None or self._policies.defaults.access is Effect.ALLOW
        if ruling.deny is not None or not is_granted:
            return None
        self._substitution = found
        self._attempt.take_back()
        # What the caller asked for stays `request.model`; what limits count is the target.
        self._facts.target.model = about.target.model
        self._facts.cost.CopyFrom(about.cost)
        self._activated = cel.activate(self._facts)
        return found.model

    def _deny_at_cap(self, policy: PolicyRef, refused: RequestRefused) -> Denial:
        self._substitution = None
        said = self._verdict.findings.of(policy)
        denied = next(finding for finding in said if finding.effect is Effect.DENY)
        return self._verdict.deny(denied, refused.status, f"{denied.message} {refused.message}")

    # --- limits

    def charges(self, expected_output_tokens: int | None) -> tuple[Charge, ...] | Denial:
        """What every limit takes; `expected_output_tokens` is the learned output of one choice."""
        request = self._request
        if request is not None and self._substitution is not None:
            # What is settled later is held to the ceiling of the model that answers.
            model = self._substitution.model.lower()
            request, self._tokens = sizes.with_model(request, self._tokens, model)
        measure = Measure(
            activated=self._activated,
            request=request,
            tokens=self._tokens,
            reserve=self._policies.defaults.reserve,
            # Learned of the model that was asked for; nobody looked the other one up.
            expected_output_tokens=expected_output_tokens if self._substitution is None else None,
            prices=self._prices,
            at_ns=self._verdict.at_ns,
        )
        self._attempt = Attempt(self._policies, self._verdict, measure, self._substitution)
        return self._attempt.charge(self._policies.limit_index.candidates(self._facts))

    def check_limits(self, outcomes: tuple[ChargeOutcome, ...]) -> Denial | None:
        """What the store answered, one outcome a charge."""
        return self._attempt.answered(outcomes)

    def store_failed(self) -> Denial | None:
        """Nobody knows what was used: each limit's `onError` says what that means."""
        return self._attempt.unanswered()

    def deadline_passed(self) -> Denial:
        """We took too long; no policy said anything about that."""
        return self._verdict.fail(Reason.DEADLINE_EXCEEDED, denials.DEADLINE)

    def audit_failed(self) -> Denial:
        """The decision could not be put on record, and the folder says that nothing passes then."""
        return self._verdict.fail(Reason.AUDIT_UNAVAILABLE, denials.AUDIT)

    # --- the sum

    def decision(self, at_ns: int) -> Decision:
        """The verdict with everything that led to it."""
        verdict = self._verdict
        found = verdict.found()
        return Decision(
            id=self._id,
            effect=verdict.effect(found.spoken),
            enforced_effect=Effect.DENY if verdict.denial else Effect.ALLOW,
            reason=verdict.reason(found.spoken),
            determining=verdict.determining.policy if verdict.determining else None,
            findings=found.findings,
            spoken=found.spoken,
            revision=self._policies.revision,
            started_at_ns=self._started_at_ns,
            decided_at_ns=at_ns,
            head=facts.without_credentials(self._head, self._withheld),
            trace=self._trace,
            identity=self._identity,
            request=self._request,
            tokens=self._tokens,
            target_model=self._substitution.model.lower() if self._substitution else "",
            outcomes=verdict.outcomes,
            uncounted=verdict.uncounted,
            denial=verdict.denial,
            error_type=verdict.error(found.spoken),
        )


def _models(request: AIRequest | None) -> tuple[str, ...]:
    """Every name the rules are asked about, the request's own first."""
    names = (request.model, *request.models) if request else ()
    return tuple(dict.fromkeys(name for name in names if name)) or ("",)
