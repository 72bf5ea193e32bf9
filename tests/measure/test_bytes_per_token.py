"""What bytes say of tokens: recorded answers cut anywhere, and what whole ones teach."""

import json
import os
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.measure.bytes_per_token import FEWEST_TOKENS, AnswerForm, BytesPerToken
from extproc.measure.learned import LONGEST_NAME
from extproc.measure.tokens import Tokenizer
from extproc.measure.vocab import default_directory, load
from tests.corpus.exchanges import IS_HERE
from tests.measure import cut_answers
from tests.measure.cut_answers import Cut, ratios

ENVELOPE = 410  # before the first token of a chat


def form(**changes: Any) -> AnswerForm:
    values: dict[str, Any] = {
        "api": "openai_chat",
        "provider": "openai",
        "model": "gpt-4o",
        "is_stream": True,
    }
    return AnswerForm(**(values | changes))


def taught(*bytes_per_token: int, tokens: int = 100, **changes: Any) -> BytesPerToken:
    learned = BytesPerToken()
    for each in bytes_per_token:
        learned.observe(form(**changes), ENVELOPE + each * tokens, tokens)
    return learned


_WORDS = "Nobody knows how many tokens an answer takes whose provider leaves out what was used; who can? "
_CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1767225600,
    "model": "gpt-4o",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": _WORDS}, "finish_reason": "stop"}],
}
_OUTPUT_TEXT = {"type": "output_text", "text": _WORDS, "annotations": []}
_RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1767225600,
    **dict.fromkeys(("error", "incomplete_details", "instructions")),
    "metadata": {},
    "model": "gpt-4o",
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [_OUTPUT_TEXT],
        }
    ],
    "parallel_tool_calls": True,
    "temperature": 1,
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1,
}
_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": _WORDS}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
}
_GENERATED = {
    "candidates": [{"content": {"parts": [{"text": _WORDS}], "role": "model"}, "finishReason": "STOP"}]
}


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer(load(default_directory(os.environ)))


@pytest.fixture(scope="module")
def cuts() -> list[Cut]:
    return list(cut_answers.cuts(tokenizer(), places=8))


@pytest.mark.skipif(not IS_HERE, reason="the recorded exchanges are not on this machine")
def test_of_recorded_answers_cut_anywhere_hardly_one_is_estimated_too_low(cuts: list[Cut]) -> None:
    by_truth = ratios(cuts, BytesPerToken())

    assert sum(ratio < 1 for ratio in by_truth) < 0.01 * len(by_truth)
    assert by_truth[len(by_truth) // 2] < 1.5
    assert by_truth[len(by_truth) * 95 // 100] < 5
    streams = [cut for cut in cuts if cut.form.api == "openai_chat" and cut.form.is_stream]
    assert min(ratios(streams, BytesPerToken())) >= 1


def test_a_model_unknown_so_far_is_estimated_as_its_api_was_measured() -> None:
    assert BytesPerToken().tokens(form(), 22_000) == 100
    assert BytesPerToken().tokens(form(), 22_001) == 101


def test_the_envelope_of_an_answer_in_one_piece_is_no_token() -> None:
    whole = form(is_stream=False)

    assert BytesPerToken().tokens(whole, 100) == 1
    assert BytesPerToken().tokens(whole, 170 + 400) == 100


@pytest.mark.skipif(not IS_HERE, reason="the recorded exchanges are not on this machine")
@pytest.mark.parametrize("is_taught", [False, True])
def test_no_whole_answer_that_leaves_its_usage_out_is_estimated_too_low(
    cuts: list[Cut], *, is_taught: bool
) -> None:
    """The usage is a good part of what is around a short answer's text, and it is not there."""
    learned = cut_answers.taught(tokenizer()) if is_taught else BytesPerToken()

    for cut in cuts:
        if not cut.form.is_stream:
            estimate = learned.tokens(cut.form, cut.body_bytes)
            assert estimate is not None
            assert estimate >= cut.visible_tokens


@pytest.mark.parametrize(
    ("api", "answer"),
    [
        ("openai_chat", _CHAT),
        ("openai_responses", _RESPONSE),
        ("anthropic_messages", _MESSAGE),
        ("gemini", _GENERATED),
        ("vertex", _GENERATED),
    ],
)
def test_the_shortest_envelope_of_a_dialect_hides_no_text(api: str, answer: dict[str, Any]) -> None:
    """Servers that leave usage out write little else, too."""
    words = tokenizer().count(_WORDS, provider="openai", model="gpt-4o")
    size = len(json.dumps(answer, separators=(",", ":")))

    estimate = BytesPerToken().tokens(form(api=api, is_stream=False), size)

    assert words <= (estimate or 0) <= 4 * words


def test_google_puts_many_tokens_into_an_event_of_openais_too() -> None:
    assert BytesPerToken().tokens(form(provider="gcp.gemini"), 800) == 100


@pytest.mark.parametrize("changes", [{"api": "cohere_v2"}, {"api": ""}])
def test_what_was_never_measured_is_not_estimated(changes: dict[str, str]) -> None:
    assert BytesPerToken().tokens(form(**changes), 1000) is None


@pytest.mark.parametrize("size", [-1, 0, 1 << 40])
def test_no_bytes_and_impossibly_many_say_nothing(size: int) -> None:
    assert BytesPerToken().tokens(form(), size) is None


def test_five_answers_teach_what_a_models_tokens_take() -> None:
    assert taught(*[250] * 4).tokens(form(), 22_000) == 100
    assert taught(*[250] * 5).tokens(form(), 25_000) == 100


def test_one_answer_teaches_that_tokens_take_less_than_was_measured() -> None:
    """Some servers send many tokens at once: charging by the default would give most of them away."""
    assert taught(20).tokens(form(), 22_000) == 1100


def test_a_request_that_every_answer_repeats_makes_no_tokens_large() -> None:
    echoing: dict[str, Any] = {"api": "openai_responses"}

    assert taught(*[4_000] * 50, **echoing).tokens(form(**echoing), 37_000) == 100
    assert taught(*[4_000] * 50).tokens(form(), 400_000) == 100


def test_the_estimate_is_rather_too_high() -> None:
    learned = taught(*[240] * 6, *[290] * 94)

    assert learned.tokens(form(), 24_000) == 100
    assert taught(*[240] * 4, *[290] * 96).tokens(form(), 29_000) == 100


def test_short_answers_teach_nothing() -> None:
    assert taught(20, tokens=FEWEST_TOKENS - 1).changes == 0
    assert taught(20, tokens=FEWEST_TOKENS).changes == 1


def test_models_providers_and_streams_are_learned_apart() -> None:
    learned = taught(*[20] * 5)

    for other in (form(model="m"), form(provider="groq"), form(is_stream=False)):
        assert learned.tokens(other, 22_000) == BytesPerToken().tokens(other, 22_000)


def test_only_the_newest_answers_count() -> None:
    assert taught(*[20] * 200, *[280] * 128).tokens(form(), 28_000) == 100


def test_invented_model_names_push_out_the_model_used_least_recently() -> None:
    learned = taught(20)
    for number in range(1024):
        learned.observe(form(model=f"invented-{number}"), 25_000, 100)
    learned.observe(form(model="m" * (LONGEST_NAME + 1)), 25_000, 100)

    assert learned.tokens(form(), 22_000) == 100
    assert len(learned.dump()) == 1024


def test_what_was_learned_is_taken_over_as_far_as_it_can_be_true() -> None:
    learned = taught(*[250] * 5)
    rows = json.loads(json.dumps(learned.dump()))
    strange: list[Any] = [
        None,
        {},
        ["openai", "gpt-4o", 1, [20_000]],
        ["openai", "gpt-4o", True, 20_000],
        ["openai", "gpt-4o", True, ["20000", True, -1, 0, 1.5, 10**12, None]],
        ["openai", "m" * (LONGEST_NAME + 1), True, [20_000]],
    ]

    again = BytesPerToken()
    again.load([*strange, *rows])

    assert again.dump() == learned.dump() == [["openai", "gpt-4o", True, [250_000] * 5]]


@given(st.integers(), st.integers(), st.lists(st.tuples(st.integers(), st.integers()), max_size=20))
def test_no_figures_break_it_and_more_bytes_are_never_fewer_tokens(
    one: int, other: int, answers: list[tuple[int, int]]
) -> None:
    learned = BytesPerToken()
    for size, tokens in answers:
        learned.observe(form(), size, tokens)

    fewer, more = (learned.tokens(form(), size) for size in sorted((one, other)))

    if fewer is not None and more is not None:
        assert 0 <= fewer <= more
