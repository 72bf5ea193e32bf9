import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Charge, PolicyRef, Reason, TokenBucket, Unit
from extproc.model import AIRequest, TokenEstimate
from extproc.policy import denials, limits
from extproc.policy.limits import Bucket

MINUTE_US = 60_000_000
POLICY = PolicyRef("RateLimit", "team")


def charge(unit: Unit = Unit.TOKENS, *, needs: int = 500, rate: int = 1000, burst: int = 1000) -> Charge:
    return Charge(
        policy=POLICY, counter="c", unit=unit, amount=needs, minimum=needs, window=TokenBucket(rate, MINUTE_US, burst), key=("red",),
    )  # fmt: skip


def request(choices: int = 1) -> AIRequest:
    return AIRequest(api="openai_chat", provider="openai", operation="chat", choices=choices)


def test_a_full_limit_names_itself_and_ends_with_the_sentence_that_clients_read() -> None:
    taken = charge()
    bucket = Bucket(int(950.5 * MINUTE_US), 0)
    outcome = limits.outcome(bucket, bucket, taken, granted=False, reserved=0, at_us=0)

    message = denials.rate_limited(denials.limit_state(outcome), taken)

    assert message == (
        "Rate limit reached: RateLimit/team on tokens. Limit 1000 per 1m, Used 951, Requested 500. "
        "Please try again in 27.03s."
    )


def test_a_burst_is_told_where_it_is_another_number() -> None:
    taken = charge(rate=1000, burst=1500)
    bucket = Bucket(1500 * MINUTE_US, 0)
    outcome = limits.outcome(bucket, bucket, taken, granted=False, reserved=0, at_us=0)

    assert "Limit 1000 per 1m (at most 1500 at once)" in denials.rate_limited(
        denials.limit_state(outcome), taken
    )


@pytest.mark.parametrize(
    ("unit", "choices", "words"),
    [
        (Unit.TOKENS, 1, "an output limit (max_tokens) of at most 900 would."),
        (Unit.TOKENS, 4, "an output limit (max_tokens) of at most 225 would."),
        (Unit.OUTPUT_TOKENS, 4, "an output limit (max_tokens) of at most 250 would."),
        (Unit.INPUT_TOKENS, 1, "a shorter input would."),
    ],
)
def test_what_never_fits_names_the_largest_ceiling_that_would(unit: Unit, choices: int, words: str) -> None:
    message = denials.never_fits(charge(unit, needs=5000), request(choices), TokenEstimate(input=100))

    assert message.startswith("This request needs 5000")
    assert "RateLimit/team never holds more than 1000. Trying again does not help" in message
    assert message.endswith(words)


def test_an_input_that_fills_the_limit_by_itself_must_be_shorter() -> None:
    message = denials.never_fits(charge(needs=1001), request(), TokenEstimate(input=1000))

    assert message.endswith("a shorter input would.")


@given(
    choices=st.integers(1, 8),
    given_tokens=st.integers(0, 2000),
    burst=st.integers(1, 3000),
    unit=st.sampled_from(Unit),
)
def test_the_named_ceiling_fits_and_one_more_does_not(
    choices: int, given_tokens: int, burst: int, unit: Unit
) -> None:
    taken = charge(unit, needs=10**6, burst=burst)
    message = denials.never_fits(taken, request(choices), TokenEstimate(input=given_tokens))
    named = re.search(r"at most (\d+) would", message)

    if named:
        spent = given_tokens if unit is Unit.TOKENS else 0
        assert spent + choices * int(named[1]) <= burst < spent + choices * (int(named[1]) + 1)


@pytest.mark.parametrize(
    ("wait_ms", "text"),
    [(1, "1ms"), (999, "999ms"), (1000, "1s"), (45_190, "45.19s"), (1_001, "1.001s"), (600_000, "600s")],
)
def test_a_wait_is_written_as_openai_does(wait_ms: int, text: str) -> None:
    assert denials.wait(wait_ms) == text


@given(st.integers(1, 10**9))
def test_a_written_wait_is_the_wait(wait_ms: int) -> None:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|ms)", denials.wait(wait_ms))

    assert found is not None
    assert round(float(found[1]) * (1000 if found[2] == "s" else 1)) == wait_ms


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (1_000_000, "1s"),
        (90_000_000, "90s"),
        (3_600_000_000, "1h"),
        (86_400_000_000, "1d"),
        (1_500_000, "1500ms"),
    ],
)
def test_a_window_is_written_as_policies_do(us: int, text: str) -> None:
    assert denials.duration(us) == text


def test_nobody_waits_less_than_it_takes() -> None:
    taken = charge(needs=1)
    bucket = Bucket(1000 * MINUTE_US, 0)
    state = denials.limit_state(limits.outcome(bucket, bucket, taken, granted=False, reserved=0, at_us=0))

    # One token of a thousand a minute takes 60 ms; one more microsecond of debt makes it 61.
    assert state.wait_ms == 60
    late = Bucket(1000 * MINUTE_US + 1, 0)
    assert (
        denials.limit_state(limits.outcome(late, late, taken, granted=False, reserved=0, at_us=0)).wait_ms
        == 61
    )


@pytest.mark.parametrize("model", ["", "x" * 65, "a\nb", "a\x00b"])
def test_what_does_not_look_like_a_model_is_not_quoted(model: str) -> None:
    assert denials.access_denied(POLICY, model, "no") == "RateLimit/team denies this request: no"


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (Reason.CREDENTIAL_MISSING, 401),
        (Reason.CREDENTIAL_INVALID, 403),
        (Reason.CREDENTIAL_EXPIRED, 403),
        (Reason.CREDENTIAL_DISABLED, 403),
    ],
)
def test_only_a_missing_credential_is_a_401(reason: Reason, status: int) -> None:
    assert denials.identity(PolicyRef("Identity", "callers"), reason, "an API key")[0] == status
