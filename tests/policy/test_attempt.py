"""One attempt after another: what the second one asks, keeps and forgets of the first."""

from __future__ import annotations

from dataclasses import replace

from extproc.decision import Charge, ChargeOutcome, Denial, Outcome, Reason
from extproc.measure.ceilings import call_ceiling
from extproc.model import AIRequest, RequestHead, TokenEstimate
from extproc.policy.engine import Evaluation
from extproc.policy.policyset import PolicySet
from tests.policy.conftest import Load

AT_NS = 1_795_284_000_000_000_000
HEAD = RequestHead(method="POST", host="h", path="/v1/chat/completions")
OPEN = ("AccessRule", "everybody", "effect: allow")
CAP = "limit: {requests: 1}\nperiod: day\nonExceed: {useModel: gpt-4o-mini}"
SMALL, LARGE = "gpt-4", "gpt-4o-mini"  # by what they may generate


def request(model: str = SMALL) -> AIRequest:
    return AIRequest(api="openai_chat", provider="openai", operation="chat", model=model, models=(model,))


def begun(policies: PolicySet, asked: AIRequest) -> Evaluation:
    evaluation = Evaluation(policies, decision_id="d", head=HEAD, at_ns=AT_NS)
    tokens = TokenEstimate(input=7, max_output=call_ceiling("openai", asked.model, "chat"))
    denial = evaluation.check_headers() or evaluation.check_body(asked, tokens, AT_NS + 1)

    assert denial is None
    return evaluation


def charged(evaluation: Evaluation) -> tuple[Charge, ...]:
    charges = evaluation.charges(None)
    assert not isinstance(charges, Denial)
    return charges


def granted(charge: Charge) -> ChargeOutcome:
    return ChargeOutcome(
        charge=charge,
        granted=True,
        reserved=charge.amount,
        used=0,
        remaining=0,
        wait_us=0,
        reset_us=0,
        limit=9,
    )


def full(charge: Charge) -> ChargeOutcome:
    return replace(granted(charge), granted=False, reserved=0, used=9, wait_us=1)


def second(policies: PolicySet, asked: AIRequest) -> tuple[Evaluation, tuple[Charge, ...]]:
    """An evaluation whose first attempt was denied by every limit, and what the second one takes."""
    evaluation = begun(policies, asked)
    assert evaluation.check_limits(tuple(map(full, charged(evaluation)))) is not None
    assert evaluation.substitute() == LARGE
    return evaluation, charged(evaluation)


def test_what_let_the_request_come_this_far_lets_its_second_attempt_pass(load: Load) -> None:
    evaluation, charges = second(load(OPEN, ("UsageCap", "c", CAP)), request())

    assert evaluation.check_limits(tuple(map(granted, charges))) is None
    assert str(evaluation.decision(AT_NS).determining) == "AccessRule/everybody"


def test_a_cap_that_is_not_about_the_other_model_still_says_that_it_led_there(load: Load) -> None:
    policies = load(OPEN, ("UsageCap", "c", f"{CAP}\nmatch: target.model == '{SMALL}'"))
    evaluation, charges = second(policies, request())

    assert (charges, evaluation.check_limits(())) == ((), None)
    decision = evaluation.decision(AT_NS)
    assert (decision.reason, decision.target_model) == (Reason.MODEL_SUBSTITUTED, LARGE)
    assert [finding.warning for finding in decision.spoken if finding.policy.kind == "UsageCap"] == [
        f"UsageCap/c is used up: {LARGE} answers"
    ]


def test_without_a_declared_limit_as_much_is_taken_as_the_other_model_may_generate(load: Load) -> None:
    most = call_ceiling("openai", LARGE, "chat")
    assert most > call_ceiling("openai", SMALL, "chat")
    cap = CAP.replace("requests", "outputTokens")

    _, (charge,) = second(load(OPEN, ("UsageCap", "c", cap)), request())

    assert charge.amount == most


def test_there_is_no_third_attempt(load: Load) -> None:
    other = f"{CAP.replace(LARGE, 'o3')}\nmatch: target.model == '{LARGE}'"
    evaluation, charges = second(load(OPEN, ("UsageCap", "c", CAP), ("UsageCap", "d", other)), request())

    assert evaluation.check_limits(tuple(map(full, charges))) is not None
    assert evaluation.substitute() is None


def test_a_store_that_fails_at_the_second_attempt_leaves_nothing_of_the_first(load: Load) -> None:
    rate = ("RateLimit", "r", f"limit: {{requests: 5, per: 1m}}\nmatch: target.model == '{LARGE}'")
    evaluation, charges = second(load(OPEN, ("UsageCap", "c", CAP), rate), request())

    evaluation.store_failed()
    decision = evaluation.decision(AT_NS)

    assert (decision.outcomes, decision.uncounted) == ((), charges)


def test_limits_beside_one_that_fails_were_not_run(load: Load) -> None:
    broken = "limit: {requests: 5, per: 1m}\nonError: deny\nmatch: request.headers['x-none'] == 'a'"
    policies = load(
        OPEN, ("RateLimit", "broken", broken), ("RateLimit", "r", "limit: {requests: 5, per: 1m}")
    )
    evaluation = begun(policies, request())

    denied = evaluation.charges(None)

    assert isinstance(denied, Denial)
    said = {str(finding.policy): finding.outcome for finding in evaluation.decision(AT_NS).findings}
    assert (said["RateLimit/broken"], said["RateLimit/r"]) == (Outcome.ERRORED, Outcome.NOT_RUN)


def test_whoever_we_fail_is_told_when_and_how_soon_to_come_again(load: Load) -> None:
    evaluation = begun(load(OPEN), request())

    denials = (evaluation.deadline_passed(), evaluation.audit_failed())

    assert [denial.reason for denial in denials] == [Reason.DEADLINE_EXCEEDED, Reason.AUDIT_UNAVAILABLE]
    assert {(denial.at_ns, denial.retry_after_ms) for denial in denials} == {(AT_NS + 1, 1000)}
