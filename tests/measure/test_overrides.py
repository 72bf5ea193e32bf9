"""Whose price holds, from when, and what it comes to."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices.types import ClauseStartsWith, ModelInfo, ModelPrice, Provider
from hypothesis import given
from hypothesis import strategies as st

from extproc.decision import Cost
from extproc.measure.overrides import ALWAYS_NS, NO_PRICES, Override, Overrides
from extproc.measure.prices import Prices
from extproc.measure.tariff import Tariff
from extproc.model import Usage

USAGE = Usage(input_tokens=1000, output_tokens=100)


def ns(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 10**9


AT_NS = ns("2026-06-15")


def own(name: str, *models: str, price: str = "1", provider: str = "", begins: str = "") -> Override:
    dollars = Decimal(price)
    return Override(
        revision=name,
        models=models,
        provider=provider,
        tariff=Tariff({"input_mtok": dollars, "output_mtok": dollars}),
        begins_ns=ns(begins) if begins else ALWAYS_NS,
    )


def published(**prices: Decimal) -> Prices:
    model = ModelInfo(id="m", match=ClauseStartsWith("m"), prices=ModelPrice(**prices))
    providers = [Provider(id=name, name=name, api_pattern=name, models=[model]) for name in ("p", "google")]
    return Prices(providers, revision="list")


LISTED = published(input_mtok=Decimal(2), output_mtok=Decimal(10))


def cost(
    *overrides: Override,
    requested: str = "m",
    answered: str = "",
    provider: str = "p",
    at_ns: int = AT_NS,
    usage: Usage = USAGE,
) -> Cost | None:
    book = Overrides(overrides).over(LISTED)
    return book.cost(usage, provider=provider, requested=requested, answered=answered, at_ns=at_ns)


def winner(*overrides: Override, requested: str = "m-1", answered: str = "", provider: str = "p") -> str:
    found = cost(*overrides, requested=requested, answered=answered, provider=provider)
    return "" if found is None else found.revision


# --- whose price


def test_without_an_override_the_published_price_holds() -> None:
    assert cost() == Cost(1000 * 2000 + 100 * 10_000, "list")
    assert cost(own("other", "x")) == Cost(3_000_000, "list")


def test_an_override_replaces_the_published_price_and_says_so() -> None:
    assert cost(own("Price/own@abc", "m")) == Cost(1_100_000, "Price/own@abc")


def test_a_model_that_nobody_publishes_gets_a_price() -> None:
    assert cost(requested="ours", provider="own") is None
    assert cost(own("mine", "ours"), requested="ours", provider="own") == Cost(1_100_000, "mine")


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (own("better", "m-1"), own("worse", "m-*")),
        (own("better", "m-1"), own("worse", "m-*", provider="p")),
        (own("better", "m-*"), own("worse", "m*")),
        (own("better", "m-*"), own("worse", "*", provider="p")),
        (own("better", "m-*", provider="p"), own("worse", "m-*")),
        (own("better", "m-1", provider="p"), own("worse", "m-1")),
        (own("better", "m-1", begins="2026-06-01"), own("worse", "m-1", begins="2026-01-01")),
        (own("better", "m-1", begins="2026-06-01"), own("worse", "m-1")),
        (own("better", "m-1", provider="p"), own("worse", "m-1", begins="2026-06-01")),
        (own("better", "m-*"), own("worse", "m-1", begins="2026-06-16")),
        (own("better", "x", "m-1"), own("worse", "m-*", "m")),
        (own("better", "m-1"), own("worse", "m-1", provider="q")),
    ],
)
def test_the_most_specific_override_that_has_begun_holds(better: Override, worse: Override) -> None:
    assert winner(better, worse) == "better"
    assert winner(worse, better) == "better"


def test_a_day_begins_at_midnight_utc_and_belongs_to_its_price() -> None:
    price = own("new", "m", begins="2026-06-15")

    costs = [cost(price, at_ns=AT_NS + offset) for offset in (-1, 0)]
    assert [found and found.revision for found in costs] == ["list", "new"]


def test_the_name_that_answered_and_the_one_that_was_asked_for_both_find_a_price() -> None:
    dated, alias = own("dated", "m-2026-01-01"), own("alias", "m")

    assert winner(alias, requested="m", answered="m-2026-01-01") == "alias"
    assert winner(dated, requested="m", answered="m-2026-01-01") == "dated"
    assert winner(alias, dated, requested="m", answered="m-2026-01-01") == "dated"
    assert winner(alias, own("prefix", "m-*"), requested="m", answered="m-2026-01-01") == "alias"


def test_on_bedrock_the_name_that_was_asked_for_comes_first() -> None:
    asked, answered = own("asked", "eu.m"), own("answered", "m")

    assert winner(asked, answered, requested="eu.m", answered="m", provider="aws.bedrock") == "asked"


@pytest.mark.parametrize("name", ["M-1", "google/m-1", "models/M-1"])
def test_a_dialects_spelling_finds_the_price_of_the_model(name: str) -> None:
    assert winner(own("own", "m-1"), requested=name, provider="gcp.gemini") == "own"
    assert winner(own("own", "google/*"), requested="google/m-1", provider="gcp.vertex_ai") == "own"


@pytest.mark.parametrize("name", ["", "x" * 100_000, "İ" * 400])
def test_any_name_has_the_price_of_any_model(name: str) -> None:
    """A server with one model may be asked for any."""
    assert winner(own("any", "*"), requested=name, provider="own") == "any"


# --- what it comes to


def test_a_discount_is_taken_off_what_is_published_and_names_both() -> None:
    discount = Override(revision="Price/ours@abc", models=("m",), percent=Decimal("87.5"))

    assert cost(discount) == Cost(2_625_000, "Price/ours@abc of list")
    assert cost(discount, requested="x") is None


def test_a_discount_on_nothing_published_is_no_price() -> None:
    assert cost(Override(revision="r", models=("*",), percent=Decimal(50)), requested="x") is None


def test_a_bill_is_rounded_once_also_under_a_discount() -> None:
    book = Overrides([Override(revision="r", models=("m",), percent=Decimal(50))]).over(
        published(input_mtok=Decimal("0.0005"))
    )

    # Half a nano-dollar a token, of which half is paid: rounded twice, the second would be 1.
    found = [
        book.cost(Usage(input_tokens=count), provider="p", requested="m", at_ns=AT_NS)
        for count in (1, 2, 3, 5)
    ]
    assert [cost and cost.nano_usd for cost in found] == [0, 1, 1, 1]


def test_a_direction_without_a_price_has_no_cost_rather_than_zero() -> None:
    tariff = Tariff({"input_mtok": Decimal(1)})
    embeddings = Override(revision="r", models=("m",), tariff=tariff, has_output=False)

    assert cost(embeddings, usage=Usage(input_tokens=9, output_tokens=0)) == Cost(9000, "r")
    assert cost(embeddings, usage=Usage(input_tokens=9, output_tokens=1)) is None


def test_sound_billed_by_its_length_has_no_price_by_tokens() -> None:
    heard = Usage(input_tokens=0, output_tokens=0, input_audio_ms=5000)

    assert cost(own("r", "m"), usage=heard) is None
    assert cost(own("r", "m"), usage=Usage(input_tokens=0, output_tokens=0)) == Cost(0, "r")


def test_what_was_not_done_costs_nothing_and_names_the_published_prices() -> None:
    assert Overrides([own("r", "m")]).over(LISTED).nothing() == Cost(0, "list")


def test_without_any_price_nothing_has_a_cost() -> None:
    assert NO_PRICES.cost(USAGE, provider="p", requested="m", at_ns=AT_NS) is None


# --- looking up


def test_a_price_is_looked_up_once_however_often_it_is_asked_for() -> None:
    overrides = Overrides([own("r", "m")])
    for _ in range(5):
        overrides.find("p", "m", "", AT_NS)

    assert overrides._found.cache_info().misses == 1


def test_names_that_callers_choose_are_forgotten_again() -> None:
    overrides = Overrides([own("r", "m")])
    for number in range(3000):
        overrides.find("p", f"m{number}", "", AT_NS)

    assert overrides._found.cache_info().currsize == 1024


@given(
    price=st.decimals(0, 1_000_000, places=9),
    usage=st.builds(
        Usage,
        input_tokens=st.integers(0, 10**8),
        output_tokens=st.integers(0, 10**8),
        cache_read_input_tokens=st.none() | st.integers(0, 10**9),
        reasoning_output_tokens=st.none() | st.integers(0, 10**9),
    ),
)
def test_parts_without_a_price_have_that_of_their_whole(price: Decimal, usage: Usage) -> None:
    found = cost(own("r", "m", price=str(price)), usage=usage)

    tokens = (usage.input_tokens or 0) + (usage.output_tokens or 0)
    # Whole numbers: halves up.
    scaled = int(price * 10**9) * tokens
    assert found == Cost((scaled + 500_000) // 10**6, "r")
