"""What rules may ask of money before anyone answered, and what an unknown price does to them."""

from dataclasses import replace

import pytest

from extproc.decision import Decision, Effect
from extproc.measure.overrides import PriceBook
from extproc.measure.prices import Prices
from extproc.model import AIRequest, Identity, RequestHead, TokenEstimate
from extproc.policy import cel, estimates, facts
from extproc.policy.cel import ExpressionInvalid, Failure, Result, compile_expression
from extproc.policy.engine import Evaluation
from extproc.policy.policyset import PolicySet
from tests.policy.conftest import Load, Problems, written

AT_NS = 1_800_000_000 * 10**9
HEAD = RequestHead(method="POST", host="h", path="/v1/chat/completions")
REQUEST = AIRequest(api="openai_chat", provider="openai", operation="chat", model="ours", models=("ours",))
TOKENS = TokenEstimate(input=1_000_000, max_output=500_000)

OPEN = ("Defaults", "main", "access: allow")
# Five dollars for REQUEST.
OURS = ("Price", "ours", "{models: [ours], usdPerMillion: {input: 1, output: 8}}")


def rule(match: str, effect: str = "deny", **more: str) -> tuple[str, str, str]:
    extra = "".join(f"\n{name}: {value}" for name, value in more.items())
    return ("AccessRule", "money", f"effect: {effect}\nmatch: '{match}'{extra}")


def decide(policies: PolicySet, request: AIRequest = REQUEST, tokens: TokenEstimate = TOKENS) -> Decision:
    evaluation = Evaluation(
        policies, decision_id="d", head=HEAD, at_ns=AT_NS, prices=policies.prices.over(Prices())
    )
    assert evaluation.check_headers() is None
    evaluation.check_body(request, tokens, AT_NS)
    return evaluation.decision(AT_NS)


def is_allowed(policies: PolicySet, request: AIRequest = REQUEST, tokens: TokenEstimate = TOKENS) -> bool:
    return decide(policies, request, tokens).enforced_effect is Effect.ALLOW


def estimate(
    policies: PolicySet, request: AIRequest = REQUEST, tokens: TokenEstimate = TOKENS
) -> float | None:
    book = policies.prices.over(Prices())
    return estimates.usd(request, tokens, (request.model,), book, AT_NS).get(request.model)


def asked(model: str, *others: str) -> AIRequest:
    return replace(REQUEST, model=model, models=(model, *others))


# --- the figure


def test_the_estimate_is_the_input_and_every_choice_as_long_as_it_may_be(load: Load) -> None:
    assert estimate(load(OURS)) == 5.0
    assert estimate(load(OURS), replace(REQUEST, choices=3)) == 13.0
    assert estimate(load(OURS), tokens=TokenEstimate(input=1)) == 0.000001


def test_a_call_that_spends_nothing_is_estimated_at_nothing(load: Load) -> None:
    assert estimate(load(), replace(REQUEST, operation="control")) == 0.0


@pytest.mark.parametrize("operation", ["batch", "fine_tuning", "realtime", "speech"])
def test_what_its_request_does_not_say_has_no_estimate(load: Load, operation: str) -> None:
    assert estimate(load(OURS), replace(REQUEST, operation=operation)) is None


def test_generated_images_are_estimated_at_their_own_price(load: Load) -> None:
    policies = load(("Price", "i", "{models: [ours], usdPerMillion: {input: 1, output: 8, imageOutput: 40}}"))

    assert estimate(policies, replace(REQUEST, operation="image_generation")) == 21.0


def test_an_absurd_ceiling_has_an_estimate_all_the_same(load: Load) -> None:
    tokens = TokenEstimate(input=10**300, max_output=10**300)

    assert estimate(load(OURS), replace(REQUEST, choices=10**300), tokens) == 9e9


def test_only_the_first_models_of_a_body_are_looked_up(load: Load) -> None:
    names = tuple(f"m{number}" for number in range(100))
    book = load(("Price", "all", "{models: ['*'], usdPerMillion: {input: 1, output: 1}}")).prices
    found = estimates.usd(REQUEST, TOKENS, names, book.over(Prices()), AT_NS)

    assert tuple(found) == names[:16]


# --- rules


def test_a_rule_may_deny_by_what_a_request_may_cost(load: Load) -> None:
    assert is_allowed(load(OPEN, OURS, rule("cost.estimated_usd > 5.0")))
    assert not is_allowed(load(OPEN, OURS, rule("cost.estimated_usd > 4.99")))


def test_a_rule_may_allow_by_what_a_request_may_cost(load: Load) -> None:
    assert is_allowed(load(OURS, rule("cost.estimated_usd <= 5.0", "allow")))
    assert not is_allowed(load(OURS, rule("cost.estimated_usd < 5.0", "allow")))


def test_every_model_that_a_body_names_is_asked_about_at_its_own_price(load: Load) -> None:
    dear = ("Price", "dear", "{models: [dear], usdPerMillion: {input: 100, output: 800}}")
    policies = load(OPEN, OURS, dear, rule("cost.estimated_usd > 10.0"))

    assert is_allowed(policies, asked("ours"))
    assert not is_allowed(policies, asked("ours", "dear"))
    assert not is_allowed(policies, asked("ours", "unknown"))


@pytest.mark.parametrize("match", ["cost.estimated_usd < 10.0", "!(cost.estimated_usd > 10.0)"])
def test_an_unknown_price_never_grants(load: Load, match: str) -> None:
    policies = load(OURS, rule(match, "allow"))

    assert is_allowed(policies)
    assert not is_allowed(policies, asked("unknown"))


def test_an_unknown_price_is_denied_by_a_deny_rule_unless_its_on_error_says_otherwise(load: Load) -> None:
    closed = load(OPEN, OURS, rule("cost.estimated_usd > 10.0"))
    opened = load(OPEN, OURS, rule("cost.estimated_usd > 10.0", onError="allow"))

    assert not is_allowed(closed, asked("unknown"))
    assert is_allowed(opened, asked("unknown"))


def test_a_rule_about_others_is_not_touched_by_an_unknown_price(load: Load) -> None:
    policies = load(OPEN, OURS, rule('cost.estimated_usd > 10.0 && identity.team == "interns"'))

    assert is_allowed(policies, asked("unknown"))


@pytest.mark.parametrize(
    ("match", "allows_unknown"),
    [
        ("has(cost.estimated_usd) && cost.estimated_usd < 10.0", False),
        ("!has(cost.estimated_usd) || cost.estimated_usd < 10.0", True),
        ("cost.estimated_usd == null", True),
        ("cost.?estimated_usd.orValue(0.0) < 10.0", True),
    ],
)
def test_a_rule_may_say_what_an_unknown_price_means(load: Load, match: str, *, allows_unknown: bool) -> None:
    assert is_allowed(load(OURS, rule(match, "allow")), asked("unknown")) is allows_unknown


@pytest.mark.parametrize(
    "match", ["cost.estimated_usd != 5.0", "cost.estimated_usd == 0.0", "cost.estimated_usd in [1.0]"]
)
def test_an_estimate_is_not_compared_for_equality(match: str) -> None:
    """Against null that would be false, or true, where every other comparison fails."""
    with pytest.raises(ExpressionInvalid, match="is an estimate; compare it with <"):
        compile_expression(match, Result.BOOL)


def test_money_is_compared_with_a_decimal_number(problems: Problems) -> None:
    (found,) = problems(a=written("AccessRule", "a", "{effect: deny, match: cost.estimated_usd > 1}"))

    assert "with a decimal point, such as 5.0" in found.message


LIMIT = "{match: '%s', limit: {requests: 5, per: 1m}%s}"


def test_no_model_without_a_price_escapes_a_limit(problems: Problems) -> None:
    (found,) = problems(a=written("RateLimit", "a", LIMIT % ("cost.estimated_usd > 1.0", "")))

    assert "this fails for a model without a known price; test for it with has(" in found.message
    assert "set onError: deny" in found.message
    assert (found.line, found.column) == (6, 16)


@pytest.mark.parametrize(
    ("match", "more"),
    [
        ("cost.estimated_usd > 1.0", ", onError: deny"),
        ("!has(cost.estimated_usd) || cost.estimated_usd > 1.0", ""),
        ("cost.estimated_usd == null || cost.estimated_usd > 1.0", ""),
        ("cost.?estimated_usd.orValue(9.0) > 1.0", ""),
    ],
)
def test_a_limit_that_says_what_an_unknown_price_means_loads(load: Load, match: str, more: str) -> None:
    load(("RateLimit", "a", LIMIT % (match, more)))


# --- when it is worked out


@pytest.mark.parametrize(
    ("object_", "needed"),
    [
        (rule("cost.estimated_usd > 1.0"), True),
        (rule("cost.estimated_usd > 1.0", mode="shadow"), True),
        (rule("cost.estimated_usd > 1.0", mode="disabled"), False),
        (rule("tokens.input > 1"), False),
        (OURS, False),
        (
            ("RateLimit", "l", "{match: has(cost.estimated_usd), limit: {requests: 1, per: 1m}}"),
            True,
        ),
    ],
)
def test_an_estimate_is_made_where_an_expression_asks_for_it(
    load: Load, object_: tuple[str, str, str], *, needed: bool
) -> None:
    policies = load(object_)

    assert policies.needs_cost_estimates is needed
    if needed:
        assert policies.needs_token_counts


def test_nothing_is_priced_for_a_folder_that_asks_for_no_estimate(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(PriceBook, "cost", fail)

    assert is_allowed(load(OPEN, OURS))


def test_the_facts_about_another_model_have_its_estimate_or_none() -> None:
    built = facts.build(HEAD, Identity(), REQUEST, TOKENS, AT_NS, estimated_usd=5.0)
    match = compile_expression("cost.estimated_usd > 4.0", Result.BOOL)

    def says(other: object) -> object:
        return match.evaluate(cel.activate(other))  # type: ignore[arg-type]  # facts, all of them

    assert says(built) is True
    assert says(facts.about_model(built, "n", estimated_usd=3.0)) is False
    assert isinstance(says(facts.about_model(built, "n")), Failure)
    assert says(built) is True
