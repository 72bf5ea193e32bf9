"""What a request takes of each unit before anyone answered."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Unit
from extproc.measure.overrides import NO_PRICES, Override, Overrides, PriceBook
from extproc.measure.prices import Prices
from extproc.measure.tariff import INPUT, OUTPUT, Tariff
from extproc.model import AIRequest, TokenEstimate
from extproc.policy import spending
from extproc.policy.spending import Measure, Reserve, Taken

TOKENS = TokenEstimate(input=100, input_upper_bound=400, max_output=1000)
PER_TOKEN = (Unit.TOKENS, Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS)


def book(input_usd: str = "1", output_usd: str = "8", *, begins_ns: int = 0) -> PriceBook:
    """Dollars for a million tokens of `m`."""
    tariff = Tariff({INPUT: Decimal(input_usd), OUTPUT: Decimal(output_usd)})
    return Overrides([Override(revision="r", models=("m",), begins_ns=begins_ns, tariff=tariff)]).over(
        Prices()
    )


def request(*, choices: int = 1, declared: int | None = None, operation: str = "chat") -> AIRequest:
    return AIRequest(
        api="openai_chat", provider="openai", operation=operation, model="m", models=("m",),
        choices=choices, max_output_tokens=declared,
    )  # fmt: skip


def measure(
    asked: AIRequest | None,
    tokens: TokenEstimate = TOKENS,
    *,
    expected: int | None = None,
    prices: PriceBook = NO_PRICES,
) -> Measure:
    return Measure(
        activated=None, request=asked, tokens=tokens, reserve=None, expected_output_tokens=expected,
        prices=prices,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("unit", "asked", "reserve", "expected", "amounts"),
    [
        (Unit.REQUESTS, request(), "declared", None, (1, 1)),
        (Unit.CONCURRENT_REQUESTS, request(choices=3), "declared", None, (1, 1)),
        (Unit.INPUT_TOKENS, request(declared=1000), "declared", None, (100, 100)),
        (Unit.TOKENS, request(declared=1000), "declared", 40, (1100, 1100)),
        (Unit.TOKENS, request(declared=1000), "expected", 40, (140, 140)),
        (Unit.TOKENS, request(declared=1000), "expected", None, (1100, 1100)),
        (Unit.TOKENS, request(declared=1000), "expected", 9999, (1100, 1100)),
        (Unit.TOKENS, request(declared=1000, choices=3), "declared", None, (3100, 3100)),
        (Unit.TOKENS, request(declared=1000, choices=3), "expected", 40, (220, 220)),
        (Unit.OUTPUT_TOKENS, request(declared=1000, choices=2), "declared", None, (2000, 2000)),
        # A dollar for a million tokens is a thousand nano-dollars a token.
        (Unit.COST_USD, request(declared=1000), "declared", 40, (8_100_000, 8_100_000)),
        (Unit.COST_USD, request(declared=1000, choices=2), "expected", 40, (740_000, 740_000)),
        # No ceiling declared: whatever is left after the input will do.
        (Unit.TOKENS, request(), "declared", None, (1100, 101)),
        (Unit.TOKENS, request(), "expected", 40, (140, 101)),
        (Unit.TOKENS, request(choices=2), "expected", 40, (180, 101)),
        (Unit.OUTPUT_TOKENS, request(), "declared", None, (1000, 1)),
        (Unit.INPUT_TOKENS, request(), "declared", None, (100, 100)),
        (Unit.COST_USD, request(), "declared", None, (8_100_000, 108_000)),
        (Unit.COST_USD, request(), "expected", 40, (420_000, 108_000)),
    ],
)
def test_what_a_request_takes(
    unit: Unit, asked: AIRequest, reserve: Reserve, expected: int | None, amounts: tuple[int, int]
) -> None:
    """The amount, and the least that will do."""
    taken = spending.taken(unit, measure(asked, expected=expected, prices=book()), reserve)

    assert taken == Taken(*amounts)


@pytest.mark.parametrize(
    ("others", "amount"),
    [
        (("dear",), 81_000_000),
        (("cheap", "dear", "m"), 81_000_000),
        (("cheap",), 8_100_000),
        (("nonsense",), 8_100_000),
        (tuple(f"nonsense-{number}" for number in range(1000)), 8_100_000),
    ],
)
def test_a_request_that_falls_back_to_other_models_takes_what_the_dearest_costs(
    others: tuple[str, ...], amount: int
) -> None:
    """A cheap first name is no way below a cap; neither is a name without a price a way past it."""
    tariffs = {"m": ("1", "8"), "dear": ("10", "80"), "cheap": ("0", "1")}
    overrides = [
        Override(
            revision="r",
            models=(model,),
            begins_ns=0,
            tariff=Tariff({INPUT: Decimal(given), OUTPUT: Decimal(made)}),
        )
        for model, (given, made) in tariffs.items()
    ]
    asked = replace(request(declared=1000), models=("m", *others))

    taken = spending.taken(
        Unit.COST_USD, measure(asked, prices=Overrides(overrides).over(Prices())), "declared"
    )

    assert taken == Taken(amount, amount)


@pytest.mark.parametrize("asked", [None, request(operation="control")])
def test_what_spends_nothing_costs_a_request_and_no_tokens_and_no_money(asked: AIRequest | None) -> None:
    told = measure(asked, prices=book())

    assert [spending.taken(unit, told, "declared") for unit in (Unit.REQUESTS, Unit.CONCURRENT_REQUESTS)] == [
        Taken(1, 1)
    ] * 2
    assert {spending.taken(unit, told, "declared") for unit in (*PER_TOKEN, Unit.COST_USD)} == {Taken(0, 0)}


@pytest.mark.parametrize("operation", ["chat", "batch"])
def test_what_has_no_price_takes_nobody_knows_how_much(operation: str) -> None:
    asked = request(operation=operation)
    prices = NO_PRICES if operation == "chat" else book()

    assert spending.taken(Unit.COST_USD, measure(asked, prices=prices), "declared") is None


def test_a_price_holds_from_its_day_on() -> None:
    told = measure(request(), prices=book(begins_ns=1))

    assert told.at_ns == 0
    assert spending.taken(Unit.COST_USD, told, "declared") is None


@pytest.mark.parametrize("unit", [*PER_TOKEN, Unit.COST_USD])
def test_what_shows_nothing_takes_something_so_that_what_it_reports_is_charged(unit: Unit) -> None:
    """A run of a thread has its input at the provider; models that usually say nothing may speak."""
    nothing = TokenEstimate(input=0, max_output=1000)
    taken = spending.taken(unit, measure(request(), nothing, expected=0, prices=book()), "expected")

    assert taken is not None
    assert 0 < taken.minimum <= taken.amount <= 8_000


def test_what_never_generates_takes_no_output() -> None:
    told = measure(request(operation="embeddings"), TokenEstimate(input=100))

    assert spending.taken(Unit.OUTPUT_TOKENS, told, "declared") == Taken(0, 0)


def test_what_is_free_takes_no_money() -> None:
    told = measure(request(declared=5), prices=book("0", "0"))

    assert spending.taken(Unit.COST_USD, told, "declared") == Taken(0, 0)


@pytest.mark.parametrize("unit", [Unit.TOKENS, Unit.OUTPUT_TOKENS, Unit.COST_USD])
def test_an_absurd_ceiling_takes_more_than_any_limit_holds_and_no_more_than_stores_can_count(
    unit: Unit,
) -> None:
    tokens = TokenEstimate(input=1, max_output=10**40)
    taken = spending.taken(unit, measure(request(declared=10**40), tokens, prices=book()), "declared")

    assert taken is not None
    assert 4 * 10**15 < taken.minimum <= taken.amount < 2**53


@given(
    unit=st.sampled_from([*PER_TOKEN, Unit.COST_USD]),
    choices=st.integers(1, 4),
    given_tokens=st.integers(0, 5000),
    ceiling=st.integers(0, 5000),
    declares=st.booleans(),
    expected=st.none() | st.integers(0, 5000),
)
def test_the_least_is_no_more_than_the_amount_and_expecting_takes_no_more_than_declaring(
    *, unit: Unit, choices: int, given_tokens: int, ceiling: int, declares: bool, expected: int | None
) -> None:
    asked = request(choices=choices, declared=ceiling if declares else None)
    tokens = TokenEstimate(input=given_tokens, max_output=ceiling)
    told = measure(asked, tokens, expected=expected, prices=book())
    declared, usual = (spending.taken(unit, told, reserve) for reserve in ("declared", "expected"))

    assert declared is not None is not usual
    assert usual.minimum <= usual.amount <= declared.amount
    assert declared.minimum == declared.amount or not declares
    assert usual.minimum <= declared.minimum


@given(
    unit=st.sampled_from([Unit.TOKENS, Unit.OUTPUT_TOKENS, Unit.COST_USD]),
    choices=st.integers(1, 8),
    given_tokens=st.integers(0, 2000),
    size=st.integers(1, 10**8),
    price=st.sampled_from(["0", "0.02", "15"]),
)
def test_the_largest_ceiling_fits_and_one_more_does_not(
    unit: Unit, choices: int, given_tokens: int, size: int, price: str
) -> None:
    most = 200_000
    told = measure(
        request(choices=choices), TokenEstimate(input=given_tokens, max_output=most), prices=book("2", price)
    )

    def needs(ceiling: int) -> int:
        tokens = TokenEstimate(input=given_tokens, max_output=ceiling)
        asked = request(choices=choices, declared=ceiling)
        taken = spending.taken(unit, measure(asked, tokens, prices=book("2", price)), "declared")
        assert taken is not None
        return taken.minimum

    ceiling = spending.largest_ceiling(unit, size, told)

    assert ceiling is None or needs(ceiling) <= size
    assert ceiling == most or needs((ceiling or 0) + 1) > size


@pytest.mark.parametrize("unit", [Unit.REQUESTS, Unit.CONCURRENT_REQUESTS, Unit.INPUT_TOKENS])
def test_no_ceiling_makes_a_request_smaller_that_is_not_counted_by_its_output(unit: Unit) -> None:
    assert spending.largest_ceiling(unit, 1, measure(request())) is None
