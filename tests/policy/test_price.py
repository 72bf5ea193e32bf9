"""The kind Price: what a folder says of money, and what it may not say."""

from datetime import UTC, datetime
from decimal import Decimal

import jsonschema
import pytest
import yaml

from extproc.decision import Cost
from extproc.measure.prices import Prices
from extproc.model import Usage
from extproc.policy.kinds.price import Price
from extproc.policy.policyset import PolicySet
from tests.policy.conftest import SAMPLES, Load, Problems, written

USAGE = Usage(
    input_tokens=1000, output_tokens=100, cache_read_input_tokens=400, reasoning_output_tokens=50
)  # fmt: skip
OWN = ("Provider", "own", "{provider: own_llms, basePath: /own/v1, formats: [openai_chat]}")


def ns(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 10**9


def price(spec: str, name: str = "own") -> tuple[str, str, str]:
    return ("Price", name, spec)


def cost(
    policies: PolicySet, *, provider: str = "openai", model: str = "ours", day: str = "2026-11-01"
) -> Cost | None:
    book = policies.prices.over(Prices())
    return book.cost(USAGE, provider=provider, requested=model, at_ns=ns(day))


def amount(policies: PolicySet, model: str = "ours") -> int | None:
    found = cost(policies, model=model)
    return None if found is None else found.nano_usd


# --- what an object says


def test_a_price_by_tokens_names_its_object_and_the_folders_revision(load: Load) -> None:
    policies = load(price('{models: [ours], usdPerMillion: {input: "2.50", output: 10}}'))

    expected = 1000 * 2500 + 100 * 10_000
    assert cost(policies) == Cost(expected, f"Price/own@{policies.revision}")
    assert cost(policies, model="theirs") is None


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ("input: 1, output: 2", 1_000_000 + 200_000),
        ('input: 1, output: 2, cacheRead: "0.1"', 600_000 + 40_000 + 200_000),
        ("input: 1, output: 2, reasoningOutput: 4", 1_000_000 + 100_000 + 200_000),
        ("input: 1, output: 2, cacheWrite: 9, cacheWrite1h: 9, audioInput: 9, imageInput: 9", 1_200_000),
        ("input: 0, output: 0", 0),
        ("input: 1", None),
        ("output: 1", None),
    ],
)
def test_a_part_has_its_own_price_or_that_of_its_whole(load: Load, parts: str, expected: int | None) -> None:
    assert amount(load(price(f"{{models: [ours], usdPerMillion: {{{parts}}}}}"))) == expected


def test_written_caches_have_prices_of_their_own(load: Load) -> None:
    policies = load(
        price("{models: [ours], usdPerMillion: {input: 1, output: 1, cacheWrite: 2, cacheWrite1h: 3}}")
    )
    usage = Usage(
        input_tokens=100,
        output_tokens=0,
        cache_creation_input_tokens=60,
        cache_creation_1h_input_tokens=20,
    )

    found = policies.prices.over(Prices()).cost(usage, provider="p", requested="ours", at_ns=0)
    assert found is not None
    assert found.nano_usd == 40 * 1000 + 40 * 2000 + 20 * 3000


@pytest.mark.parametrize(
    ("written_as", "meant"),
    [
        *((text, "0.1") for text in ("0.1", '"0.1"', "'0.10'", "1e-1")),
        ("999999.123456789", "999999.123456789"),
        ("1e6", "1000000"),
        ("1e-9", "0.000000001"),
    ],
)
def test_an_amount_is_exact_however_it_is_written(load: Load, written_as: str, meant: str) -> None:
    policies = load(price(f"{{models: [ours], usdPerMillion: {{input: {written_as}, output: 0}}}}"))
    (item,) = (item.spec for item in policies.objects if isinstance(item.spec, Price))

    assert item.usd_per_million is not None
    assert item.usd_per_million.input == Decimal(meant)


def test_a_price_of_the_folders_own_provider_is_for_that_provider_alone(load: Load) -> None:
    policies = load(OWN, price('{provider: own_llms, models: ["*"], usdPerMillion: {input: 1, output: 1}}'))

    assert cost(policies, provider="own_llms", model="any") is not None
    assert cost(policies, model="any") is None


@pytest.mark.parametrize("begins", ["2026-11-02", '"2026-11-02"'])
def test_a_price_holds_from_its_day_on(load: Load, begins: str) -> None:
    policies = load(
        price("{models: [ours], usdPerMillion: {input: 1, output: 1}}", "old"),
        price(f"{{models: [ours], from: {begins}, usdPerMillion: {{input: 2, output: 2}}}}", "new"),
    )

    costs = [cost(policies, day=day) for day in ("2026-11-01T23:59:59", "2026-11-02")]
    assert [found and found.nano_usd for found in costs] == [1_100_000, 2_200_000]


def test_a_discount_names_the_object_and_the_published_prices(load: Load) -> None:
    policies = load(price('{provider: openai, models: ["gpt-4o-mini*"], discountPercent: 12.5}'))
    published = Prices.bundled()
    usage = Usage(input_tokens=1000, output_tokens=0)

    found = policies.prices.over(published).cost(
        usage, provider="openai", requested="gpt-4o-mini", at_ns=ns("2026-11-01")
    )
    assert found == Cost(131_250, f"Price/own@{policies.revision} of {published.revision}")


def test_the_sample_prices_what_is_self_hosted_and_nothing_else(samples: PolicySet) -> None:
    assert cost(samples, provider="own_llms", model="mixtral") is not None
    assert [
        found and found.nano_usd
        for day in ("2026-12-31", "2027-01-01")
        for found in [cost(samples, provider="own_llms", model="llama-3.3-70b", day=day)]
    ] == [600 * 200 + 400 * 20 + 100 * 600, 1000 * 350 + 100 * 900]
    published = Prices.bundled()
    for provider, model in (
        ("openai", "gpt-4o-mini"),
        ("anthropic", "claude-sonnet-4-5"),
        ("gcp.gemini", "gemini-2.5-flash"),
    ):
        found = samples.prices.over(published).cost(USAGE, provider=provider, requested=model, at_ns=0)
        assert found is not None
        assert found.revision == published.revision


def test_a_folder_without_prices_has_none(load: Load) -> None:
    assert cost(load()) is None


# --- what does not load


@pytest.mark.parametrize(
    ("spec", "words", "place"),
    [
        ("models: [m]", "exactly one of usdPerMillion, discountPercent", (6, 3)),
        ("models: [m]\nusdPerMillion: {input: 1}\ndiscountPercent: 1", "exactly one of", (6, 3)),
        ("discountPercent: 1", "'models' is missing", (6, 3)),
        ("models: []\ndiscountPercent: 1", "at least one model", (6, 11)),
        ("models: [GPT-4]\ndiscountPercent: 1", "lower case", (6, 12)),
        ('models: ["a*b"]\ndiscountPercent: 1', "only a beginning of names ends in *", (6, 12)),
        ('models: ["a b"]\ndiscountPercent: 1', "without spaces", (6, 12)),
        ('models: [""]\ndiscountPercent: 1', "a model is lower case", (6, 12)),
        ("models: [m, m]\ndiscountPercent: 1", "there twice", (6, 11)),
        ("models: [m]\nprovider: opneai\ndiscountPercent: 1", "the providers are", (7, 13)),
        ("models: [m]\ndiscountPercent: 101", "between 0 and 100", (7, 20)),
        ("models: [m]\ndiscountPercent: -1", "not negative", (7, 20)),
        ("models: [m]\ndiscountPercent: true", "decimal number", (7, 20)),
        ("models: [m]\nusdPerMillion: {}", "at least one of input, output", (7, 18)),
        ("models: [m]\nusdPerMillion: {cacheRead: 1}", "input must be given too", (7, 18)),
        ("models: [m]\nusdPerMillion: {input: 1, audioOutput: 1}", "output must be given too", (7, 18)),
        ("models: [m]\nusdPerMillion: {input: -0.1}", "not negative", (7, 26)),
        ("models: [m]\nusdPerMillion: {input: $2}", "not negative", (7, 26)),
        ("models: [m]\nusdPerMillion: {input: .inf}", "decimal number", (7, 26)),
        ("models: [m]\nusdPerMillion: {input: .nan}", "decimal number", (7, 26)),
        ("models: [m]\nusdPerMillion: {input: 1e300}", "decimal number", (7, 26)),
        ("models: [m]\nusdPerMillion: {input: 1000001}", "more than a dollar a token", (7, 26)),
        ('models: [m]\nusdPerMillion: {input: "0.1234567891"}', "nine decimals", (7, 26)),
        ("models: [m]\nusdPerMillion: {input: 0.1234567890123456789}", "nine decimals", (7, 26)),
        ("models: [m]\nusdPerMillion: {inptu: 1}", "cacheWrite1h", (7, 19)),
        ("models: [m]\nfrom: 2026-02-30\ndiscountPercent: 1", "a day is wanted", (7, 9)),
        ("models: [m]\nfrom: 2026-W01-1\ndiscountPercent: 1", "a day is wanted", (7, 9)),
        ('models: [m]\nfrom: "2026-01-01T00:00:00Z"\ndiscountPercent: 1', "a day is wanted", (7, 9)),
        ("models: [m]\nfrom: 20260101\ndiscountPercent: 1", "a day is wanted", (7, 9)),
        ("models: [m]\nfrom:\ndiscountPercent: 1", "from has no value", (7, 8)),
        ("models: [m]\nmode: shadow\ndiscountPercent: 1", "no field 'mode'", (7, 3)),
    ],
)
def test_what_makes_no_sense_is_told_where_it_stands(
    problems: Problems, spec: str, words: str, place: tuple[int, int]
) -> None:
    (found,) = problems(a=written("Price", "a", spec))

    assert words in found.message
    assert (found.file, found.line, found.column) == ("a.yaml", *place)


def test_two_prices_of_one_model_from_one_day_on_are_a_conflict_that_names_both(problems: Problems) -> None:
    spec = "{provider: openai, models: [%s], from: 2026-01-01, discountPercent: 1}"
    (found,) = problems(
        a=written("Price", "a", spec % 'x, "y*"'), b=written("Price", "b", spec % '"y*", "y"')
    )

    assert found.file == "b.yaml"
    assert found.message == "Price/b has a price of y* from the same day on as Price/a (a.yaml:2)"


def test_prices_of_other_days_or_providers_are_no_conflict(load: Load) -> None:
    load(
        price("{models: [m], discountPercent: 1}", "a"),
        price("{models: [m], discountPercent: 1, from: 2026-01-01}", "b"),
        price("{models: [m], discountPercent: 1, from: 2026-01-02}", "c"),
        price("{models: [m], discountPercent: 1, provider: openai}", "d"),
    )


def test_the_schema_accepts_the_sample() -> None:
    schema = Price.model_json_schema()

    for document in yaml.load_all((SAMPLES / "prices.yaml").read_text(), yaml.BaseLoader):
        # The base loader reads every number as its text.
        percent = document["spec"].pop("discountPercent", None)
        jsonschema.validate(
            document["spec"] | ({"discountPercent": float(percent)} if percent else {}), schema
        )
