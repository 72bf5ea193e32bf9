import pytest

from extproc.measure.ceilings import call_ceiling, model_ceiling


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
        ("mistral_ai", "mistral-large-latest", 262_144),
        ("mistral_ai", "mistral-embed", 0),
        ("openai", "gpt-image-1", 16_384),
        ("openai", "gpt-4o-mini-transcribe", 2_048),
        ("openai", "gpt-4o-mini-tts", 0),
        ("openai", "whisper-1", 0),
        ("openai", "omni-moderation-latest", 0),
        ("cohere", "command-r-plus", 4_096),
        ("cohere", "command-a-03-2025", 8_192),
        ("cohere", "embed-english-v3.0", 0),
        ("cohere", "rerank-v3.5", 0),
        ("aws.bedrock", "us.amazon.nova-lite-v1:0", 10_000),
        ("aws.bedrock", "amazon.titan-embed-text-v2:0", 0),
        ("aws.bedrock", "amazon.titan-text-express-v1", 8_192),
        ("aws.bedrock", "meta.llama3-1-70b-instruct-v1:0", 131_072),
        ("groq", "llama3-8b-8192", 8_192),
        ("deepseek", "deepseek-reasoner", 65_536),
        ("x_ai", "grok-4", 131_072),
        ("gcp.gemini", "gemini-embedding-001", 0),
        ("gcp.gemini", "gemini-2.5-pro", 65_536),
        ("", "", 65_536),
    ],
)
def test_a_model_has_a_ceiling(provider: str, model: str, ceiling: int) -> None:
    assert model_ceiling(provider, model) == ceiling


@pytest.mark.parametrize(
    ("operation", "model", "ceiling"),
    [
        ("image_generation", "my-deployment", 16_384),
        ("image_generation", "gpt-image-2", 16_384),
        ("image_generation", "black-forest-labs/FLUX.1-schnell", 0),
        ("image_generation", "imagen-4.0-generate-001", 0),
        ("transcription", "my-deployment", 16_384),
        ("transcription", "gpt-4o-mini-transcribe", 2_048),
        ("transcription", "whisper-large-v3-turbo", 0),
        ("realtime", "", 4_096),
        ("realtime", "gpt-realtime", 4_096),
        ("realtime", "gpt-4o-transcribe", 2_048),
        ("chat", "my-deployment", 128_000),
    ],
)
def test_a_kind_of_call_has_a_ceiling_whatever_its_model_is_called(
    operation: str, model: str, ceiling: int
) -> None:
    assert call_ceiling("azure.ai.openai", model, operation) == ceiling
