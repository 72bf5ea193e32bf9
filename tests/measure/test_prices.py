"""Costs against published prices, worked out by hand, and against the package's own arithmetic."""

from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

import genai_prices
import pytest
from genai_prices.types import ClauseStartsWith, ModelInfo, ModelPrice, Provider
from hypothesis import given
from hypothesis import strategies as st

from extproc.measure.prices import Prices
from extproc.measure.tariff import PARTS_OF_INPUT, PARTS_OF_OUTPUT
from extproc.model import Usage

AT_NS = int(datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp()) * 10**9
USD = 10**9


@pytest.fixture(scope="module")
def prices() -> Prices:
    return Prices.bundled()


def nano_usd(prices: Prices, usage: Usage, provider: str, requested: str, answered: str = "") -> int | None:
    cost = prices.cost(usage, provider=provider, requested=requested, answered=answered, at_ns=AT_NS)
    return None if cost is None else cost.nano_usd


def million(**parts: int) -> Usage:
    """A usage whose counts are thousandths of a million: prices a million tokens can be read off."""
    return Usage(**{name: count * 1000 for name, count in parts.items()})


# --- published prices, by hand; dollars a million tokens


def test_gpt_4o_mini_reads_its_cache_at_half_price(prices: Prices) -> None:
    """0.15 in, 0.075 from the cache, 0.60 out."""
    usage = Usage(input_tokens=1000, output_tokens=100, cache_read_input_tokens=200)

    expected = 800 * 150 + 200 * 75 + 100 * 600
    assert nano_usd(prices, usage, "openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18") == expected


def test_claude_pays_more_to_write_its_cache_and_most_for_an_hour(prices: Prices) -> None:
    """Sonnet 4.6: 3 in, 0.30 read, 3.75 written for five minutes, 6 for an hour, 15 out."""
    usage = Usage(
        input_tokens=10_000,
        output_tokens=500,
        cache_read_input_tokens=4_000,
        cache_creation_input_tokens=3_000,
        cache_creation_1h_input_tokens=1_000,
    )

    expected = 3_000 * 3_000 + 4_000 * 300 + 2_000 * 3_750 + 1_000 * 6_000 + 500 * 15_000
    assert nano_usd(prices, usage, "anthropic", "claude-sonnet-4-6") == expected


@pytest.mark.parametrize(
    ("input_tokens", "given", "made"), [(200_000, 1_250, 10_000), (200_001, 2_500, 15_000)]
)
def test_gemini_costs_more_from_200k_on_for_every_token(
    prices: Prices, input_tokens: int, given: int, made: int
) -> None:
    """2.5 Pro: 1.25 and 10 up to 200k of input, 2.50 and 15 beyond; thoughts are output."""
    usage = Usage(input_tokens=input_tokens, output_tokens=1000, reasoning_output_tokens=900)

    assert nano_usd(prices, usage, "gcp.gemini", "gemini-2.5-pro") == input_tokens * given + 1000 * made


def test_reasoning_is_output_and_not_paid_twice(prices: Prices) -> None:
    plain = Usage(input_tokens=10, output_tokens=1000)
    reasoned = Usage(input_tokens=10, output_tokens=1000, reasoning_output_tokens=640)

    assert nano_usd(prices, reasoned, "openai", "gpt-5") == nano_usd(prices, plain, "openai", "gpt-5")
    assert nano_usd(prices, plain, "openai", "gpt-5") == 10 * 1_250 + 1000 * 10_000


def test_audio_and_images_have_prices_of_their_own(prices: Prices) -> None:
    heard = Usage(input_tokens=1000, output_tokens=0, audio_input_tokens=900)
    seen = Usage(input_tokens=1000, output_tokens=100, image_input_tokens=400)

    assert nano_usd(prices, heard, "gcp.gemini", "gemini-2.5-flash") == 100 * 300 + 900 * 1_000
    assert nano_usd(prices, seen, "openai", "gpt-image-1") == 600 * 5_000 + 400 * 10_000 + 100 * 40_000


def test_embeddings_cost_their_input(prices: Prices) -> None:
    assert nano_usd(prices, Usage(input_tokens=8), "openai", "text-embedding-3-small") == 8 * 20


def test_a_fee_for_the_request_is_added(prices: Prices) -> None:
    """Perplexity: 1 and 1, and 12 dollars a thousand requests."""
    usage = Usage(input_tokens=5, output_tokens=7)

    assert nano_usd(prices, usage, "perplexity", "sonar") == 12 * 1000 + 12 * USD // 1000


def test_sound_is_billed_by_its_length(prices: Prices) -> None:
    """Whisper: 36 cents an hour; on Groq 11.1 cents, and ten seconds at least."""
    heard = Usage(input_tokens=0, output_tokens=0, input_audio_ms=5_000)

    assert nano_usd(prices, heard, "openai", "whisper-1") == 500_000
    assert nano_usd(prices, heard, "groq", "whisper-large-v3") == 308_333
    assert nano_usd(prices, Usage(input_tokens=0, output_tokens=0), "openai", "whisper-1") is None


# --- whose price


@pytest.mark.parametrize(
    ("provider", "requested", "answered"),
    [
        ("azure.ai.openai", "our-deployment", "gpt-4o-mini-2024-07-18"),
        ("azure.ai.openai", "gpt-4o-mini", ""),
        ("gcp.vertex_ai", "google/gemini-2.5-flash", ""),
        ("gcp.vertex_ai", "claude-sonnet-4-5@20250929", ""),
        ("gcp.gemini", "models/gemini-2.5-flash", ""),
        ("aws.bedrock", "amazon.nova-lite-v1:0", ""),
        (
            "aws.bedrock",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "",
        ),
        ("mistral_ai", "mistral-small-latest", ""),
        ("x_ai", "grok-4", ""),
        ("groq", "llama-3.1-8b-instant", ""),
        ("deepseek", "deepseek-chat", ""),
        ("cohere", "command-r-plus", ""),
        ("together_ai", "meta-llama/Llama-3.3-70B-Instruct-Turbo", ""),
        ("fireworks_ai", "accounts/fireworks/models/llama-v3p1-8b-instruct", ""),
        ("openrouter", "openai/gpt-4o-mini", ""),
        ("cerebras", "llama3.1-8b", ""),
        ("voyage_ai", "voyage-3", ""),
    ],
)
def test_every_providers_spelling_finds_a_price(
    prices: Prices, provider: str, requested: str, answered: str
) -> None:
    assert nano_usd(prices, million(input_tokens=1, output_tokens=1), provider, requested, answered)


def test_the_model_that_answered_is_priced_before_the_one_that_was_asked_for(prices: Prices) -> None:
    usage = Usage(input_tokens=1000, output_tokens=0)

    assert nano_usd(prices, usage, "openai", "gpt-4o", "gpt-4o-mini") == 1000 * 150


def test_bedrocks_regional_profiles_have_their_own_price(prices: Prices) -> None:
    usage = Usage(input_tokens=1000, output_tokens=0)
    answered = "claude-sonnet-4-5-20250929"

    regional = nano_usd(
        prices, usage, "aws.bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", answered
    )
    everywhere = nano_usd(
        prices, usage, "aws.bedrock", "global.anthropic.claude-sonnet-4-5-20250929-v1:0", answered
    )

    assert (regional, everywhere) == (3_300_000, 3_000_000)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "our-fine-model"),
        ("openai", ""),
        ("openai", "gpt-4o" + "x" * 300),
        ("ollama", "llama3"),
        ("", "gpt-4o"),
        ("openai", "whisper-1"),  # by the hour, and nobody said how much there was
        ("openai", "gpt-live-1"),  # by the hour of a connection
        ("openai", "tts-1"),  # by the character
        ("mistral_ai", "mistral-ocr-latest"),  # by the page
    ],
)
def test_what_nobody_published_has_no_cost_rather_than_zero(
    prices: Prices, provider: str, model: str
) -> None:
    assert nano_usd(prices, Usage(input_tokens=9, output_tokens=9), provider, model) is None


def test_a_free_model_costs_zero(prices: Prices) -> None:
    assert nano_usd(prices, Usage(input_tokens=9, output_tokens=9), "openrouter", "qwen/qwq-32b:free") == 0


def test_without_prices_nothing_has_a_cost() -> None:
    assert nano_usd(Prices(), Usage(input_tokens=1, output_tokens=1), "openai", "gpt-4o") is None


# --- time and revision


def test_yesterdays_request_has_yesterdays_price(prices: Prices) -> None:
    """Sonnet 4.6 lost its long-context tier on 13 March 2026."""
    usage = Usage(input_tokens=300_000, output_tokens=0)
    costs = [
        prices.cost(
            usage, provider="anthropic", requested="claude-sonnet-4-6", at_ns=int(day.timestamp()) * USD
        )
        for day in (datetime(2026, 3, 12, 23, tzinfo=UTC), datetime(2026, 3, 13, 1, tzinfo=UTC))
    ]

    assert [cost and cost.nano_usd for cost in costs] == [300_000 * 6_000, 300_000 * 3_000]


def test_an_hour_of_the_day_can_have_its_own_price(prices: Prices) -> None:
    usage = Usage(input_tokens=0, output_tokens=1000)
    night, day = (
        prices.cost(
            usage,
            provider="deepseek",
            requested="deepseek-chat",
            at_ns=int(datetime(2026, 1, 1, hour, tzinfo=UTC).timestamp()) * USD,
        )
        for hour in (20, 8)
    )

    assert (night and night.nano_usd, day and day.nano_usd) == (550_000, 1_100_000)


def test_the_revision_names_the_package_and_its_data(prices: Prices) -> None:
    cost = prices.nothing()

    assert cost.nano_usd == 0
    assert cost.revision == prices.revision
    assert prices.revision.startswith(f"genai-prices {genai_prices.__version__} data ")


# --- arithmetic


def priced(**listed: Decimal) -> Prices:
    model = ModelInfo(id="m", match=ClauseStartsWith("m"), prices=ModelPrice(**listed))
    return Prices([Provider(id="p", name="P", api_pattern="p", models=[model])], revision="r")


def test_a_bill_is_rounded_once_and_halves_go_up() -> None:
    prices = priced(input_mtok=Decimal("0.0001"), output_mtok=Decimal("0.0004"))

    assert nano_usd(prices, Usage(input_tokens=4, output_tokens=0), "p", "m") == 0
    assert nano_usd(prices, Usage(input_tokens=5, output_tokens=0), "p", "m") == 1
    assert nano_usd(prices, Usage(input_tokens=1, output_tokens=1), "p", "m") == 1


def test_large_bills_are_exact() -> None:
    prices = priced(input_mtok=Decimal("0.123456789"))

    assert nano_usd(prices, Usage(input_tokens=100_000_000), "p", "m") == 12_345_678_900


def test_parts_that_overlap_are_paid_once() -> None:
    prices = priced(input_mtok=Decimal(1), cache_read_mtok=Decimal("0.1"), input_audio_mtok=Decimal(10))
    usage = Usage(input_tokens=100, output_tokens=0, cache_read_input_tokens=80, audio_input_tokens=90)

    assert nano_usd(prices, usage, "p", "m") == 80 * 100 + 20 * 10_000


def test_a_part_larger_than_its_whole_costs_no_more_than_the_whole() -> None:
    prices = priced(input_mtok=Decimal(1), output_mtok=Decimal(2))
    usage = Usage(input_tokens=10, output_tokens=10, cache_read_input_tokens=50, reasoning_output_tokens=99)

    assert nano_usd(prices, usage, "p", "m") == 10 * 1000 + 10 * 2000


def test_absent_counts_cost_nothing() -> None:
    prices = priced(input_mtok=Decimal(1), output_mtok=Decimal(2))

    assert nano_usd(prices, Usage(output_tokens=3), "p", "m") == 6000
    assert nano_usd(prices, Usage(), "p", "m") == 0


_THEIRS = {
    "cache_read_input_tokens": "cache_read_tokens",
    "cache_creation_input_tokens": "cache_write_tokens",
    "cache_creation_1h_input_tokens": "cache_write_1h_tokens",
    "audio_input_tokens": "input_audio_tokens",
    "image_input_tokens": "input_image_tokens",
    "reasoning_output_tokens": "output_reasoning_tokens",
    "audio_output_tokens": "output_audio_tokens",
    "image_output_tokens": "output_image_tokens",
}
_MODELS = (
    ("openai", "openai", "gpt-4o-mini"),
    ("openai", "openai", "gpt-5"),
    ("openai", "openai", "gpt-image-1"),
    ("anthropic", "anthropic", "claude-sonnet-4-5"),
    ("gcp.gemini", "google", "gemini-2.5-pro"),
    ("gcp.vertex_ai", "google", "gemini-2.5-flash"),
    ("aws.bedrock", "aws", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    ("azure.ai.openai", "azure", "gpt-4o"),
    ("x_ai", "x-ai", "grok-4"),
)


@given(
    model=st.sampled_from(_MODELS),
    # Disjoint parts: where parts may overlap the package refuses to say what they cost.
    parts=st.dictionaries(st.sampled_from(sorted(_THEIRS)), st.integers(1, 100_000)),
    rest=st.tuples(st.integers(0, 250_000), st.integers(0, 50_000)),
)
def test_every_bill_is_the_one_the_package_makes(
    prices: Prices, model: tuple[str, str, str], parts: dict[str, int], rest: tuple[int, int]
) -> None:
    ours, theirs, name = model
    if "cache_read_input_tokens" in parts:
        parts = {part: count for part, count in parts.items() if part not in _MODALITIES}
    usage = parts | {
        "input_tokens": rest[0] + sum(count for part, count in parts.items() if "input" in part),
        "output_tokens": rest[1] + sum(count for part, count in parts.items() if "output" in part),
    }
    if "cache_creation_1h_input_tokens" in parts:
        usage["cache_creation_input_tokens"] = sum(
            count for part, count in parts.items() if part.startswith("cache_creation")
        )

    expected = genai_prices.calc_price(
        genai_prices.Usage(**{_THEIRS.get(part, part): count for part, count in usage.items()}),
        model_ref=name,
        provider_id=theirs,
        genai_request_timestamp=datetime.fromtimestamp(AT_NS / 1e9, UTC),
    ).total_price

    rounded = int((expected * USD).to_integral_value(ROUND_HALF_UP))
    assert nano_usd(prices, Usage(**usage), ours, name) == rounded


_MODALITIES = {"audio_input_tokens", "image_input_tokens"}


def test_every_part_of_a_usage_has_a_price() -> None:
    """A count that somebody adds to `Usage` must be priced or left out on purpose."""
    priced_parts = {name for name, _ in (*PARTS_OF_INPUT, *PARTS_OF_OUTPUT)}
    others = {
        *("input_tokens", "output_tokens"),
        *("cache_creation_input_tokens", "cache_creation_1h_input_tokens"),
        "input_audio_ms",
    }

    assert priced_parts | others == set(Usage.__slots__)
