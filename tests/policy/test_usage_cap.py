"""UsageCap: what its files may say, and what they mean."""

from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from extproc.decision import CalendarWindow, SlidingWindow, Unit
from extproc.policy.calendar import edges_us
from extproc.policy.kinds.usage_cap import UsageCap
from extproc.policy.spending import Reserve
from tests.policy.conftest import Load, Problems, written

AT_US = int(datetime.fromisoformat("2026-11-21T18:00:00+00:00").timestamp()) * 10**6
DAY_US = 86_400_000_000


def cap(load: Load, spec: str) -> UsageCap:
    (loaded,) = load(("UsageCap", "c", spec)).limits
    assert isinstance(loaded.spec, UsageCap)
    return loaded.spec


@pytest.mark.parametrize("period", ["hour", "day", "week", "month", "year"])
@pytest.mark.parametrize("zone", ["", "Asia/Kathmandu"])
def test_a_period_is_that_of_its_zone(load: Load, period: str, zone: str) -> None:
    spec = f"limit: {{tokens: 5}}\nperiod: {period}" + (f"\ntimezone: {zone}" if zone else "")
    loaded = cap(load, spec)

    edges = edges_us(period, ZoneInfo(zone or "UTC"), AT_US)
    assert loaded.window(AT_US) == CalendarWindow(5, period, edges)
    assert loaded.window(edges[2]) == CalendarWindow(
        5, period, edges_us(period, ZoneInfo(zone or "UTC"), edges[2])
    )
    assert loaded.per == f"per {period} ({zone or 'UTC'})"


def test_a_rolling_cap_looks_back_from_any_time(load: Load) -> None:
    loaded = cap(load, "limit: {costUsd: '12.50'}\nrolling: 30d")

    assert loaded.unit is Unit.COST_USD
    assert loaded.window(AT_US) == loaded.window(0) == SlidingWindow(12_500_000_000, 30 * DAY_US)
    assert loaded.per == "in any 30d"


def test_what_is_left_out_is_safe(load: Load) -> None:
    loaded = cap(load, "limit: {requests: 5}\nperiod: day")

    assert (loaded.on_error, loaded.substitute, loaded.warning_shares) == ("deny", "", ())
    assert loaded.reserves(None) == "declared"


@pytest.mark.parametrize("reserve", ["declared", "expected"])
def test_what_a_cap_reserves_can_be_said_of_all_and_of_one(load: Load, reserve: Reserve) -> None:
    assert cap(load, "limit: {tokens: 5}\nperiod: day").reserves(reserve) == reserve
    own = cap(load, f"limit: {{tokens: 5}}\nperiod: day\nreserve: {reserve}")
    assert [own.reserves(other) for other in (None, "declared", "expected")] == [reserve] * 3


def test_shares_and_substitutes_are_as_they_are_written(load: Load) -> None:
    loaded = cap(
        load, "limit: {tokens: 5}\nperiod: day\nwarnAt: [0.5, '0.80']\nonExceed: {useModel: Qwen/Qwen2.5-7B}"
    )

    assert loaded.warning_shares == (Decimal("0.5"), Decimal("0.8"))
    assert loaded.substitute == "Qwen/Qwen2.5-7B"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("{limit: {tokens: 5}}", "exactly one of period, rolling"),
        ("{limit: {tokens: 5}, period: day, rolling: 1d}", "exactly one of period, rolling"),
        ("{limit: {tokens: 5}, period: decade}", "hour, day, week, month or year"),
        ("{limit: {tokens: 5}, period: day, timezone: Mars/Olympus}", "IANA name"),
        ("{limit: {tokens: 5}, period: day, timezone: 2}", "IANA name"),
        ("{limit: {tokens: 5}, period: day, timezone: localtime}", "IANA name"),
        ("{limit: {tokens: 5}, rolling: 1d, timezone: UTC}", "timezone goes with period"),
        ("{limit: {tokens: 5}, rolling: 59s}", "between 1m and 366d"),
        ("{limit: {tokens: 5}, rolling: 367d}", "between 1m and 366d"),
        ("{limit: {tokens: 5, per: 1d}, period: day}", "no field 'per'"),
        ("{limit: {tokens: 5, costUsd: 5}, period: day}", "exactly one of requests"),
        ("{limit: {}, period: day}", "exactly one of requests"),
        ("{limit: {tokens: 5}, period: day, warnAt: [0]}", "more than 0"),
        ("{limit: {tokens: 5}, period: day, warnAt: [1]}", "less than 1"),
        ("{limit: {tokens: 5}, period: day, warnAt: [80]}", "less than 1"),
        ("{limit: {tokens: 5}, period: day, warnAt: 0.8}", "a list"),
        ("{limit: {tokens: 5}, period: day, onExceed: allow}", "onExceed is deny, or"),
        ("{limit: {tokens: 5}, period: day, onExceed: {model: m}}", "onExceed is deny, or"),
        ("{limit: {tokens: 5}, period: day, onExceed: {useModel: m, x: 1}}", "onExceed is deny, or"),
        ("{limit: {tokens: 5}, period: day, onExceed: {useModel: ''}}", "name of a model"),
        ("{limit: {tokens: 5}, period: day, onExceed: {useModel: a b}}", "name of a model"),
        ("{limit: {tokens: 5}, period: day, onExceed: {useModel: [m]}}", "name of a model"),
    ],
)
def test_what_no_cap_can_mean_does_not_load(problems: Problems, spec: str, words: str) -> None:
    found = problems(a=written("UsageCap", "c", spec))

    assert any(words in problem.message for problem in found), found


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("{}", "'max' is missing"),
        ("{max: 0}", "at least 1"),
        ("{max: 1000001}", "at most 1000000"),
        ("{max: 1.5}", "a whole number"),
        ("{max: 4, limit: {requests: 4}}", "no field 'limit'"),
    ],
)
def test_what_no_concurrency_limit_can_mean_does_not_load(problems: Problems, spec: str, words: str) -> None:
    (found,) = problems(a=written("ConcurrencyLimit", "c", spec))

    assert words in found.message
