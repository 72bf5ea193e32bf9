import pytest

from extproc.measure.families import UNKNOWN, claude_version, family, normalised


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o", "o200k_base"),
        ("GPT-4o", "o200k_base"),
        (" gpt-4o ", "o200k_base"),
        ("openai/gpt-4o", "o200k_base"),
        ("ft:gpt-4o-mini:org::id", "o200k_base"),
        ("ft:gpt-3.5-turbo:org::id", "cl100k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-4-0613", "cl100k_base"),
        ("gpt-4.1-nano", "o200k_base"),
        ("gpt-4.7", "o200k_base"),
        ("gpt-35-turbo", "cl100k_base"),
        ("text-embedding-3-large", "cl100k_base"),
        ("gpt-6-astra", "o200k_base"),
        ("codex-mini-latest", "o200k_base"),
        ("my-deployment", "o200k_base"),
        ("", "o200k_base"),
    ],
)
def test_a_model_has_its_encoding(model: str, encoding: str) -> None:
    assert family("openai", model).encoding == encoding


@pytest.mark.parametrize("model", ["gpt-6-astra", "o5", "o1x", "gpt-4.7", "gpt-5x", "my-gpt-4o", ""])
def test_an_unlisted_model_counts_like_openais_but_never_exactly(model: str) -> None:
    assert family("openai", model) == UNKNOWN
    assert not UNKNOWN.is_exact


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5-20250929-v1:0"),
        ("anthropic/claude-opus-4.8", "claude-opus-4.8"),
        ("meta-llama/Llama-3.1-8B", "llama-3.1-8b"),
        ("openai.gpt-oss-120b-1:0", "gpt-oss-120b-1:0"),
        ("models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("gpt-4.1", "gpt-4.1"),
    ],
)
def test_what_stands_before_a_models_own_name_is_removed(model: str, name: str) -> None:
    assert normalised(model) == name


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("claude-3-5-sonnet-20241022", (3, 5)),
        ("claude-3-opus-20240229", (3, 0)),
        ("claude-sonnet-4-20250514", (4, 0)),
        ("claude-sonnet-4@20250514", (4, 0)),
        ("claude-sonnet-4-5-20250929-v1:0", (4, 5)),
        ("claude-opus-4.8", (4, 8)),
        ("claude-v2:1", (2, 0)),
        ("claude-2.1", (2, 1)),
        ("claude-fable-5", (5, 0)),
        ("claude-mythos-preview", (99, 0)),
    ],
)
def test_a_claude_name_says_its_version(name: str, version: tuple[int, int]) -> None:
    assert claude_version(name) == version


@pytest.mark.parametrize(
    ("model", "encoding", "per_prompt"),
    [
        ("llama3", "cl100k_base", 5),
        ("llama3-8b-8192", "cl100k_base", 5),
        ("meta.llama3-70b-instruct-v1:0", "cl100k_base", 5),
        ("meta-llama/Llama-3-8b-chat", "cl100k_base", 5),
        ("meta.llama3-1-70b-instruct-v1:0", "cl100k_base", 30),
        ("meta-llama/llama-3.2-1b-instruct", "cl100k_base", 30),
        ("llama3.1:8b", "cl100k_base", 30),
        ("llama-4-scout", "cl100k_base", 30),
        ("meta.llama2-13b-chat-v1", "o200k_base", 3),
        ("codellama-7b", "o200k_base", 3),
    ],
)
def test_a_llama_is_known_by_its_version_not_its_size(model: str, encoding: str, per_prompt: int) -> None:
    found = family("groq", model)

    assert (found.encoding, found.per_prompt) == (encoding, per_prompt)


@pytest.mark.parametrize(
    ("model", "per_tools"),
    [
        ("claude-3-sonnet-20240229", 165),
        ("claude-3-haiku-20240307", 270),
        ("anthropic.claude-3-5-haiku-20241022-v1:0", 270),
        ("claude-3-5-sonnet-20240620", 320),
        ("claude-sonnet-4-5", 500),
        ("claude-haiku-4-5", 500),
        ("claude-opus-4-8", 460),
    ],
)
def test_claudes_read_instructions_of_their_time_with_tools(model: str, per_tools: int) -> None:
    assert family("anthropic", model).per_tools == per_tools


def test_claude_has_the_slope_of_its_tokenizer() -> None:
    slopes = [
        family("anthropic", f"claude-{name}").slope_percent
        for name in ("opus-4-6", "opus-4-7", "mythos-preview")
    ]

    assert slopes == [115, 142, 142]
