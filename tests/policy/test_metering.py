"""What limits take together, and what their counters' answers mean for the request."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import (
    Charge,
    ChargeOutcome,
    Effect,
    Finding,
    Mode,
    Outcome,
    PolicyRef,
    Reason,
    SlidingWindow,
    Unit,
)
from extproc.measure.prices import Prices
from extproc.model import AIRequest, Identity, RequestHead, TokenEstimate
from extproc.policy import cel, facts, metering
from extproc.policy.metering import Assessment, Substitution
from extproc.policy.policyset import PolicySet
from extproc.policy.spending import Measure
from tests.policy.conftest import Load

# 2026-11-21T18:00:00Z
AT_NS = 1_795_284_000_000_000_000
TOKENS = TokenEstimate(input=100, max_output=1000)
PRICE = ("Price", "ours", "{models: [m, small], usdPerMillion: {input: 1, output: 8}}")
CAP = "limit: {costUsd: 10}\nperiod: month\ntimezone: Europe/Berlin"


def measure(policies: PolicySet, model: str = "m", *, declared: int | None = 1000) -> Measure:
    asked = AIRequest(
        api="openai_chat", provider="openai", operation="chat", model=model, models=(model,),
        max_output_tokens=declared,
    )  # fmt: skip
    head = RequestHead(method="POST", host="h", path="/")
    known = facts.build(head, Identity(team="red"), asked, TOKENS, AT_NS)
    return Measure(
        activated=cel.activate(known), request=asked, tokens=TOKENS, reserve=None,
        expected_output_tokens=None, prices=policies.prices.over(Prices()), at_ns=AT_NS,
    )  # fmt: skip


def assess(policies: PolicySet, model: str = "m", *, declared: int | None = 1000) -> Assessment:
    return metering.assess(policies.limit_index.items, measure(policies, model, declared=declared))


def answered(charge: Charge, **changes: Any) -> ChargeOutcome:
    told: dict[str, Any] = {
        "granted": True, "reserved": charge.amount, "used": 0, "remaining": 0, "wait_us": 0, "reset_us": 0,
        "limit": charge.window.size,
    }  # fmt: skip
    return ChargeOutcome(charge=charge, **(told | changes))


def full(charge: Charge, *, wait_us: int | None = 10**6) -> ChargeOutcome:
    return answered(charge, granted=False, reserved=0, used=charge.window.size, wait_us=wait_us)


def read(policies: PolicySet, *outcomes: ChargeOutcome, model: str = "m") -> tuple[Finding, ...]:
    return metering.read(policies.limits_by_ref, outcomes, measure(policies, model))


def offered(policies: PolicySet, *outcomes: ChargeOutcome) -> Substitution | None:
    return metering.substitution(policies.limits_by_ref, outcomes)


# --- what is taken


def test_every_kind_that_counts_takes_its_own_unit(load: Load) -> None:
    policies = load(
        PRICE,
        ("ConcurrencyLimit", "c", "max: 4\nkey: [identity.team]"),
        ("RateLimit", "r", "limit: {tokens: 5000, per: 1m}"),
        ("UsageCap", "u", CAP),
    )

    assert [(str(c.policy), c.unit, c.amount, c.key) for c in assess(policies).charges] == [
        ("ConcurrencyLimit/c", "concurrent_requests", 1, ("red",)),
        ("RateLimit/r", "tokens", 1100, ()),
        ("UsageCap/u", "cost_usd", 8_100_000, ()),
    ]


@pytest.mark.parametrize(
    ("on_error", "mode", "effect", "denies"),
    [
        ("", "", Effect.DENY, True),
        ("\nonError: allow", "", None, False),
        ("", "\nmode: shadow", Effect.DENY, False),
    ],
)
def test_a_cap_on_money_cannot_count_what_has_no_price(
    load: Load, *, on_error: str, mode: str, effect: Effect | None, denies: bool
) -> None:
    assessment = assess(load(("UsageCap", "u", f"{CAP}{on_error}{mode}")), "unheard-of")

    (finding,) = assessment.findings
    assert assessment.charges == ()
    assert (finding.outcome, finding.effect) == (Outcome.ERRORED, effect)
    assert finding.message == 'UsageCap/u counts dollars, and no price is known for model "unheard-of".'
    assert (assessment.deny is not None) is denies


def test_a_limit_that_is_disabled_takes_nothing(load: Load) -> None:
    assessment = assess(load(PRICE, ("UsageCap", "u", f"{CAP}\nmode: disabled")))

    assert assessment == Assessment(charges=(), findings=())


# --- what counters answer


@pytest.mark.parametrize(
    ("kind", "spec", "reason"),
    [
        ("RateLimit", "limit: {costUsd: 10, per: 1m}", Reason.RATE_LIMITED),
        ("UsageCap", CAP, Reason.CAP_REACHED),
        ("ConcurrencyLimit", "max: 4", Reason.CONCURRENCY_LIMITED),
    ],
)
def test_each_kind_denies_for_its_own_reason(load: Load, kind: str, spec: str, reason: Reason) -> None:
    policies = load(PRICE, (kind, "l", spec))
    (charge,) = assess(policies).charges

    (finding,) = read(policies, full(charge))

    assert (finding.effect, finding.reason, finding.mode) == (Effect.DENY, reason, Mode.ENFORCE)
    assert f" limit reached: {kind}/l on " in finding.message.replace("cap reached", "limit reached")


def test_a_cap_says_when_it_ends_by_its_own_clock(load: Load) -> None:
    policies = load(PRICE, ("UsageCap", "u", CAP))
    (charge,) = assess(policies).charges
    window: Any = charge.window

    (finding,) = read(policies, full(charge, wait_us=window.edges_us[2] - AT_NS // 1000))

    assert "Limit $10.00 per month (Europe/Berlin), Used $10.00, Requested $0.0081." in finding.message
    assert finding.message.endswith("It resets at 2026-12-01T00:00:00+01:00.")


def test_what_never_fits_a_cap_on_money_is_told_the_output_that_would(load: Load) -> None:
    policies = load(PRICE, ("UsageCap", "u", CAP.replace("10", "0.0009")))
    (charge,) = assess(policies).charges

    (finding,) = read(policies, full(charge, wait_us=None))

    assert finding.reason is Reason.REQUEST_EXCEEDS_LIMIT
    # 100 tokens for a dollar a million, 100 for eight.
    assert finding.message.endswith("an output limit (max_tokens) of at most 100 would.")


@pytest.mark.parametrize(
    ("used", "warning"),
    [
        (7_991_899_999, ""),
        (7_991_900_000, "UsageCap/u: 80 % of $10.00 used or set aside until 2026-12-01T00:00:00+01:00"),
        (9_991_900_000, "UsageCap/u: 100 % of $10.00 used or set aside until 2026-12-01T00:00:00+01:00"),
    ],
)
def test_a_caller_is_warned_from_the_first_share_on_with_its_own_request(
    load: Load, used: int, warning: str
) -> None:
    policies = load(PRICE, ("UsageCap", "u", f"{CAP}\nwarnAt: [0.9, 0.8]"))
    (charge,) = assess(policies).charges

    assert [finding.warning for finding in read(policies, answered(charge, used=used))] == [warning]


def test_nobody_is_warned_by_a_cap_in_shadow_or_when_denied(load: Load) -> None:
    spec = f"{CAP}\nwarnAt: [0.1]"
    shadow, enforced = (
        load(PRICE, ("UsageCap", "u", f"{spec}\nmode: shadow")),
        load(PRICE, ("UsageCap", "u", spec)),
    )
    (trial,), (charge,) = assess(shadow).charges, assess(enforced).charges

    assert [f.warning for f in read(shadow, answered(trial, used=9 * 10**9))] == [""]
    assert [f.warning for f in read(enforced, full(charge))] == [""]


@given(
    waits=st.lists(
        st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 5), st.booleans(), st.booleans()),
        max_size=6,
    )
)
def test_the_enforced_limit_with_the_longest_wait_answers(
    waits: list[tuple[str, int | None, bool, bool]],
) -> None:
    def outcome(name: str, wait_us: int | None, *, granted: bool, enforced: bool) -> ChargeOutcome:
        charge = Charge(
            policy=PolicyRef("UsageCap", name), counter=name, unit=Unit.REQUESTS, amount=1, minimum=1,
            window=SlidingWindow(1, 1), enforced=enforced,
        )  # fmt: skip
        return answered(charge, granted=granted, wait_us=wait_us)

    outcomes = [
        outcome(name, wait, granted=granted, enforced=enforced) for name, wait, granted, enforced in waits
    ]
    found = metering.answering(outcomes)

    denying = [wait for _, wait, granted, enforced in waits if enforced and not granted]
    if not denying:
        assert found is None
        return
    longest = None if None in denying else max(wait for wait in denying if wait is not None)
    assert found is not None
    assert found.wait_us == longest


# --- another model instead

OFFER = f"{CAP}\nonExceed: {{useModel: Small}}"


def test_a_cap_that_offers_a_model_is_answered_with_it(load: Load) -> None:
    policies = load(PRICE, ("UsageCap", "u", OFFER))
    (charge,) = assess(policies).charges

    assert offered(policies, full(charge)) == Substitution(model="Small", policy=PolicyRef("UsageCap", "u"))
    assert offered(policies, full(charge, wait_us=None)) is not None
    assert offered(policies, answered(charge)) is None
    assert offered(policies, replace(full(charge), charge=replace(charge, enforced=False))) is None


def test_no_model_helps_where_any_limit_that_denies_offers_none(load: Load) -> None:
    policies = load(PRICE, ("UsageCap", "u", OFFER), ("RateLimit", "r", "limit: {requests: 5, per: 1m}"))
    rate, cap = assess(policies).charges

    assert offered(policies, full(rate), full(cap)) is None
    assert offered(policies, answered(rate), full(cap)) is not None


def test_of_several_offers_it_is_that_of_the_limit_that_would_answer(load: Load) -> None:
    policies = load(
        PRICE,
        ("UsageCap", "a", OFFER),
        ("UsageCap", "b", OFFER.replace("Small", "smaller")),
    )
    first, second = assess(policies).charges

    found = offered(policies, full(first, wait_us=1), full(second, wait_us=2))

    assert found == Substitution(model="smaller", policy=PolicyRef("UsageCap", "b"))


def test_a_cap_counts_the_model_that_it_offers_and_never_denies_it(load: Load) -> None:
    policies = load(PRICE, ("UsageCap", "u", OFFER))
    (spared,), (other,) = assess(policies, "small").charges, assess(policies, "m").charges

    assert (spared.counter, spared.amount) == (other.counter, other.amount)
    assert (spared.enforced, other.enforced) == (False, True)
    (finding,) = read(policies, full(spared), model="small")
    assert (finding.effect, finding.mode, finding.would_deny) == (Effect.ALLOW, Mode.ENFORCE, False)
    assert finding.message == "UsageCap/u is used up, and lets Small pass."


def test_a_cap_in_shadow_would_deny_and_offers_nothing(load: Load) -> None:
    policies = load(PRICE, ("UsageCap", "u", f"{OFFER}\nmode: shadow"))
    (charge,) = assess(policies).charges

    (finding,) = read(policies, full(charge))

    assert finding.would_deny
    assert offered(policies, full(charge)) is None


def test_without_its_counter_each_kind_does_what_its_onerror_says(load: Load) -> None:
    policies = load(
        PRICE,
        ("ConcurrencyLimit", "c", "max: 4"),
        ("RateLimit", "r", "limit: {tokens: 5000, per: 1m}"),
        ("UsageCap", "u", CAP),
    )
    findings = metering.without_store(policies.limits_by_ref, assess(policies).charges)

    assert [(finding.policy.kind, finding.effect) for finding in findings] == [
        ("ConcurrencyLimit", None), ("RateLimit", None), ("UsageCap", Effect.DENY),
    ]  # fmt: skip
    assert {finding.reason for finding in findings} == {Reason.STORE_UNAVAILABLE}
