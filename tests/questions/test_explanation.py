"""What a decision's explanation says, of real decisions and of any that a record can hold."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from extproc.decision import Decision, Effect, Finding, LimitState, Mode, Outcome, PolicyRef, Reason, Unit
from extproc.ledger.records import usage_record
from extproc.model import Basis, Identity, Source
from extproc.questions import endings, expressions, figures, remedies
from extproc.questions import explanation as room
from extproc.questions.base import Story
from extproc.questions.explained import Explanation, PolicyLine, Way
from extproc.questions.explanation import explain
from extproc.questions.page import page
from extproc.questions.shapes import written
from extproc.questions.text import Screen
from tests.ledger.samples import LIMIT, REF, allowed, denied, settlement
from tests.ledger.test_records import AMOUNTS, KEYS, decisions
from tests.questions.stories import PAGES, SIDECAR, STORIES, pages, told

EXPLANATION = TypeAdapter(Explanation)
WIDE = Screen(width=10_000)


def explained(name: str, folder: Path) -> Explanation:
    return explain(told(name, folder))


def line(explanation: Explanation, policy: str) -> PolicyLine:
    return next(each for each in explanation.policies if each.policy == policy)


# --- whole pages


@pytest.mark.parametrize("name", STORIES)
def test_a_page_says_what_it_said(name: str, tmp_path: Path) -> None:
    """After a change, `python -m tests.questions.stories` writes them anew: read what it changes."""
    assert pages(name, tmp_path) == (PAGES / f"{name}.txt").read_text()


def test_no_page_is_left_over() -> None:
    assert {path.stem for path in PAGES.glob("*.txt")} == set(STORIES)


# --- every decision


@settings(max_examples=40, deadline=None)
@given(decision=decisions(), is_settled=st.booleans())
def test_any_record_is_explained_and_comes_back_from_json(decision: Decision, *, is_settled: bool) -> None:
    ends = (usage_record(settlement(), SIDECAR),) if is_settled else ()
    wording = {str(finding.policy): "match: request.model == 'a' && (" for finding in decision.findings}

    explanation = explain(Story(decision=decision, instance=SIDECAR, endings=ends, wording=wording))

    assert EXPLANATION.validate_json(written(explanation)) == explanation
    assert EXPLANATION.validate_json(written(explanation.for_caller())) == explanation.for_caller()
    assert page(explanation, Screen(width=60))


STATES = st.builds(
    LimitState,
    unit=..., limit=AMOUNTS, window_s=st.floats(0, 1e9), used=AMOUNTS, requested=AMOUNTS, reserved=AMOUNTS,
    remaining=AMOUNTS, reset_ms=AMOUNTS, wait_ms=st.none() | st.integers(0, 10**10), key=KEYS,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(STATES, st.sampled_from(Effect))
def test_the_arithmetic_is_that_of_the_limit(state: LimitState, effect: Effect) -> None:
    finding = Finding(policy=REF, outcome=Outcome.MATCHED, effect=effect, limit=state)
    story = Story(decision=allowed(findings=(finding,), outcomes=()), instance=SIDECAR)

    (said,) = explain(story).policies

    limit = said.limit
    assert limit is not None
    assert limit.left - limit.reserved == limit.remaining == state.remaining
    assert limit.too_many == max(0, state.requested - limit.left)
    shown = figures.number
    assert (
        f"used {shown(state.unit, state.used)} of {figures.quantity(state.unit, state.limit)}" in limit.line
    )
    if effect is Effect.DENY:
        assert f"requested {shown(state.unit, state.requested)}" in limit.line
        assert (
            f"{shown(state.unit, limit.left)} left: {shown(state.unit, limit.too_many)} too m" in limit.line
        )
        assert ("waiting does not help" in limit.line) == (state.wait_ms is None)


def test_every_reason_has_a_sentence_and_a_way_out() -> None:
    passing = {Reason.ALLOWED, Reason.MODEL_SUBSTITUTED, Reason.CLAMPED}

    assert set(Reason) - passing == set(room._DENIED)
    assert set(Reason) == set(remedies._WAYS)
    assert len(set(room._DENIED.values())) == len(room._DENIED)


def test_every_basis_has_words() -> None:
    assert set(endings._BASES) == set(Basis)


# --- why


def test_the_policy_that_decided_is_the_only_one_marked(tmp_path: Path) -> None:
    explanation = explained("access_denied", tmp_path)

    assert [each.policy for each in explanation.policies if each.determining] == ["AccessRule/no-o1-pro"]
    assert explanation.verdict.determining == "AccessRule/no-o1-pro"


def test_every_policy_of_the_folder_is_there(tmp_path: Path) -> None:
    story = told("rate_limited", tmp_path)

    assert len(explain(story).policies) == len(story.decision.findings) == 4


def test_an_operand_is_what_the_record_holds(tmp_path: Path) -> None:
    wording = line(explained("access_denied", tmp_path), "AccessRule/no-o1-pro").wording

    assert wording is not None
    assert wording.match == 'request.model.startsWith("o1-pro")'
    assert [(each.name, each.value) for each in wording.operands] == [("request.model", '"o1-pro"')]


def test_headers_are_said_to_be_unknown_and_never_guessed(tmp_path: Path) -> None:
    wording = line(explained("shadow_would_deny", tmp_path), "RateLimit/trial").wording

    assert wording is not None
    headers = next(each for each in wording.operands if each.name == "request.headers")
    assert (headers.is_recorded, headers.value) == (False, "")
    assert [term.value for term in wording.terms] == ["", "false"]


def test_a_term_is_false_only_where_the_decision_agrees() -> None:
    """A record that was cut, or clocks that moved, must not make the page contradict the decision."""
    rule = PolicyRef("AccessRule", "r")
    wording = {str(rule): 'effect: allow\nmatch: request.model == "other" && identity.team == "demo"'}
    findings = (Finding(policy=rule, outcome=Outcome.MATCHED, effect=Effect.ALLOW),)

    (said,) = explain(Story(decision=allowed(findings=findings), instance="", wording=wording)).policies

    assert said.wording is not None
    assert said.wording.terms == ()


def test_an_expression_that_read_what_was_not_there_is_said_in_words() -> None:
    rule = PolicyRef("AccessRule", "r")
    failed = Finding(
        policy=rule,
        outcome=Outcome.ERRORED,
        reason=Reason.POLICY_ERROR,
        message="The match of AccessRule/r failed: NOT_FOUND.",
    )

    (said,) = explain(Story(decision=allowed(findings=(failed,)), instance="", wording={})).policies

    assert said.line == (
        "The match of AccessRule/r failed: NOT_FOUND (a header, a label or a claim that it reads was not "
        "there); onError: allow, so the request passed it unchecked"
    )


def test_a_term_of_several_lines_is_said_in_one() -> None:
    rule = PolicyRef("AccessRule", "r")
    match = 'identity.team == "demo" && (\n    request.model == "a" ||\n    request.model == "b")'
    wording = {str(rule): "effect: allow\nmatch: >-\n  " + match}
    findings = (Finding(policy=rule, outcome=Outcome.NOT_MATCHED),)

    (said,) = explain(Story(decision=allowed(findings=findings), instance="", wording=wording)).policies

    assert said.line.endswith('`( request.model == "a" || request.model == "b")` is false')


@pytest.mark.parametrize(
    ("text", "operator", "parts"),
    [
        ("a", "&&", ("a",)),
        ("a && b || c", "||", ("a && b", "c")),
        ("a && (b || c)", "&&", ("a", "(b || c)")),
        ("a && x == '&& ||'", "&&", ("a", "x == '&& ||'")),
        (r'x == "\" && " && b', "&&", (r'x == "\" && "', "b")),
        ("[a && b].all(c, c) && d", "&&", ("[a && b].all(c, c)", "d")),
        ("a ? b && c : d", "", ("a ? b && c : d",)),
    ],
)
def test_an_expression_is_split_where_it_combines(text: str, operator: str, parts: tuple[str, ...]) -> None:
    assert expressions.split(text) == (operator, parts)


def test_a_policy_in_an_unknown_wording_is_explained_without(tmp_path: Path) -> None:
    story = replace(told("rate_limited", tmp_path), wording={"RateLimit/team-tokens": "match: [a"})

    said = line(explain(story), "RateLimit/team-tokens")

    assert said.wording is not None
    assert (said.wording.match, said.wording.operands) == ("", ())


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.SHADOW])
def test_what_a_clamp_changed_is_not_shown_as_what_a_rule_saw(tmp_path: Path, mode: Mode) -> None:
    """A cap in shadow changed nothing: what is recorded is what the rule saw."""
    story = told("clamped", tmp_path)
    rule = PolicyRef("AccessRule", "big")
    caps = (
        replace(each, mode=mode) if each.reason is Reason.CLAMPED else each
        for each in story.decision.findings
    )
    findings = (*caps, Finding(policy=rule, outcome=Outcome.NOT_MATCHED))
    wording = {str(rule): "effect: deny\nmatch: tokens.max_output > 9000 && request.stream"}

    said = line(
        explain(
            replace(story, decision=replace(story.decision, findings=findings, spoken=()), wording=wording)
        ),
        "AccessRule/big",
    )

    assert said.wording is not None
    ceiling = next(each for each in said.wording.operands if each.name == "tokens.max_output")
    assert ceiling.is_recorded is (mode is Mode.SHADOW)


# --- what would have let it pass


def test_waiting_helps_only_as_long_as_the_slowest_limit_says() -> None:
    slow = Finding(
        policy=PolicyRef("UsageCap", "day"), outcome=Outcome.MATCHED, effect=Effect.DENY,
        reason=Reason.CAP_REACHED, limit=replace(LIMIT, wait_ms=90_000, reserved=0, unit=Unit.REQUESTS),
    )  # fmt: skip
    fast = replace(slow, policy=REF, limit=replace(LIMIT, wait_ms=5_000, reserved=0), determining=True)

    told_ = explain(Story(decision=denied(findings=(fast, slow)), instance=""))

    (wait,) = told_.remedies
    assert (wait.way, wait.at_us) == (Way.WAIT, told_.where.decided_at_us + 90_000_000)


def test_nobody_is_told_to_wait_for_what_never_fits(tmp_path: Path) -> None:
    (remedy,) = explained("never_fits", tmp_path).remedies

    assert (remedy.way, remedy.max_output_tokens) == (Way.LESS_OUTPUT, 992)


def test_the_ceiling_that_would_have_fit_does_fit(tmp_path: Path) -> None:
    explanation = explained("rate_limited", tmp_path)
    limit = line(explanation, "RateLimit/team-tokens").limit

    smaller = next(each for each in explanation.remedies if each.way is Way.LESS_OUTPUT)
    assert limit is not None
    assert smaller.max_output_tokens == limit.left - explanation.asked.input_tokens


def test_a_request_that_declared_no_output_is_not_told_of_a_ceiling() -> None:
    decision = denied()
    assert decision.request is not None
    request = replace(decision.request, max_output_tokens=None)

    explanation = explain(Story(decision=denied(request=request), instance=""))

    assert [each.way for each in explanation.remedies] == [Way.WAIT]


def test_another_model_is_named_only_where_the_rule_reads_the_model() -> None:
    rule = PolicyRef("AccessRule", "no-team")
    finding = Finding(
        policy=rule, outcome=Outcome.MATCHED, effect=Effect.DENY, reason=Reason.ACCESS_DENIED,
        determining=True,
    )  # fmt: skip
    decision = denied(findings=(finding,), determining=rule, reason=Reason.ACCESS_DENIED)
    wording = {str(rule): 'effect: deny\nmatch: identity.team == "demo"'}

    (remedy,) = explain(Story(decision=decision, instance="", wording=wording)).remedies

    assert "model" not in remedy.text
    assert remedy.details == ("AccessRule/no-team would not match with another identity.team",)


def test_a_rule_in_shadow_that_would_have_allowed_it_is_named() -> None:
    rule, main = PolicyRef("AccessRule", "new"), PolicyRef("Defaults", "main")
    findings = (
        Finding(policy=rule, outcome=Outcome.MATCHED, mode=Mode.SHADOW, effect=Effect.ALLOW),
        Finding(policy=main, outcome=Outcome.MATCHED, effect=Effect.DENY,
                reason=Reason.ACCESS_NOT_GRANTED, determining=True),
    )  # fmt: skip
    decision = denied(findings=findings, determining=main, reason=Reason.ACCESS_NOT_GRANTED)

    explanation = explain(Story(decision=decision, instance=""))

    assert [each.details for each in explanation.remedies] == [
        ("AccessRule/new would have allowed it, and is in shadow",)
    ]
    assert "shadow" not in written(explanation.for_caller()).decode().replace('"shadow":""', "")


def test_what_passed_needs_no_way_out(tmp_path: Path) -> None:
    explanation = explained("shadow_would_deny", tmp_path)

    assert (explanation.remedies, explanation.not_asked) == ((), ())


# --- where the tokens went


def test_a_reservation_and_its_charge_differ_by_what_is_given_back(tmp_path: Path) -> None:
    (each,) = explained("expired_and_adjusted", tmp_path).reservations

    assert (each.reserved, each.charged, each.difference) == (408, 11, -397)


def test_a_denied_request_set_nothing_aside(tmp_path: Path) -> None:
    explanation = explained("rate_limited", tmp_path)

    assert (explanation.reservations, explanation.endings, explanation.is_open) == ((), (), False)


def test_a_request_without_an_ending_is_open(tmp_path: Path) -> None:
    explanation = explained("open", tmp_path)

    assert explanation.is_open
    assert [each.charged for each in explanation.reservations] == [None]


def test_a_report_that_came_late_replaces_what_expired(tmp_path: Path) -> None:
    expired, adjusted = explained("expired_and_adjusted", tmp_path).endings

    assert (expired.kind, expired.is_provisional, expired.usage.input_tokens) == ("expire", True, None)
    assert (adjusted.kind, adjusted.is_provisional, adjusted.usage.input_tokens) == ("adjust", False, 8)


def test_a_clock_that_went_back_gives_no_negative_duration() -> None:
    ending = usage_record(settlement(at_s=900), SIDECAR)

    (told_,) = explain(Story(decision=allowed(), instance="", endings=(ending,))).endings

    assert (told_.duration_ms, told_.first_byte_ms) == (None, None)


# --- to the caller itself


def test_the_caller_reads_nothing_of_others() -> None:
    decision = denied(
        identity=Identity(id="demo", team="demo", authenticated=True),
        head=replace(denied().head, source=Source(address="10.9.8.7", principal="spiffe://x", route="r-9")),
        attributes={"secret": "attribute-7"},
        error_type="policy_error",
    )
    shadow = Finding(
        policy=PolicyRef("RateLimit", "trial-3"), outcome=Outcome.MATCHED, mode=Mode.SHADOW,
        effect=Effect.DENY, limit=replace(LIMIT, key=("of-others",)),
    )  # fmt: skip
    silent = Finding(policy=PolicyRef("AccessRule", "rule-4"), outcome=Outcome.NOT_MATCHED)
    decision = replace(decision, findings=(*decision.findings, shadow, silent), spoken=())
    wording = {str(each.policy): "match: identity.team == 'wording-5'" for each in decision.findings}
    story = Story(decision=decision, instance="instance-6", wording=wording)

    shown = written(explain(story).for_caller()).decode() + page(explain(story).for_caller(), WIDE)

    hidden = ("10.9.8.7", "spiffe", "r-9", "trial-3", "of-others", "rule-4", "wording-5", "instance-6",
              "attribute-7", "would have", "policy_error")  # fmt: skip
    assert [text for text in hidden if text in shown.replace("What would have", "")] == []
    assert all(text in written(explain(story)).decode() for text in hidden)


@pytest.mark.parametrize("name", STORIES)
def test_the_caller_reads_that_it_was_allowed_or_denied_and_by_what(name: str, tmp_path: Path) -> None:
    explanation = explained(name, tmp_path)
    own = explanation.for_caller()

    assert own.verdict.sentence == explanation.verdict.sentence
    assert own.verdict.effect == own.verdict.enforced_effect == explanation.verdict.enforced_effect
    assert [each.policy for each in own.policies if each.determining] == [
        each.policy for each in explanation.policies if each.determining
    ]
    assert {each.mode for each in own.policies} <= {Mode.ENFORCE}
    assert own.for_caller() == own


def test_every_field_of_the_values_has_a_simple_type(tmp_path: Path) -> None:
    """What is sent has no mapping with other keys than texts, and nothing that JSON has to round."""
    explanation = explained("streamed", tmp_path)

    assert {type(getattr(explanation, each.name)) for each in fields(explanation)} <= {
        str, bool, tuple, dict,
        *(type(getattr(explanation, name)) for name in ("verdict", "asked", "caller", "where")),
    }  # fmt: skip
