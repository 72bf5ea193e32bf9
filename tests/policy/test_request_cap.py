"""How large one request may be, and how several caps combine."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Effect, Finding, Mode, Outcome, PolicyRef, Reason
from extproc.errors import RequestRefused
from extproc.model import AIRequest, Identity, RequestHead, TokenEstimate
from extproc.policy import cel, facts, sizes
from extproc.policy.kinds.request_cap import RequestCap
from extproc.policy.objects import PolicyObject
from extproc.policy.policyset import PolicySet
from extproc.policy.sizes import Assessment
from tests.policy.conftest import Load, Problems, written

HEAD = RequestHead(method="POST", host="h", path="/v1/chat/completions")
CLAMP = "outputTokens: 1000\nonExceed: clamp"


def cap(name: str, spec: str) -> tuple[str, str, str]:
    return "RequestCap", name, spec


def asked(
    *, declared: int | None = None, model_ceiling: int = 16_384, tokens: int = 10, **request: Any
) -> tuple[AIRequest, TokenEstimate]:
    ceiling = model_ceiling if declared is None else declared
    described: dict[str, Any] = {
        "api": "openai_chat",
        "provider": "openai",
        "operation": "chat",
        "model": "m",
    }
    return (
        AIRequest(**(described | request), max_output_tokens=declared),
        TokenEstimate(input=tokens, max_output=ceiling, exact=True),
    )


def assess(policies: PolicySet, request: AIRequest | None, tokens: TokenEstimate) -> Assessment:
    activated = cel.activate(facts.build(HEAD, Identity(), request, tokens, 0))
    return sizes.assess(policies.request_cap_index.items, activated, request, tokens)


def only(assessment: Assessment) -> Finding:
    (finding,) = assessment.findings
    return finding


def test_a_request_within_its_cap_is_allowed_and_stays_as_it_is(load: Load) -> None:
    policies = load(cap("size", "inputTokens: 10\noutputTokens: 1000"))

    assessment = assess(policies, *asked(declared=1000))
    assert (assessment.deny, assessment.clamp, assessment.max_output_tokens) == (None, None, None)
    assert only(assessment) == Finding(
        policy=PolicyRef("RequestCap", "size"),
        outcome=Outcome.MATCHED,
        effect=Effect.ALLOW,
        reason=Reason.ALLOWED,
    )


def test_too_much_input_is_denied_whatever_is_to_happen_to_the_output(load: Load) -> None:
    for spec in ("inputTokens: 9", f"inputTokens: 9\n{CLAMP}"):
        denied = assess(load(cap("size", spec)), *asked(declared=1)).deny
        assert denied is not None
        assert (denied.effect, denied.reason) == (Effect.DENY, Reason.REQUEST_EXCEEDS_LIMIT)
        assert denied.message == (
            "RequestCap/size accepts at most 9 input tokens in one request, and this one has 10. "
            "Trying again does not help; a shorter input would."
        )


def test_an_input_that_was_estimated_is_told_as_such(load: Load) -> None:
    request, _ = asked()

    denied = assess(load(cap("size", "inputTokens: 9")), request, TokenEstimate(input=10)).deny
    assert denied is not None
    assert "this one has about 10." in denied.message


def test_too_much_declared_output_is_denied_and_told_what_would_do(load: Load) -> None:
    denied = assess(load(cap("size", "outputTokens: 1000")), *asked(declared=600, choices=2)).deny

    assert denied is not None
    assert denied.message == (
        "RequestCap/size accepts at most 1000 output tokens in one request, and this one asks for up to "
        "1200. Trying again does not help; an output limit (max_tokens) of at most 500 would."
    )


def test_a_limit_left_out_is_no_way_around_a_cap(load: Load) -> None:
    policies = load(cap("size", "outputTokens: 1000"))

    denied = assess(policies, *asked()).deny
    assert denied is not None
    assert "declares no output limit, so that its model may generate up to 16384" in denied.message
    assert "an output limit (max_tokens) of at most 1000 would." in denied.message
    assert assess(policies, *asked(model_ceiling=1000)).deny is None


@pytest.mark.parametrize(
    ("declared", "choices", "ceiling"), [(1001, 1, 1000), (None, 1, 1000), (9000, 3, 333), (None, 1000, 1)]
)
def test_a_clamp_lowers_what_each_choice_may_say(
    load: Load, declared: int | None, choices: int, ceiling: int
) -> None:
    request, tokens = asked(declared=declared, choices=choices)

    assessment = assess(load(cap("size", CLAMP)), request, tokens)
    assert assessment.deny is None
    assert assessment.max_output_tokens == ceiling
    assert assessment.clamp == only(assessment)
    assert (only(assessment).effect, only(assessment).reason) == (Effect.ALLOW, Reason.CLAMPED)
    before = tokens.max_output
    assert f"from {before} to {ceiling} tokens a choice" in only(assessment).message


def test_more_choices_than_tokens_cannot_be_clamped(load: Load) -> None:
    assessment = assess(load(cap("size", CLAMP)), *asked(choices=1001))

    assert assessment.max_output_tokens is None
    assert assessment.deny is not None
    assert assessment.deny.message.endswith("Trying again does not help; fewer choices would.")


@given(
    declared=st.none() | st.integers(0, 5000),
    choices=st.integers(1, 3000),
    most=st.integers(1, 5000),
    clamps=st.booleans(),
)
def test_nothing_above_a_cap_ever_passes(
    declared: int | None, choices: int, most: int, *, clamps: bool
) -> None:
    spec = RequestCap.model_validate({"outputTokens": most, "onExceed": "clamp" if clamps else "deny"})
    item = PolicyObject(ref=PolicyRef("RequestCap", "size"), spec=spec, file="f", line=1, digest="")
    request, tokens = asked(declared=declared, model_ceiling=4000, choices=choices)
    activated = cel.activate(facts.build(HEAD, Identity(), request, tokens, 0))

    assessment = sizes.assess((item,), activated, request, tokens)
    if assessment.max_output_tokens is not None:
        assert assessment.max_output_tokens < tokens.max_output
        request, tokens = sizes.clamped(request, tokens, assessment.max_output_tokens)
    is_within = tokens.max_output * request.choices <= most
    assert is_within is (assessment.deny is None)


def test_the_smallest_clamp_wins_and_every_cap_has_its_finding(load: Load) -> None:
    policies = load(
        cap("a", "outputTokens: 2000\nonExceed: clamp"),
        cap("b", CLAMP),
        cap("c", "outputTokens: 1000\nonExceed: clamp\nmode: shadow"),
        cap("d", "outputTokens: 20000"),
        cap("e", "outputTokens: 1\nmode: disabled"),
        cap("f", 'outputTokens: 1\nmatch: request.model == "other"'),
    )

    assessment = assess(policies, *asked())
    assert assessment.max_output_tokens == 1000
    assert assessment.clamp is not None
    assert assessment.clamp.policy.name == "b"
    said = [(finding.policy.name, finding.outcome, finding.reason) for finding in assessment.findings]
    assert said == [
        ("a", Outcome.MATCHED, Reason.CLAMPED),
        ("b", Outcome.MATCHED, Reason.CLAMPED),
        ("c", Outcome.MATCHED, Reason.CLAMPED),
        ("d", Outcome.MATCHED, Reason.ALLOWED),
        ("f", Outcome.NOT_MATCHED, None),
    ]


def test_what_one_cap_would_lower_another_still_denies(load: Load) -> None:
    policies = load(cap("a", CLAMP), cap("b", "outputTokens: 2000"), cap("c", "outputTokens: 3000"))

    assessment = assess(policies, *asked())
    assert assessment.deny is not None
    assert assessment.deny.policy.name == "b"
    assert len(assessment.findings) == 3


@pytest.mark.parametrize("spec", ["outputTokens: 1", CLAMP, "inputTokens: 1"])
def test_a_shadow_cap_says_what_it_would_do_and_does_nothing(load: Load, spec: str) -> None:
    assessment = assess(load(cap("size", f"{spec}\nmode: shadow")), *asked())

    assert (assessment.deny, assessment.max_output_tokens) == (None, None)
    assert only(assessment).mode is Mode.SHADOW
    assert only(assessment).would_deny is (spec is not CLAMP)


def test_calls_that_spend_nothing_and_what_no_format_knows_have_no_size(load: Load) -> None:
    policies = load(cap("size", "inputTokens: 1\noutputTokens: 1"))

    _, tokens = asked()
    control, _ = asked(operation="control")
    for request in (None, control):
        assert only(assess(policies, request, tokens)).reason is Reason.ALLOWED
    assert assess(policies, *asked(declared=0, tokens=1)).deny is None


@pytest.mark.parametrize(("on_error", "effect"), [("", Effect.DENY), ("onError: allow", None)])
def test_a_cap_that_fails_denies_unless_told_otherwise(
    load: Load, on_error: str, effect: Effect | None
) -> None:
    policies = load(cap("size", f'outputTokens: 1000000\nmatch: identity.labels["tier"] == "x"\n{on_error}'))

    assessment = assess(policies, *asked())
    assert only(assessment).outcome is Outcome.ERRORED
    assert only(assessment).effect is effect
    assert only(assessment).reason is Reason.POLICY_ERROR
    assert (assessment.deny is not None) is (effect is Effect.DENY)


def test_what_cannot_be_told_to_ask_for_less_is_denied_by_the_cap_that_would(load: Load) -> None:
    clamp = assess(load(cap("size", CLAMP)), *asked()).clamp
    assert clamp is not None

    refused = RequestRefused(status=413, code=Reason.REQUEST_EXCEEDS_LIMIT, message="It is signed.")
    denied = sizes.not_clamped(clamp, refused)
    assert (denied.policy, denied.effect) == (clamp.policy, Effect.DENY)
    assert denied.reason is Reason.REQUEST_EXCEEDS_LIMIT
    assert denied.message == "RequestCap/size limits this request. It is signed."


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("onExceed: deny", "inputTokens or outputTokens must be given"),
        ("inputTokens: 5\nonExceed: clamp", "onExceed: clamp lowers the output, and needs outputTokens"),
        ("inputTokens: 0", "at least 1"),
        ("outputTokens: 5\nonExceed: redact", "deny"),
        ("tokens: 5", "there is no field 'tokens' here"),
        (
            'outputTokens: 5\nonError: allow\nmatch: request.headers["x-team"] == "a"',
            "or set onError: deny",
        ),
    ],
)
def test_a_cap_that_makes_no_sense_is_refused_at_load(problems: Problems, spec: str, message: str) -> None:
    (problem,) = problems(caps=written("RequestCap", "size", spec))

    assert message in problem.message


def test_text_is_counted_where_a_cap_asks_for_it(load: Load) -> None:
    assert load(cap("size", "inputTokens: 5")).needs_token_counts
    assert not load(cap("size", "outputTokens: 5")).needs_token_counts
    assert not load(cap("size", "inputTokens: 5\nmode: disabled")).needs_token_counts


def test_caps_speak_after_the_rules_and_before_the_limits(load: Load) -> None:
    policies = load(
        ("RateLimit", "limit", "limit: {requests: 5, per: 1m}"),
        cap("size", CLAMP),
        ("AccessRule", "rule", "effect: allow"),
    )

    assert [item.ref.kind for item in policies.speakers] == [
        "AccessRule",
        "RequestCap",
        "RateLimit",
        "Defaults",
    ]


def test_the_samples_let_ordinary_requests_pass_as_they_are(samples: PolicySet) -> None:
    assert len(samples.request_cap_index) == 2

    for model_ceiling in (16_384, 64_000, 65_536):
        assessment = assess(samples, *asked(model_ceiling=model_ceiling))
        assert (assessment.deny, assessment.clamp) == (None, None)
    assert assess(samples, *asked(model_ceiling=128_000)).max_output_tokens == 100_000
