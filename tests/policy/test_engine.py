import asyncio
import hashlib
from dataclasses import dataclass, field

import pytest

from extproc.decision import Charge, ChargeOutcome, Decision, Denial, Effect, Finding, Mode, Outcome, Reason
from extproc.errors import RequestRefused
from extproc.measure.overrides import NO_PRICES, PriceBook
from extproc.measure.prices import Prices
from extproc.model import AIRequest, Identity, RequestHead, TokenEstimate
from extproc.policy.engine import Evaluation
from extproc.policy.policyset import PolicySet
from extproc.store.memory import MemoryStore
from tests.policy.conftest import Load

AT_NS = 1_800_000_000 * 10**9
KEY = f"sha256: {hashlib.sha256(b'sk-ann').hexdigest()}"

CALLERS = ("Identity", "callers", "sources: [{apiKey: {}}]")
ANN = ("ApiKey", "ann", f"{{{KEY}, user: ann, team: red}}")
ALLOW = ("AccessRule", "everybody", "effect: allow")
OPEN = ("Defaults", "main", "access: allow")


@dataclass
class Asked:
    """One request, with what is usual left out."""

    model: str = "m"
    models: tuple[str, ...] = ()
    operation: str = "chat"
    declared: int | None = None
    choices: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    path: str = "/v1/chat/completions"
    tokens: TokenEstimate = field(default_factory=lambda: TokenEstimate(input=100, max_output=1000))
    is_classified: bool = True
    expected: int | None = None
    provider: str = "openai"

    @property
    def head(self) -> RequestHead:
        return RequestHead(method="POST", host="h", path=self.path, headers=self.headers)

    @property
    def request(self) -> AIRequest | None:
        if not self.is_classified:
            return None
        return AIRequest(
            api="openai_chat", provider=self.provider, operation=self.operation, model=self.model,
            models=self.models or (self.model,), choices=self.choices, max_output_tokens=self.declared,
        )  # fmt: skip


class Gateway:
    """Runs whole evaluations against one store."""

    def __init__(self, policies: PolicySet, prices: PriceBook = NO_PRICES) -> None:
        self.policies = policies
        self.prices = prices
        self.store = MemoryStore()
        self.count = 0

    def start(self, asked: Asked) -> Evaluation:
        self.count += 1
        return Evaluation(
            self.policies, decision_id=f"d{self.count}", head=asked.head, at_ns=AT_NS, prices=self.prices
        )

    def ask(self, asked: Asked | None = None) -> Decision:
        asked = asked or Asked()
        evaluation = self.start(asked)
        self._walk(evaluation, asked)
        return evaluation.decision(AT_NS + 1)

    def _walk(self, evaluation: Evaluation, asked: Asked) -> Denial | None:
        denial = evaluation.check_headers() or evaluation.check_body(asked.request, asked.tokens, AT_NS)
        if denial is not None:
            return denial
        charges = evaluation.charges(asked.expected)
        if isinstance(charges, Denial):
            return charges
        return evaluation.check_limits(self.reserve(charges))

    def reserve(self, charges: tuple[Charge, ...]) -> tuple[ChargeOutcome, ...]:
        return asyncio.run(self.store.reserve(f"d{self.count}", charges, AT_NS // 1000))


def finding(decision: Decision, policy: str) -> Finding:
    (found,) = [item for item in decision.findings if str(item.policy) == policy]
    return found


def outcomes(decision: Decision) -> dict[str, tuple[Outcome, Effect | None]]:
    return {str(item.policy): (item.outcome, item.effect) for item in decision.findings}


def denied(decision: Decision) -> Denial:
    assert decision.denial is not None
    assert decision.enforced_effect is Effect.DENY
    return decision.denial


# --- what every decision tells


def test_an_allowed_request_has_a_finding_of_every_policy(load: Load) -> None:
    gateway = Gateway(
        load(
            CALLERS, ANN, ALLOW,
            ("AccessRule", "no-x", 'effect: deny\nmatch: request.model == "x"'),
            ("AccessRule", "off", "effect: deny\nmode: disabled"),
            ("RateLimit", "mine", "limit: {requests: 5, per: 1m}\nkey: [identity.user]"),
        )
    )  # fmt: skip
    decision = gateway.ask(Asked(headers={"x-api-key": "sk-ann"}))

    assert outcomes(decision) == {
        "Identity/callers": (Outcome.MATCHED, Effect.ALLOW),
        "AccessRule/everybody": (Outcome.MATCHED, Effect.ALLOW),
        "AccessRule/no-x": (Outcome.NOT_MATCHED, None),
        "AccessRule/off": (Outcome.NOT_RUN, None),
        "RateLimit/mine": (Outcome.MATCHED, Effect.ALLOW),
        "Defaults/main": (Outcome.NOT_MATCHED, None),
    }
    assert (decision.effect, decision.enforced_effect, decision.reason) == ("allow", "allow", Reason.ALLOWED)
    assert str(decision.determining) == "AccessRule/everybody"
    assert [str(item.policy) for item in decision.findings if item.determining] == ["AccessRule/everybody"]
    assert decision.identity.user == "ann"
    assert decision.revision == gateway.policies.revision
    assert (decision.started_at_ns, decision.decided_at_ns) == (AT_NS, AT_NS + 1)
    state = finding(decision, "RateLimit/mine").limit
    assert state is not None
    assert (state.used, state.reserved, state.remaining, state.key) == (0, 1, 4, ("ann",))


def test_what_comes_after_a_denial_is_not_run(load: Load) -> None:
    gateway = Gateway(load(CALLERS, ALLOW, ("RateLimit", "all", "limit: {requests: 5, per: 1m}")))
    decision = gateway.ask()

    assert denied(decision).status == 401
    assert outcomes(decision) == {
        "Identity/callers": (Outcome.MATCHED, Effect.DENY),
        "AccessRule/everybody": (Outcome.NOT_RUN, None),
        "RateLimit/all": (Outcome.NOT_RUN, None),
        "Defaults/main": (Outcome.NOT_RUN, None),
    }
    assert str(decision.determining) == "Identity/callers"


def test_no_credential_is_in_a_decision_beyond_its_head(load: Load) -> None:
    for value in ("sk-ann", "sk-wrong"):
        decision = Gateway(load(CALLERS, ANN, ALLOW)).ask(Asked(headers={"x-api-key": value}))

        assert value not in str((decision.findings, decision.denial, decision.identity, decision.attributes))


# --- headers


def test_a_credential_is_told_to_be_removed(load: Load) -> None:
    gateway = Gateway(
        load(("Identity", "callers", "sources: [{apiKey: {}}, {apiKey: {query: key}}]"), ANN, ALLOW)
    )
    by_header = gateway.start(Asked(headers={"authorization": "Bearer sk-ann"}))
    by_query = gateway.start(Asked(path="/v1/x?a=1&key=sk-ann"))

    assert (by_header.check_headers(), by_query.check_headers()) == (None, None)
    assert (by_header.consumed_headers, by_header.path_without_credential) == (("authorization",), None)
    assert (by_query.consumed_headers, by_query.path_without_credential) == ((), "/v1/x?a=1")


def test_a_shadow_identity_lets_everybody_pass_and_says_whom_it_would_not(load: Load) -> None:
    shadow = ("Identity", "callers", "sources: [{apiKey: {}}]\nmode: shadow")
    evaluation = Gateway(load(shadow, ANN, ALLOW)).start(Asked(headers={"x-api-key": "sk-provider"}))

    assert evaluation.check_headers() is None
    assert evaluation.consumed_headers == ()
    assert evaluation.check_body(Asked().request, TokenEstimate(), AT_NS) is None
    decision = evaluation.decision(AT_NS)
    assert decision.identity == Identity()
    assert (decision.effect, decision.enforced_effect, decision.would_deny) == ("deny", "allow", True)
    assert finding(decision, "Identity/callers").would_deny


def test_a_disabled_identity_recognises_nobody(load: Load) -> None:
    decision = Gateway(load(("Identity", "i", "sources: [{apiKey: {}}]\nmode: disabled"), ANN, ALLOW)).ask()

    assert decision.enforced_effect is Effect.ALLOW
    assert finding(decision, "Identity/i").outcome is Outcome.NOT_RUN


def test_without_an_identity_everybody_is_anonymous(load: Load) -> None:
    decision = Gateway(load(ALLOW)).ask()

    assert (decision.enforced_effect, decision.identity) == (Effect.ALLOW, Identity())


@pytest.mark.parametrize(
    ("length", "status"),
    [("1000", None), ("1001", 413), ("9" * 5000, 413), ("", None), ("x", None), ("-5", None), ("٣٣٣٣", None)],
)
def test_an_announced_size_over_the_limit_is_denied_before_the_body(
    load: Load, length: str, status: int | None
) -> None:
    policies = load(ALLOW, ("Defaults", "main", "maxBodyBytes: 1000"))
    denial = Gateway(policies).start(Asked(headers={"content-length": length})).check_headers()

    assert (denial.status if denial else None) == status
    if denial:
        assert denial.reason is Reason.BODY_TOO_LARGE
        assert denial.message.endswith("bytes; Defaults/main accepts at most 1000.")


def test_a_rule_that_needs_only_headers_denies_before_the_body(load: Load) -> None:
    rule = ("AccessRule", "no-red", 'effect: deny\nmatch: identity.team == "red"\nmessage: Not today.')
    evaluation = Gateway(load(CALLERS, ANN, ALLOW, rule)).start(Asked(headers={"x-api-key": "sk-ann"}))

    denial = evaluation.check_headers()

    assert denial is not None
    assert (denial.status, denial.message) == (403, "AccessRule/no-red denies this request: Not today.")


def test_a_rule_that_needs_the_request_waits_for_it(load: Load) -> None:
    rule = ("AccessRule", "no-m", 'effect: deny\nmatch: request.model == "m" || identity.team == ""')
    evaluation = Gateway(load(ALLOW, rule)).start(Asked())

    assert evaluation.check_headers() is None
    assert evaluation.check_body(Asked().request, TokenEstimate(), AT_NS) is not None


def test_a_consumed_header_is_not_among_the_facts(load: Load) -> None:
    callers = ("Identity", "callers", "sources: [{apiKey: {header: x-gateway-key}}]")
    rule = ("AccessRule", "peek", "effect: deny\nmatch: \"'x-gateway-key' in request.headers\"")
    late = (
        "AccessRule",
        "peek-late",
        'effect: deny\nmatch: request.model != "" && "x-gateway-key" in request.headers',
    )
    decision = Gateway(load(callers, ANN, ALLOW, rule, late)).ask(Asked(headers={"x-gateway-key": "sk-ann"}))

    assert decision.enforced_effect is Effect.ALLOW


# --- access


def test_a_deny_beats_every_allow(load: Load) -> None:
    rule = ("AccessRule", "no-m", 'effect: deny\nmatch: request.model == "m"\nmessage: Use n.')
    denial = denied(Gateway(load(ALLOW, rule)).ask())

    assert (denial.status, denial.reason) == (403, Reason.ACCESS_DENIED)
    assert denial.message == 'AccessRule/no-m denies this request for model "m": Use n.'
    assert denial.retry_after_ms is None


def test_who_is_not_allowed_is_denied_by_the_defaults(load: Load) -> None:
    rule = ("AccessRule", "only-n", 'effect: allow\nmatch: request.model == "n"')
    decision = Gateway(load(rule)).ask()

    assert denied(decision).reason is Reason.ACCESS_NOT_GRANTED
    assert 'model "m"' in denied(decision).message
    assert str(decision.determining) == "Defaults/main"
    assert outcomes(decision)["AccessRule/only-n"] == (Outcome.NOT_MATCHED, None)


def test_the_defaults_may_allow_what_no_rule_speaks_of(load: Load) -> None:
    decision = Gateway(load(OPEN)).ask()

    assert (decision.enforced_effect, str(decision.determining)) == (Effect.ALLOW, "Defaults/main")


def test_the_first_name_answers_where_two_rules_deny(load: Load) -> None:
    rules = [("AccessRule", name, f"effect: deny\nmatch: request.model != '{name}'") for name in ("b", "a")]
    decision = Gateway(load(*rules)).ask()

    assert str(decision.determining) == "AccessRule/a"
    assert outcomes(decision)["AccessRule/b"] == (Outcome.MATCHED, Effect.DENY)


def test_every_model_a_request_names_must_be_allowed(load: Load) -> None:
    policies = load(("AccessRule", "cheap", 'effect: allow\nmatch: request.model.startsWith("mini")'))

    assert Gateway(policies).ask(Asked("mini-a", ("mini-a", "mini-b"))).enforced_effect is Effect.ALLOW
    decision = Gateway(policies).ask(Asked("mini-a", ("mini-a", "dear", "dearer")))
    assert 'model "dear"' in denied(decision).message
    assert finding(decision, "Defaults/main").evaluated_model == "dear"


def test_the_rule_that_let_the_requests_own_model_pass_determines(load: Load) -> None:
    rules = [
        ("AccessRule", f"only-{name}", f'effect: allow\nmatch: request.model == "{name}"') for name in "nm"
    ]
    decision = Gateway(load(*rules)).ask(Asked("m", ("m", "n")))

    assert str(decision.determining) == "AccessRule/only-m"


def test_a_model_that_is_denied_is_denied_wherever_it_is_named(load: Load) -> None:
    rule = ("AccessRule", "no-dear", 'effect: deny\nmatch: target.model == "dear"')
    decision = Gateway(load(ALLOW, rule)).ask(Asked("mini", ("mini", "dear")))

    assert [item.evaluated_model for item in decision.findings if item.determining] == ["dear"]


def test_a_thousand_models_make_few_findings(load: Load) -> None:
    rule = ("AccessRule", "no-m7", 'effect: deny\nmatch: request.model == "m7"')
    decision = Gateway(load(ALLOW, rule)).ask(Asked("m0", tuple(f"m{n}" for n in range(1000))))

    assert denied(decision).reason is Reason.ACCESS_DENIED
    assert len(decision.findings) < 6


def test_a_shadow_rule_denies_nobody_and_grants_nothing(load: Load) -> None:
    deny = ("AccessRule", "try-deny", "effect: deny\nmode: shadow")
    allowed = Gateway(load(ALLOW, deny)).ask()
    only_shadow = Gateway(load(("AccessRule", "try-allow", "effect: allow\nmode: shadow"))).ask()

    assert (allowed.effect, allowed.enforced_effect, allowed.would_deny) == ("deny", "allow", True)
    assert allowed.reason is Reason.ALLOWED
    assert denied(only_shadow).reason is Reason.ACCESS_NOT_GRANTED


FAILING = 'match: request.headers["x-none"] == "a"'
FAILING_LATE = 'match: request.model + request.headers["x-none"] == "a"'


@pytest.mark.parametrize("match", [FAILING, FAILING_LATE])
@pytest.mark.parametrize("effect", ["allow", "deny"])
def test_a_rule_that_fails_denies_unless_it_says_otherwise(load: Load, match: str, effect: str) -> None:
    strict = Gateway(load(ALLOW, ("AccessRule", "broken", f"effect: {effect}\n{match}"))).ask()
    lax = Gateway(load(ALLOW, ("AccessRule", "broken", f"effect: {effect}\n{match}\nonError: allow"))).ask()

    assert (denied(strict).status, denied(strict).reason) == (403, Reason.POLICY_ERROR)
    assert (strict.effect, strict.enforced_effect) == ("allow", "deny")
    assert lax.enforced_effect is Effect.ALLOW
    assert outcomes(lax)["AccessRule/broken"] == (Outcome.ERRORED, None)
    assert "NOT_FOUND" in finding(lax, "AccessRule/broken").message
    assert strict.error_type == lax.error_type == "policy_error"


def test_a_failed_allow_rule_never_grants(load: Load) -> None:
    rule = ("AccessRule", "broken", f"effect: allow\n{FAILING_LATE}\nonError: allow")

    assert denied(Gateway(load(rule)).ask()).reason is Reason.ACCESS_NOT_GRANTED


def test_a_shadow_rule_that_fails_denies_nobody(load: Load) -> None:
    decision = Gateway(load(ALLOW, ("AccessRule", "broken", f"effect: deny\n{FAILING}\nmode: shadow"))).ask()

    assert (decision.enforced_effect, decision.would_deny) == (Effect.ALLOW, True)


# --- what is no request that we know


def test_an_unclassified_request_is_denied_unless_the_defaults_allow_it(load: Load) -> None:
    asked = Asked(is_classified=False)
    strict = Gateway(load(ALLOW)).ask(asked)
    lax = Gateway(load(ALLOW, ("Defaults", "main", "unclassified: allow"))).ask(asked)

    assert (denied(strict).status, denied(strict).reason) == (403, Reason.UNCLASSIFIED)
    assert (lax.enforced_effect, lax.request, lax.reason) == (Effect.ALLOW, None, Reason.UNCLASSIFIED)


def test_access_rules_speak_of_unclassified_requests_too(load: Load) -> None:
    defaults = ("Defaults", "main", "unclassified: allow")
    rule = ("AccessRule", "known", 'effect: allow\nmatch: request.api != ""')

    assert denied(Gateway(load(rule, defaults)).ask(Asked(is_classified=False))).status == 403


def test_a_refusal_is_told_as_it_was_given(load: Load) -> None:
    evaluation = Gateway(load(ALLOW)).start(Asked())
    evaluation.check_headers()

    denial = evaluation.refuse(RequestRefused(status=400, code="body_malformed", message="At /model: no."))

    assert (denial.status, denial.reason, denial.message) == (400, Reason.BODY_MALFORMED, "At /model: no.")
    decision = evaluation.decision(AT_NS)
    assert str(decision.determining) == "Defaults/main"
    assert finding(decision, "Defaults/main").determining


# --- limits


def test_a_full_limit_is_a_429_that_says_when(load: Load) -> None:
    gateway = Gateway(load(OPEN, ("RateLimit", "few", "limit: {requests: 2, per: 1m}")))
    gateway.ask()
    gateway.ask()
    denial = denied(gateway.ask())

    assert (denial.status, denial.reason, denial.retry_after_ms) == (429, Reason.RATE_LIMITED, 30_000)
    assert denial.message == (
        "Rate limit reached: RateLimit/few on requests. Limit 2 per 1m, Used 2, Requested 1. "
        "Please try again in 30s."
    )
    assert denial.limit is not None
    assert (denial.limit.used, denial.limit.remaining, denial.limit.wait_ms) == (2, 0, 30_000)
    assert denial.at_ns == AT_NS


def test_the_longest_wait_answers_and_names_break_ties(load: Load) -> None:
    limits = [
        ("RateLimit", "short", "limit: {requests: 1, per: 1m}"),
        ("RateLimit", "z-long", "limit: {requests: 1, per: 1h}"),
        ("RateLimit", "long", "limit: {requests: 1, per: 1h}"),
        ("RateLimit", "longest-in-shadow", "limit: {requests: 1, per: 1d}\nmode: shadow"),
    ]
    gateway = Gateway(load(OPEN, *limits))
    gateway.ask()
    decision = gateway.ask()

    assert str(decision.determining) == "RateLimit/long"
    assert denied(decision).retry_after_ms == 3_600_000
    assert outcomes(decision)["RateLimit/short"] == (Outcome.MATCHED, Effect.DENY)
    assert finding(decision, "RateLimit/longest-in-shadow").would_deny


def test_what_never_fits_is_a_413_whatever_else_is_full(load: Load) -> None:
    limits = [
        ("RateLimit", "full", "limit: {requests: 1, per: 31d}"),
        ("RateLimit", "small", "limit: {tokens: 500, per: 1m}"),
    ]
    gateway = Gateway(load(OPEN, *limits))
    gateway.ask(Asked(declared=10, tokens=TokenEstimate(input=100, max_output=10)))
    denial = denied(gateway.ask(Asked(declared=1000)))

    assert (denial.status, denial.reason, denial.retry_after_ms) == (413, Reason.REQUEST_EXCEEDS_LIMIT, None)
    assert denial.message == (
        "This request needs 1100 tokens, and RateLimit/small never holds more than 500. "
        "Trying again does not help; an output limit (max_tokens) of at most 400 would."
    )


def test_a_denied_request_charges_nobody(load: Load) -> None:
    gateway = Gateway(
        load(
            OPEN,
            ("RateLimit", "full", "limit: {requests: 1, per: 1h}"),
            ("RateLimit", "other", "limit: {tokens: 5000, per: 1h}"),
            ("RateLimit", "trial", "limit: {tokens: 5000, per: 1h}\nmode: shadow"),
        )
    )
    gateway.ask()
    first_denied = gateway.ask()
    decision = gateway.ask()

    for name in ("RateLimit/other", "RateLimit/trial"):
        first, second = finding(first_denied, name).limit, finding(decision, name).limit
        assert first is not None
        assert second is not None
        assert (first.reserved, second.used) == (0, first.used)


def test_a_shadow_limit_would_deny_and_lets_pass(load: Load) -> None:
    gateway = Gateway(load(OPEN, ("RateLimit", "trial", "limit: {requests: 1, per: 1h}\nmode: shadow")))
    gateway.ask()
    decision = gateway.ask()

    assert (decision.effect, decision.enforced_effect, decision.would_deny) == ("deny", "allow", True)
    assert finding(decision, "RateLimit/trial").reason is Reason.RATE_LIMITED


def test_a_promoted_limit_keeps_what_it_counted_in_shadow(load: Load) -> None:
    gateway = Gateway(load(OPEN, ("RateLimit", "trial", "limit: {requests: 1, per: 1h}\nmode: shadow")))
    gateway.ask()
    gateway.policies = load(OPEN, ("RateLimit", "trial", "limit: {requests: 1, per: 1h}"))

    assert denied(gateway.ask()).status == 429


def test_a_limit_that_does_not_match_charges_nothing(load: Load) -> None:
    policies = load(OPEN, ("RateLimit", "n", 'limit: {requests: 1, per: 1h}\nmatch: request.model == "n"'))
    decision = Gateway(policies).ask()

    assert decision.outcomes == ()
    assert outcomes(decision)["RateLimit/n"] == (Outcome.NOT_MATCHED, None)


def test_a_control_call_costs_a_request_and_no_tokens(load: Load) -> None:
    limits = [
        ("RateLimit", "r", "limit: {requests: 5, per: 1h}"),
        ("RateLimit", "t", "limit: {tokens: 5, per: 1h}"),
    ]
    decision = Gateway(load(OPEN, *limits)).ask(Asked(operation="control"))

    assert [(item.charge.unit, item.reserved) for item in decision.outcomes] == [("requests", 1)]
    assert outcomes(decision)["RateLimit/t"] == (Outcome.MATCHED, Effect.ALLOW)


def test_the_learned_output_is_reserved_unless_the_folder_says_declared(load: Load) -> None:
    def reserved(*objects: tuple[str, str, str]) -> int:
        (outcome,) = Gateway(load(*objects)).ask(Asked(declared=1000, expected=40)).outcomes
        return outcome.reserved

    limit = "limit: {tokens: 5000, per: 1h}"
    assert reserved(OPEN, ("RateLimit", "t", limit)) == 140
    assert reserved(OPEN, ("RateLimit", "t", f"{limit}\nreserve: declared")) == 1100
    strict = ("Defaults", "main", "access: allow\nreserve: declared")
    assert reserved(strict, ("RateLimit", "t", limit)) == 1100
    assert reserved(strict, ("RateLimit", "t", f"{limit}\nreserve: expected")) == 140


@pytest.mark.parametrize("part", ["match: identity.labels['x'] == 'a'", "key: ['identity.labels[\"x\"]']"])
def test_a_limit_that_fails_lets_pass_unless_it_says_otherwise(load: Load, part: str) -> None:
    limit = f"limit: {{requests: 5, per: 1h}}\n{part}"
    lax = Gateway(load(OPEN, ("RateLimit", "broken", limit))).ask()
    strict = Gateway(load(OPEN, ("RateLimit", "broken", f"{limit}\nonError: deny"))).ask()
    shadow = Gateway(load(OPEN, ("RateLimit", "broken", f"{limit}\nonError: deny\nmode: shadow"))).ask()

    assert (lax.enforced_effect, lax.outcomes) == (Effect.ALLOW, ())
    assert outcomes(lax)["RateLimit/broken"] == (Outcome.ERRORED, None)
    assert (denied(strict).status, denied(strict).reason) == (403, Reason.POLICY_ERROR)
    assert (shadow.enforced_effect, shadow.would_deny) == (Effect.ALLOW, True)


# --- what is our own fault


def charged(load: Load, *limits: tuple[str, str, str]) -> Evaluation:
    evaluation = Gateway(load(OPEN, *limits)).start(Asked())
    evaluation.check_headers()
    evaluation.check_body(Asked().request, TokenEstimate(input=1), AT_NS)
    assert not isinstance(evaluation.charges(None), Denial)
    return evaluation


LAX = ("RateLimit", "lax", "limit: {requests: 5, per: 1h}")
STRICT = ("RateLimit", "strict", "limit: {requests: 5, per: 1h}\nonError: deny")
TRIAL = ("RateLimit", "trial", "limit: {requests: 5, per: 1h}\nonError: deny\nmode: shadow")


def test_without_a_store_each_limit_says_what_that_means(load: Load) -> None:
    lax = charged(load, LAX, TRIAL)
    strict = charged(load, LAX, STRICT)

    assert lax.store_failed() is None
    decision = lax.decision(AT_NS)
    assert (decision.enforced_effect, decision.error_type) == (Effect.ALLOW, "store_unavailable")
    assert outcomes(decision)["RateLimit/lax"] == (Outcome.ERRORED, None)
    denial = strict.store_failed()
    assert denial is not None
    assert (denial.status, denial.reason, denial.retry_after_ms) == (503, Reason.STORE_UNAVAILABLE, 1000)
    assert str(strict.decision(AT_NS).determining) == "RateLimit/strict"


FIVE = "limit: {requests: 5, per: 1h}"
EVERYBODY = ("RateLimit", "everybody", "limit: {requests: 2, per: 1h}")


def crowded(load: Load, *limits: tuple[str, str, str]) -> Gateway:
    """A gateway with one request behind it, and no room for a second model's counter."""
    gateway = Gateway(load(OPEN, EVERYBODY, *limits))
    gateway.store = MemoryStore(counters=1 + len(limits))
    assert gateway.ask(Asked("first")).error_type == ""
    return gateway


def test_a_limit_without_room_for_its_counter_switches_off_no_other(load: Load) -> None:
    gateway = crowded(load, ("RateLimit", "mine", f"{FIVE}\nkey: [request.model]"))

    second, third = gateway.ask(Asked("second")), gateway.ask(Asked("third"))

    assert (second.enforced_effect, second.error_type) == (Effect.ALLOW, "store_unavailable")
    lost = finding(second, "RateLimit/mine")
    assert (lost.outcome, lost.effect, lost.reason) == (Outcome.ERRORED, None, Reason.STORE_UNAVAILABLE)
    assert [str(item.charge.policy) for item in second.outcomes] == ["RateLimit/everybody"]
    assert (denied(third).status, denied(third).reason) == (429, Reason.RATE_LIMITED)
    assert str(third.determining) == "RateLimit/everybody"


def test_a_limit_that_must_be_counted_denies_without_room_and_charges_nobody(load: Load) -> None:
    gateway = crowded(load, ("RateLimit", "mine", f"{FIVE}\nkey: [request.model]\nonError: deny"))

    decision = gateway.ask(Asked("second"))

    denial = denied(decision)
    assert (denial.status, denial.reason, denial.retry_after_ms) == (503, Reason.STORE_UNAVAILABLE, 1000)
    assert (decision.effect, str(decision.determining)) == (Effect.ALLOW, "RateLimit/mine")
    state = finding(gateway.ask(Asked("first")), "RateLimit/everybody").limit
    assert state is not None
    assert state.used == 1


def test_a_shadow_limit_without_room_denies_nobody(load: Load) -> None:
    trial = f"{FIVE}\nkey: [request.model]\nonError: deny\nmode: shadow"
    decision = crowded(load, ("RateLimit", "mine", trial)).ask(Asked("second"))

    assert (decision.enforced_effect, decision.would_deny) == (Effect.ALLOW, True)
    assert [item.reserved for item in decision.outcomes] == [1]


def test_a_passed_deadline_is_nobodys_verdict(load: Load) -> None:
    evaluation = charged(load, LAX)

    denial = evaluation.deadline_passed()

    assert (denial.status, denial.reason) == (503, Reason.DEADLINE_EXCEEDED)
    decision = evaluation.decision(AT_NS)
    assert (decision.effect, decision.enforced_effect) == ("allow", "deny")
    assert (decision.determining, decision.error_type) == (None, "deadline_exceeded")
    assert outcomes(decision)["RateLimit/lax"] == (Outcome.NOT_RUN, None)


def test_a_deadline_before_anything_was_asked_still_makes_a_decision(load: Load) -> None:
    evaluation = Gateway(load(ALLOW, LAX)).start(Asked())
    evaluation.deadline_passed()

    assert {item.outcome for item in evaluation.decision(AT_NS).findings} == {Outcome.NOT_RUN}


# --- caps and concurrency

PRICED = ("Price", "m", "{models: [m], usdPerMillion: {input: 1, output: 8}}")


def capped(load: Load, *objects: tuple[str, str, str]) -> Gateway:
    policies = load(OPEN, PRICED, *objects)
    return Gateway(policies, policies.prices.over(Prices()))


def test_a_cap_that_is_used_up_denies_until_its_period_ends(load: Load) -> None:
    gateway = capped(load, ("UsageCap", "day", "limit: {requests: 1}\nperiod: day"))
    gateway.ask()

    denial = denied(gateway.ask())

    # At 08:00 UTC sixteen hours are left of the day.
    assert (denial.status, denial.reason, denial.retry_after_ms) == (429, Reason.CAP_REACHED, 57_600_000)
    assert denial.message == (
        "Usage cap reached: UsageCap/day on requests. Limit 1 per day (UTC), Used 1, Requested 1. "
        "It resets at 2027-01-16T00:00:00Z."
    )


@pytest.mark.parametrize(
    "spec", ["limit: {costUsd: 0.0009}\nperiod: month", "limit: {costUsd: 0.0009}\nrolling: 1d"]
)
def test_what_never_fits_a_budget_is_told_how_much_output_would(load: Load, spec: str) -> None:
    denial = denied(capped(load, ("UsageCap", "tiny", spec)).ask(Asked(declared=1000)))

    assert (denial.status, denial.reason) == (413, Reason.REQUEST_EXCEEDS_LIMIT)
    assert denial.retry_after_ms is None
    assert denial.message == (
        "This request needs $0.0081, and UsageCap/tiny never holds more than $0.0009. "
        "Trying again does not help; an output limit (max_tokens) of at most 100 would."
    )


def test_a_budget_takes_what_it_has_left_where_nothing_was_declared(load: Load) -> None:
    gateway = capped(load, ("UsageCap", "small", "limit: {costUsd: 0.0009}\nperiod: month"))
    decision = gateway.ask()

    state = finding(decision, "UsageCap/small").limit
    assert state is not None
    assert (state.requested, state.reserved, state.remaining) == (108_000, 900_000, 0)


def test_a_budget_denies_what_it_has_no_price_for_and_says_so(load: Load) -> None:
    gateway = capped(load, ("UsageCap", "month", "limit: {costUsd: 5}\nperiod: month"))

    decision = gateway.ask(Asked("other"))

    assert denied(decision).status == 403
    assert denied(decision).message == (
        "UsageCap/month could not be evaluated for this request, and denies it then. "
        'UsageCap/month counts dollars, and no price is known for model "other".'
    )
    assert decision.error_type == "policy_error"


def test_too_many_at_once_are_told_to_come_back_in_a_second(load: Load) -> None:
    gateway = capped(load, ("ConcurrencyLimit", "two", "max: 2"))
    first, _ = gateway.ask(), gateway.ask()

    denial = denied(gateway.ask())
    assert (denial.status, denial.reason, denial.retry_after_ms) == (429, Reason.CONCURRENCY_LIMITED, 1000)

    asyncio.run(gateway.store.settle(first.id, {}, AT_NS // 1000))
    assert gateway.ask().enforced_effect is Effect.ALLOW


def test_a_warning_is_in_the_finding_of_its_cap(load: Load) -> None:
    gateway = capped(load, ("UsageCap", "day", "limit: {requests: 5}\nperiod: day\nwarnAt: [0.8]"))

    warnings = [finding(gateway.ask(), "UsageCap/day").warning for _ in range(5)]

    assert warnings[:3] == ["", "", ""]
    assert warnings[3:] == [
        f"UsageCap/day: {percent} % of 5 requests used or set aside until 2027-01-16T00:00:00Z"
        for percent in (80, 100)
    ]


# --- the samples


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("gpt-4o-mini", Reason.ALLOWED),
        ("gpt-4o-mini-2024-07-18", Reason.ALLOWED),
        ("claude-sonnet-4-5", Reason.ALLOWED),
        ("claude-sonnet-4-5-20250929", Reason.ALLOWED),
        ("gpt-4o-mini-audio-preview", Reason.ACCESS_NOT_GRANTED),
        ("gpt-4o", Reason.ACCESS_NOT_GRANTED),
        ("o1-pro", Reason.ACCESS_DENIED),
        ("o1-pro-2025-03-19", Reason.ACCESS_DENIED),
    ],
)
def test_the_sample_policies_know_the_demo_caller(samples: PolicySet, model: str, reason: Reason) -> None:
    prices = samples.prices.over(Prices.bundled())
    provider = "anthropic" if model.startswith("claude-") else "openai"
    asked = Asked(model, provider=provider, headers={"authorization": "Bearer sk-demo"})
    decision = Gateway(samples, prices).ask(asked)

    assert decision.reason is reason
    assert (decision.identity.user, decision.identity.team) == ("demo", "demo")
    assert reason is not Reason.ACCESS_DENIED or str(decision.determining) == "AccessRule/no-o1-pro"


def test_the_sample_policies_turn_strangers_away(samples: PolicySet) -> None:
    assert denied(Gateway(samples).ask()).status == 401


def test_the_sample_policies_try_limits_in_shadow(samples: PolicySet) -> None:
    assert [str(item.ref) for item in samples.limits if item.mode is Mode.SHADOW] == [
        "RateLimit/user-output-trial",
        "UsageCap/claude-day",
    ]
