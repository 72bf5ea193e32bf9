import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.measure.media import LARGEST_CONTEXT
from extproc.measure.tokens import COUNTED_BYTES, Tokenizer
from extproc.model import Prompt, PromptImage, PromptMedia, PromptMessage, TokenEstimate

WEATHER = json.dumps(
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
)


def user(text: str, *, name: str | None = None, role: str = "user") -> PromptMessage:
    return PromptMessage(role=role, text=text, name=name)


def estimate(
    tokenizer: Tokenizer,
    *messages: PromptMessage,
    provider: str = "openai",
    model: str = "gpt-4o",
    tools: tuple[str, ...] = (),
    images: tuple[PromptImage, ...] = (),
    declared: int | None = None,
) -> TokenEstimate:
    prompt = Prompt(messages=messages, tools=tools, images=images)
    return tokenizer.estimate(prompt, provider=provider, model=model, declared_max_output=declared)


def test_a_chat_message_costs_its_text_and_its_frame(tokenizer: Tokenizer) -> None:
    found = estimate(tokenizer, user("hello world"))

    assert found.input == 3 + 1 + 2 + 3
    assert found.exact
    assert found.estimator == "tiktoken:o200k_base"


@pytest.mark.parametrize("model", ["gpt-5", "gpt-5.4-mini", "o1-pro", "o3-mini", "o4-mini"])
def test_reasoning_models_prime_the_answer_with_one_token_less(tokenizer: Tokenizer, model: str) -> None:
    assert estimate(tokenizer, user("hello world"), model=model).input == 3 + 1 + 2 + 2


def test_a_name_costs_its_text_and_one_more(tokenizer: Tokenizer) -> None:
    assert (
        estimate(tokenizer, user("hi", name="alice")).input
        == estimate(tokenizer, user("hi")).input
        + tokenizer.count("alice", provider="openai", model="gpt-4o")
        + 1
    )


def test_bare_text_carries_no_frame(tokenizer: Tokenizer) -> None:
    found = estimate(tokenizer, user("hello world", role=""), model="text-embedding-3-small")

    assert found.input == 2
    assert found.exact


def test_what_is_no_conversation_carries_no_frame_whatever_its_role(tokenizer: Tokenizer) -> None:
    found = tokenizer.estimate(
        Prompt(messages=(user("hello world"),)),
        provider="openai",
        model="gpt-3.5-turbo-instruct",
        declared_max_output=0,
        is_framed=False,
    )

    assert found.input == 2


def test_the_schema_of_the_answer_joins_the_system_message(tokenizer: Tokenizer) -> None:
    schema = user('Person\n{"properties":{"age":{"type":"integer"}}}', role="response_format")
    cost = tokenizer.count(schema.text, provider="openai", model="gpt-4o")

    for messages in ((user("hi"),), (user("Be brief.", role="system"), user("hi"))):
        plain, with_schema = (estimate(tokenizer, *given) for given in (messages, (*messages, schema)))

        assert with_schema.input - plain.input == cost - (4 if len(messages) == 2 else 0)
        assert not with_schema.exact


def test_an_unknown_role_is_counted_as_text(tokenizer: Tokenizer) -> None:
    short = estimate(tokenizer, user("hi", role="critic"))
    long = estimate(tokenizer, user("hi", role="critic " * 50))

    assert long.input > short.input
    assert not short.exact


def test_an_empty_prompt_costs_nothing(tokenizer: Tokenizer) -> None:
    assert estimate(tokenizer).input == 0


@pytest.mark.parametrize(
    "found",
    [
        {"tools": (WEATHER,)},
        {"images": (PromptImage(width_px=10, height_px=10),)},
        {"model": "gpt-4o-search-preview"},
        {"model": "gpt-6-astra"},
        {"model": "claude-sonnet-4-5", "provider": "anthropic"},
        {"model": "gpt-4o", "provider": "openrouter"},
        {"model": "gpt-oss-120b"},
    ],
)
def test_only_plain_text_for_a_known_model_is_exact(tokenizer: Tokenizer, found: dict[str, object]) -> None:
    assert not estimate(tokenizer, user("hi"), **found).exact  # type: ignore[arg-type]  # keywords by case


@pytest.mark.parametrize("role", ["tool", "function"])
def test_tool_messages_are_estimates(tokenizer: Tokenizer, role: str) -> None:
    assert not estimate(tokenizer, user("hi"), user("12 degrees", role=role)).exact


def test_a_declared_ceiling_is_taken_and_an_undeclared_one_is_the_models(tokenizer: Tokenizer) -> None:
    assert estimate(tokenizer, user("hi"), declared=5).max_output == 5
    assert estimate(tokenizer, user("hi"), declared=0).max_output == 0
    assert estimate(tokenizer, user("hi")).max_output == 16_384


def test_tools_are_counted(tokenizer: Tokenizer) -> None:
    plain = estimate(tokenizer, user("hi")).input

    assert 20 < estimate(tokenizer, user("hi"), tools=(WEATHER,)).input - plain < 60
    with_claude = estimate(
        tokenizer, user("hi"), tools=(WEATHER,), provider="anthropic", model="claude-sonnet-4-5"
    )
    assert with_claude.input > 500


@pytest.mark.parametrize("tool", ["", "[]", "null", "{", "[" * 5000, '{"name": 1}', '{"function": []}'])
def test_a_tool_that_is_no_function_is_still_counted(tokenizer: Tokenizer, tool: str) -> None:
    found = estimate(tokenizer, user("hi"), tools=(tool,))

    assert 0 < found.input <= found.input_upper_bound


def test_special_tokens_in_a_prompt_are_only_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.count("<|endoftext|>", provider="openai", model="gpt-4o") > 1


def test_a_lone_surrogate_is_counted(tokenizer: Tokenizer) -> None:
    found = estimate(tokenizer, user("a\ud800b"))

    assert found.input >= 8
    assert found.input <= found.input_upper_bound


def test_claude_counts_more_than_openai_and_newer_claude_more_again(tokenizer: Tokenizer) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 50
    openai = tokenizer.count(text, provider="openai", model="gpt-4o")

    assert (
        tokenizer.count(text, provider="anthropic", model="claude-sonnet-4-5") == (openai * 115 + 50) // 100
    )
    assert tokenizer.count(text, provider="anthropic", model="claude-opus-4-8") == (openai * 142 + 50) // 100


def test_beyond_the_counted_bytes_the_rest_is_extrapolated(tokenizer: Tokenizer) -> None:
    sentence = "policy decides and Envoy moves the bytes. "
    text = sentence * (2 * COUNTED_BYTES // len(sentence))

    found = estimate(tokenizer, user(text))

    per_sentence = tokenizer.count(sentence * 100, provider="openai", model="gpt-4o") / 100
    assert not found.exact
    assert found.input == pytest.approx(per_sentence * len(text) / len(sentence), rel=0.01)


def test_the_counted_bytes_are_of_the_whole_prompt(tokenizer: Tokenizer) -> None:
    quarter = "wörter " * (COUNTED_BYTES // 16)

    assert estimate(tokenizer, *[user(quarter)] * 2).exact
    assert not estimate(tokenizer, *[user(quarter)] * 3).exact


def test_a_cut_inside_a_character_is_harmless(tokenizer: Tokenizer) -> None:
    for shift in range(4):
        text = "a" * shift + "🙂" * (COUNTED_BYTES // 4 + 1)

        assert estimate(tokenizer, user(text)).input > 0


def test_token_ids_count_as_many_as_they_are(tokenizer: Tokenizer) -> None:
    prompt = Prompt(messages=(user("hello world", role=""),), tokens=7)

    found = tokenizer.estimate(
        prompt, provider="openai", model="text-embedding-3-small", declared_max_output=0
    )

    assert (found.input, found.exact) == (9, True)
    assert found.input_upper_bound == 18


def test_media_are_estimated_and_bounded_but_never_exact(tokenizer: Tokenizer) -> None:
    prompt = Prompt(messages=(user("hi"),), media=(PromptMedia(modality="file"),))

    found = tokenizer.estimate(prompt, provider="openai", model="gpt-4o", declared_max_output=0)

    assert found.input == 8 + 15_000
    assert found.input_upper_bound > LARGEST_CONTEXT
    assert not found.exact


def test_a_count_that_nobody_needs_is_estimated_by_bytes_under_the_same_bound(tokenizer: Tokenizer) -> None:
    prompt = Prompt(messages=(user("word " * 1000),), tools=(WEATHER,))

    bare, counted = (
        tokenizer.estimate(prompt, provider="openai", model="gpt-4o", declared_max_output=None, counts=counts)
        for counts in (False, True)
    )

    assert (bare.estimator, bare.exact) == ("bytes", False)
    assert bare.input == pytest.approx(5_000 / 4, rel=0.1)
    assert (bare.input_upper_bound, bare.max_output) == (counted.input_upper_bound, counted.max_output)


def test_without_vocabularies_bytes_are_the_estimate() -> None:
    found = estimate(Tokenizer(), user("a" * 401, role=""))

    assert found == TokenEstimate(
        input=101,
        input_upper_bound=401,
        max_output=16_384,
        exact=False,
        estimator="bytes",
        uncalibrated=101,
    )
    assert Tokenizer().count("héé", provider="openai", model="gpt-4o") == 2


def test_a_million_blanks_on_which_the_encoder_panics_are_estimated(tokenizer: Tokenizer) -> None:
    """One match of so many blanks runs the encoder's regex out of stack."""
    found = estimate(tokenizer, user(" " * 1_000_001, role=""))

    assert found.input == pytest.approx(1_000_001 / 128, rel=0.01)
    assert not found.exact


class PanicException(BaseException):
    pass


class Panicking:
    name = "o200k_base"

    def __init__(self, failure: BaseException) -> None:
        self._failure = failure

    def encode_ordinary(self, _text: str) -> list[int]:
        raise self._failure


def test_a_panic_of_the_encoder_leaves_the_byte_bound() -> None:
    tokenizer = Tokenizer({"o200k_base": Panicking(PanicException())})  # type: ignore[dict-item]  # only encodes

    found = estimate(tokenizer, user("a" * 100, role=""))

    assert found.input == 100
    assert not found.exact


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), SystemExit(1), MemoryError()])
def test_nothing_else_is_swallowed(failure: BaseException) -> None:
    tokenizer = Tokenizer({"o200k_base": Panicking(failure)})  # type: ignore[dict-item]  # only encodes

    with pytest.raises(type(failure)):
        tokenizer.count("x", provider="openai", model="gpt-4o")


messages = st.builds(
    PromptMessage,
    role=st.sampled_from(["system", "user", "assistant", "tool", "", "odd role"]),
    text=st.text(max_size=200) | st.text(alphabet="\ud800\udfff aé🙂<|>", max_size=40),
    name=st.none() | st.text(max_size=10),
)
prompts = st.builds(
    Prompt,
    messages=st.lists(messages, max_size=4).map(tuple),
    tools=st.lists(st.text(max_size=40) | st.just(WEATHER), max_size=3).map(tuple),
    images=st.lists(
        st.builds(
            PromptImage,
            width_px=st.none() | st.integers(-1, 100_000),
            height_px=st.none() | st.integers(-1, 100_000),
            detail=st.sampled_from(["auto", "low", "high", "original", "?"]),
        ),
        max_size=2,
    ).map(tuple),
)
models = st.sampled_from(
    [
        "gpt-4o",
        "gpt-4",
        "gpt-5",
        "o3",
        "gpt-4o-mini",
        "gpt-oss-20b",
        "claude-opus-4-8",
        "gemini-2.5-pro",
        "x",
        "",
    ]
)


@given(prompts, models)
def test_an_estimate_never_exceeds_its_upper_bound(tokenizer: Tokenizer, prompt: Prompt, model: str) -> None:
    found = tokenizer.estimate(prompt, provider="openai", model=model, declared_max_output=None)

    assert 0 <= found.input <= found.input_upper_bound


@given(st.text(max_size=300), models)
def test_tokens_never_exceed_bytes_by_more_than_the_slope(
    tokenizer: Tokenizer, text: str, model: str
) -> None:
    size = len(text.encode())

    assert 0 <= tokenizer.count(text, provider="openai", model=model) <= -(-size * 142 // 100)


@given(prompts, models)
def test_counting_is_repeatable(tokenizer: Tokenizer, prompt: Prompt, model: str) -> None:
    first, second = (
        tokenizer.estimate(prompt, provider="openai", model=model, declared_max_output=None) for _ in range(2)
    )

    assert first == second
