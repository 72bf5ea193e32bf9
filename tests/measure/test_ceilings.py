import pytest

from extproc.measure.ceilings import model_ceiling


@pytest.mark.parametrize(
    ("provider", "model", "ceiling"),
    [
        ("openai", "gpt-4o-mini", 16_384),
        ("openai", "openai/GPT-4o", 16_384),
        ("openai", "gpt-4o-2024-05-13", 4_096),
        ("openai", "gpt-4", 8_192),
        ("openai", "gpt-4.1-nano-2025-04-14", 32_768),
        ("openai", "gpt-5.4-mini", 128_000),
        ("openai", "o1-pro", 100_000),
        ("openai", "o1-mini", 65_536),
        ("openai", "text-embedding-3-small", 0),
        ("openai", "gpt-6-astra", 128_000),
        ("anthropic", "claude-sonnet-4-5-20250929", 64_000),
        ("anthropic", "claude-3-5-haiku-latest", 8_192),
        ("anthropic", "claude-opus-4-1", 32_000),
        ("anthropic", "claude-opus-4-8", 128_000),
        ("anthropic", "claude-mythos-5", 128_000),
        ("aws.bedrock", "us.anthropic.claude-sonnet-4-20250514-v1:0", 64_000),
        ("mistral_ai", "mistral-large-latest", 65_536),
        ("", "", 65_536),
    ],
)
def test_a_model_has_a_ceiling(provider: str, model: str, ceiling: int) -> None:
    assert model_ceiling(provider, model) == ceiling
