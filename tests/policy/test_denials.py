import re
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import (
    CalendarWindow,
    Charge,
    ChargeOutcome,
    Leases,
    PolicyRef,
    Reason,
    SlidingWindow,
    TokenBucket,
    Unit,
    Window,
)
from extproc.policy import calendar, denials

MINUTE_US = 60_000_000
DAY_US = 86_400_000_000
DOLLAR = 10**9
POLICY = PolicyRef("RateLimit", "team")
CAP = PolicyRef("UsageCap", "team-month")
BERLIN = ZoneInfo("Europe/Berlin")
# 2026-11-21T18:00:00Z
AT_US = 1_795_284_000_000_000
NOVEMBER = CalendarWindow(500 * DOLLAR, "month", calendar.edges_us("month", BERLIN, AT_US))


def outcome(
    window: Window | None = None,
    *,
    policy: PolicyRef = POLICY,
    unit: Unit = Unit.TOKENS,
    needs: int = 500,
    used: int = 951,
    wait_us: int | None = 27_030_000,
    limit: int | None = None,
    **more: Any,
) -> ChargeOutcome:
    window = window or TokenBucket(1000, MINUTE_US, 1000)
    charge = Charge(
        policy=policy, counter="c", unit=unit, amount=needs, minimum=needs, window=window, key=("red",)
    )
    told: dict[str, Any] = {"granted": False, "reserved": 0, "remaining": 0, "reset_us": 0} | more
    return ChargeOutcome(
        charge=charge, used=used, wait_us=wait_us, limit=window.size if limit is None else limit, **told
    )


def rate_limited(found: ChargeOutcome, per: str = "per 1m") -> str:
    return denials.full(Reason.RATE_LIMITED, found, per=per, at_us=AT_US, zone=UTC)


def cap_reached(found: ChargeOutcome, per: str = "per month (Europe/Berlin)") -> str:
    return denials.full(Reason.CAP_REACHED, found, per=per, at_us=AT_US, zone=BERLIN)


def spent(window: Window = NOVEMBER, *, wait_us: int) -> ChargeOutcome:
    return outcome(
        window, policy=CAP, unit=Unit.COST_USD, needs=DOLLAR // 8, used=499_980_000_000, wait_us=wait_us
    )


def test_a_full_limit_names_itself_and_ends_with_the_sentence_that_clients_read() -> None:
    assert rate_limited(outcome()) == (
        "Rate limit reached: RateLimit/team on tokens. Limit 1000 per 1m, Used 951, Requested 500. "
        "Please try again in 27.03s."
    )


@pytest.mark.parametrize(
    ("window", "limit", "words"),
    [
        (TokenBucket(1000, MINUTE_US, 1500), 1500, "Limit 1000 per 1m (at most 1500 at once), Used"),
        # With what an override adds.
        (TokenBucket(1000, MINUTE_US, 1500), 1700, "Limit 1000 per 1m (at most 1700 at once), Used"),
        (SlidingWindow(1000, MINUTE_US), 1000, "Limit 1000 per 1m, Used"),
        (SlidingWindow(1000, MINUTE_US), 1200, "Limit 1200 per 1m, Used"),
    ],
)
def test_a_burst_is_told_where_it_is_another_number(window: Window, limit: int, words: str) -> None:
    assert words in rate_limited(outcome(window, limit=limit))


def test_money_is_told_in_dollars() -> None:
    window = TokenBucket(12_500_000_000, MINUTE_US, 20 * DOLLAR)
    found = outcome(window, unit=Unit.COST_USD, needs=15_000, used=12_499_990_000)

    assert rate_limited(found) == (
        "Rate limit reached: RateLimit/team on cost. Limit $12.50 per 1m (at most $20.00 at once), "
        "Used $12.49999, Requested $0.000015. Please try again in 27.03s."
    )


def test_a_cap_tells_its_period_and_when_that_ends_by_the_clock_of_its_zone() -> None:
    found = spent(wait_us=NOVEMBER.edges_us[2] - AT_US)

    assert cap_reached(found) == (
        "Usage cap reached: UsageCap/team-month on cost. Limit $500.00 per month (Europe/Berlin), "
        "Used $499.98, Requested $0.125. It resets at 2026-12-01T00:00:00+01:00."
    )


def test_an_end_is_an_edge_of_the_calendar_although_clocks_differ() -> None:
    for off_us in (-1_500_000, 1_500_000):
        found = spent(wait_us=NOVEMBER.edges_us[2] - AT_US + off_us)
        assert "It resets at 2026-12-01T00:00:00+01:00." in cap_reached(found)


def test_a_cap_that_ends_soon_says_so_to_clients_that_wait() -> None:
    assert cap_reached(spent(wait_us=MINUTE_US)).endswith(". Please try again in 60s.")
    assert "Please try again" not in cap_reached(spent(wait_us=MINUTE_US + 1000))


def test_a_rolling_cap_tells_when_the_request_fits() -> None:
    found = spent(SlidingWindow(500 * DOLLAR, 30 * DAY_US), wait_us=2 * DAY_US - 1)

    assert denials.full(Reason.CAP_REACHED, found, per="in any 30d", at_us=AT_US, zone=UTC).endswith(
        "Limit $500.00 in any 30d, Used $499.98, Requested $0.125. "
        "There is room for this request at 2026-11-23T18:00:00Z."
    )


def test_too_many_at_once_are_told_to_come_back_soon() -> None:
    found = outcome(
        Leases(4, MINUTE_US), policy=PolicyRef("ConcurrencyLimit", "user"), unit=Unit.CONCURRENT_REQUESTS,
        needs=1, used=4, wait_us=1_000_000,
    )  # fmt: skip

    assert denials.full(Reason.CONCURRENCY_LIMITED, found, per="at once", at_us=AT_US, zone=UTC) == (
        "Concurrency limit reached: ConcurrencyLimit/user on requests at once. Limit 4 at once, "
        "Used 4, Requested 1. Please try again in 1s."
    )


@pytest.mark.parametrize(
    ("unit", "ceiling", "message"),
    [
        (
            Unit.TOKENS,
            900,
            (
                "This request needs 5000 tokens, and RateLimit/team never holds more than 1000. "
                "Trying again does not help; an output limit (max_tokens) of at most 900 would."
            ),
        ),
        (
            Unit.INPUT_TOKENS,
            None,
            (
                "This request needs 5000 input tokens, and RateLimit/team never holds more than 1000. "
                "Trying again does not help; a shorter input would."
            ),
        ),
        (
            Unit.COST_USD,
            3,
            (
                "This request needs $0.000005, and RateLimit/team never holds more than $0.000001. "
                "Trying again does not help; an output limit (max_tokens) of at most 3 would."
            ),
        ),
    ],
)
def test_what_never_fits_names_the_largest_ceiling_that_would(
    unit: Unit, ceiling: int | None, message: str
) -> None:
    assert denials.never_fits(outcome(unit=unit, needs=5000, wait_us=None), ceiling) == message


def test_what_never_fits_is_measured_by_the_limit_with_its_override() -> None:
    assert "never holds more than 1200." in denials.never_fits(outcome(needs=5000, limit=1200), None)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (
            outcome(NOVEMBER, policy=CAP, unit=Unit.COST_USD, granted=True),
            "UsageCap/team-month: 83 % of $500.00 used or set aside until 2026-12-01T00:00:00+01:00",
        ),
        (
            outcome(SlidingWindow(500 * DOLLAR, 30 * DAY_US), policy=CAP, granted=True),
            "UsageCap/team-month: 83 % of 500000000000 tokens used or set aside in any 30d",
        ),
    ],
)
def test_a_warning_names_the_share_that_is_used_and_until_when(found: ChargeOutcome, text: str) -> None:
    warning = denials.nearly_full(found, 419_999_999_999, per="in any 30d", zone=BERLIN)

    assert warning == text
    assert warning.isascii()


def test_an_unknown_price_is_told_with_the_model() -> None:
    assert denials.unpriced(CAP, "ours") == (
        'UsageCap/team-month counts dollars, and no price is known for model "ours".'
    )


@pytest.mark.parametrize(
    ("window", "window_s"),
    [
        (TokenBucket(1, 90_000_000, 5), 90),
        (SlidingWindow(1, 90_000_000), 90),
        (NOVEMBER, 30 * 86_400),
        # The hour that Berlin gets back in October.
        (CalendarWindow(1, "day", calendar.edges_us("day", BERLIN, 1_792_900_000_000_000)), 25 * 3600),
        (Leases(1, MINUTE_US), 0),
    ],
)
def test_a_state_tells_how_long_its_window_is(window: Window, window_s: float) -> None:
    assert denials.limit_state(outcome(window)).window_s == window_s


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


@given(st.integers(0, 10**12))
def test_nobody_waits_less_than_it_takes(wait_us: int) -> None:
    wait_ms = denials.limit_state(outcome(wait_us=wait_us)).wait_ms

    assert wait_ms is not None
    assert (wait_ms - 1) * 1000 < wait_us <= wait_ms * 1000


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
