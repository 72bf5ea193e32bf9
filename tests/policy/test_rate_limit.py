"""RateLimit: what its files may say, and the windows that they mean."""

import pytest

from extproc.decision import SlidingWindow, TokenBucket, Unit
from extproc.policy.limited import Limit
from tests.policy.conftest import Load, Problems, written

MINUTE_US = 60_000_000


def limit(load: Load, spec: str) -> Limit:
    (loaded,) = load(("RateLimit", "l", spec)).limits
    return loaded


@pytest.mark.parametrize(
    ("spec", "unit", "window"),
    [
        ("limit: {requests: 5, per: 1m}", Unit.REQUESTS, TokenBucket(5, MINUTE_US, 5)),
        ("limit: {tokens: 5, per: 1h30m}", Unit.TOKENS, TokenBucket(5, 90 * MINUTE_US, 5)),
        ("limit: {inputTokens: 5, per: 1m, burst: 9}", Unit.INPUT_TOKENS, TokenBucket(5, MINUTE_US, 9)),
        ("limit: {outputTokens: 5, per: 1m, burst: 2}", Unit.OUTPUT_TOKENS, TokenBucket(5, MINUTE_US, 2)),
        (
            "limit: {costUsd: 2.5, per: 1m, burst: '12.000000001'}",
            Unit.COST_USD,
            TokenBucket(2_500_000_000, MINUTE_US, 12_000_000_001),
        ),
        (
            "limit: {costUsd: 4000000, per: 1m}",
            Unit.COST_USD,
            TokenBucket(4 * 10**15, MINUTE_US, 4 * 10**15),
        ),
        (
            "{limit: {tokens: 5, per: 1m}, algorithm: slidingWindow}",
            Unit.TOKENS,
            SlidingWindow(5, MINUTE_US),
        ),
    ],
)
def test_a_limit_means_a_window(load: Load, spec: str, unit: Unit, window: object) -> None:
    loaded = limit(load, spec).spec

    assert (loaded.unit, loaded.window(0)) == (unit, window)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("limit: {costUsd: 5, tokens: 5, per: 1m}", "exactly one of requests, tokens"),
        ("limit: {costUsd: 0, per: 1m}", "more than 0"),
        ("limit: {costUsd: '-1', per: 1m}", "not negative"),
        ("limit: {costUsd: 4000000.01, per: 1m}", "at most 4000000"),
        ("limit: {costUsd: 0.0000000001, per: 1m}", "at most nine decimals"),
        ("limit: {costUsd: true, per: 1m}", "a decimal number"),
        ("limit: {costUsd: $5, per: 1m}", "a decimal number"),
        ("limit: {costUsd: 5, per: 1m, burst: 0}", "more than 0"),
        ("limit: {tokens: 5, per: 1m, burst: 0}", "between 1 and"),
        ("limit: {tokens: 5, per: 1m, burst: 2.5}", "a whole number"),
        ("limit: {tokens: 5, per: 1m, burst: true}", "a whole number"),
        ("{limit: {tokens: 5, per: 1m, burst: 9}, algorithm: slidingWindow}", "burst goes with"),
        ("{limit: {tokens: 5, per: 1m}, algorithm: leakyBucket}", "tokenBucket or slidingWindow"),
        ("{limit: {tokens: 5, per: 1m}, period: day}", "no field 'period'"),
    ],
)
def test_what_no_limit_can_mean_does_not_load(problems: Problems, spec: str, words: str) -> None:
    found = problems(a=written("RateLimit", "l", spec))

    assert any(words in problem.message for problem in found), found


@pytest.mark.parametrize(
    ("own", "default", "reserve"),
    [
        ("", None, "expected"),
        ("", "declared", "declared"),
        ("\nreserve: declared", None, "declared"),
        ("\nreserve: expected", "declared", "expected"),
    ],
)
def test_a_rate_expects_what_answers_usually_need_unless_told_otherwise(
    load: Load, own: str, default: str | None, reserve: str
) -> None:
    spec = limit(load, f"limit: {{tokens: 5, per: 1m}}{own}").spec

    assert spec.reserves(default) == reserve  # type: ignore[arg-type]  # a row of the table
