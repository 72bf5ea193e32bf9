import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.measure.learned import LearnedOutputs


def observed(*outputs: int) -> LearnedOutputs:
    learned = LearnedOutputs()
    for tokens in outputs:
        learned.observe("openai", "gpt-4o", tokens)
    return learned


def test_nothing_is_learned_from_few_answers() -> None:
    assert observed(*[10] * 19).percentile_95("openai", "gpt-4o") is None
    assert observed(*[10] * 20).percentile_95("openai", "gpt-4o") == 10


def test_one_long_answer_in_forty_is_not_expected() -> None:
    assert observed(*[100] * 39, 16_000).percentile_95("openai", "gpt-4o") == 100


def test_only_the_newest_answers_count() -> None:
    assert observed(*[9_000] * 500, *[10] * 256).percentile_95("openai", "gpt-4o") == 10


def test_models_and_providers_are_learned_apart() -> None:
    learned = observed(*[10] * 20)

    assert learned.percentile_95("azure.ai.openai", "gpt-4o") is None
    assert learned.percentile_95("openai", "gpt-4o-mini") is None


def test_invented_model_names_push_out_the_model_used_least_recently() -> None:
    learned = observed(*[10] * 20)
    for number in range(1023):
        learned.observe("openai", f"invented-{number}", 1)
    assert learned.percentile_95("openai", "gpt-4o") == 10

    learned.observe("openai", "one-more", 1)

    assert learned.percentile_95("openai", "gpt-4o") is None


@given(st.lists(st.integers(0, 200_000), min_size=20, max_size=600))
def test_the_percentile_is_the_nearest_rank_of_the_newest(outputs: list[int]) -> None:
    newest = sorted(outputs[-256:])

    expected = newest[math.ceil(0.95 * len(newest) - 1e-9) - 1]

    assert observed(*outputs).percentile_95("openai", "gpt-4o") == expected


@pytest.mark.parametrize("count", [20, 255, 256, 257, 1000])
def test_zero_is_an_output(count: int) -> None:
    assert observed(*[0] * count).percentile_95("openai", "gpt-4o") == 0
