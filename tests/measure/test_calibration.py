import json
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.measure.calibration import MODELS, Calibration, Line, is_comparable
from extproc.measure.learned import LONGEST_NAME
from extproc.model import AIRequest, TokenEstimate


def request(model: str = "m", **changes: Any) -> AIRequest:
    values: dict[str, Any] = {"api": "openai_chat", "provider": "groq", "operation": "chat"}
    return AIRequest(model=model, **(values | {"modalities": ("text",)} | changes))


def estimated(tokens: int, **changes: Any) -> TokenEstimate:
    values: dict[str, Any] = {
        "input": tokens,
        "uncalibrated": tokens,
        "input_upper_bound": 10 * tokens,
        "max_output": 100,
        "estimator": "tiktoken:o200k_base",
    }
    return TokenEstimate(**(values | changes))


def taught(*pairs: tuple[int, int], **changes: Any) -> Calibration:
    calibration = Calibration()
    for tokens, reported in pairs:
        calibration.teach(estimated(tokens), request(**changes), reported)
    return calibration


def corrected(calibration: Calibration, tokens: int, **changes: Any) -> int:
    return calibration.corrected(estimated(tokens), request(**changes)).input


def test_a_model_that_was_never_heard_of_is_not_corrected() -> None:
    assert Calibration().corrected(estimated(100), request()) == estimated(100)


def test_a_fixed_addition_is_learned_from_a_few_answers() -> None:
    calibration = taught((10, 30), (40, 61), (25, 45))

    assert corrected(calibration, 60) == pytest.approx(80, abs=2)


def test_a_tokenizers_slope_is_learned_from_a_few_answers() -> None:
    calibration = taught((1_000, 1_300), (5_000, 6_500), (300, 390))

    assert corrected(calibration, 20_000) == pytest.approx(26_000, rel=0.02)


def test_a_large_addition_is_believed_when_it_keeps_coming() -> None:
    """A hidden prompt of the provider looks like an accident the first two times."""
    twice = taught((16, 5_296), (20, 5_300))
    thrice = taught((16, 5_296), (20, 5_300), (30, 5_310))

    assert corrected(twice, 16) == 16
    assert corrected(thrice, 16) == pytest.approx(5_296, abs=5)


def test_a_hidden_tool_now_and_then_changes_nothing() -> None:
    rng = random.Random(1)
    calibration = Calibration()
    for turn in range(300):
        tokens = rng.randrange(20, 2_000)
        reported = tokens + 3 + (rng.randrange(3_000, 12_000) if turn % 3 == 0 else 0)
        calibration.teach(estimated(tokens), request(), reported)

    assert corrected(calibration, 500) == pytest.approx(503, abs=15)


def test_one_callers_odd_answers_move_an_estimate_only_so_far_and_honest_ones_take_it_back() -> None:
    """A hidden prompt of any size, three times in a row, from whoever has a key."""
    calibration = taught(*[(1_000, 1_003)] * 20, *[(16, 100_000_000)] * 50)
    assert corrected(calibration, 1_000) <= 2.5 * 1_000 + 10_000

    for tokens in (500, 700, 900):
        calibration.teach(estimated(tokens), request(), tokens + 3)
    assert corrected(calibration, 1_000) == pytest.approx(1_003, rel=0.05)


def test_odd_answers_among_honest_ones_are_never_believed() -> None:
    calibration = Calibration()
    for turn in range(200):
        tokens = 100 + turn
        calibration.teach(estimated(tokens), request(), tokens + (90_000 if turn % 3 else 3))

    assert corrected(calibration, 500) == pytest.approx(503, abs=15)


def test_a_line_that_only_makes_requests_too_large_is_forgotten() -> None:
    calibration = taught(*[(16, 9_000)] * 3)
    for _ in range(9):
        calibration.doubt(estimated(16), request())
    assert corrected(calibration, 16) > 8_000

    calibration.teach(estimated(16), request(), 9_000)
    for _ in range(9):
        calibration.doubt(estimated(16, estimator="tiktoken:o200k_base+learned"), request())
    assert corrected(calibration, 16) > 8_000, "an answer that agrees counts more than any refusal"

    before = calibration.changes
    calibration.doubt(estimated(16), request())
    calibration.doubt(estimated(16), request("never heard of"))

    assert corrected(calibration, 16) == 16
    assert calibration.changes == before + 1


def test_a_change_of_a_models_tokenizer_is_followed() -> None:
    rng = random.Random(1)
    calibration = Calibration()
    for slope in (1.0, 1.3):
        for _ in range(200):
            tokens = rng.randrange(50, 5_000)
            calibration.teach(estimated(tokens), request(), round(slope * tokens))

    assert corrected(calibration, 4_000) == pytest.approx(5_200, rel=0.02)


def test_the_bound_grows_only_by_what_the_provider_is_known_to_add() -> None:
    calibration = taught(*[(100, 140)] * 10, *[(1_000, 1_040)] * 10)

    found = calibration.corrected(estimated(20, input_upper_bound=25), request())

    assert found.input == pytest.approx(60, abs=2)
    assert found.input <= found.input_upper_bound <= 25 + 42
    assert found.uncalibrated == 20
    assert found.estimator == "tiktoken:o200k_base+learned"
    assert found.max_output == 100


def test_an_exact_count_is_neither_changed_nor_learned_from() -> None:
    calibration = taught((100, 150))
    exact = estimated(100, exact=True)

    assert calibration.corrected(exact, request()) == exact

    untouched = Calibration()
    untouched.teach(exact, request(), 150)
    assert len(untouched) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"has_state": True},
        {"modalities": ("image", "text")},
        {"tools": ("get_weather", "web_search_preview")},
        {"tools": ("web_search_20250305",)},
        {"tools": ("web_search_preview_2025_03_11",)},
        {"tools": ("googleSearch",)},
        {"tools": ("google_search_retrieval",)},
        {"tools": ("code_interpreter",)},
        {"tools": ("mcp",)},
        {"tools": ("computer_20250124",)},
    ],
)
def test_what_the_text_does_not_say_teaches_nothing_and_is_not_corrected(changes: dict[str, Any]) -> None:
    assert not is_comparable(request(**changes))
    assert len(taught((100, 9_000), **changes)) == 0
    assert corrected(taught(*[(100, 150)] * 5), 100, **changes) == 100


@pytest.mark.parametrize("tool", ["WebSearch", "mcp__github__search", "Bash", "computer_science", "research"])
def test_a_clients_own_tools_are_learned_with(tool: str) -> None:
    assert is_comparable(request(tools=(tool,)))


def test_models_providers_operations_tools_and_estimators_are_learned_apart() -> None:
    calibration = taught(*[(100, 150)] * 5)

    assert corrected(calibration, 100) != 100
    assert corrected(calibration, 100, model="other") == 100
    assert corrected(calibration, 100, provider="openai") == 100
    assert corrected(calibration, 100, tools=("get_weather",)) == 100
    assert corrected(calibration, 100, operation="text_completion") == 100
    by_bytes = calibration.corrected(estimated(100, estimator="bytes"), request())
    assert by_bytes.input == 100


def test_invented_model_names_push_out_the_model_taught_least_recently() -> None:
    calibration = taught(*[(100, 150)] * 5)
    for number in range(MODELS - 1):
        calibration.teach(estimated(100), request(f"invented-{number}"), 100)
    assert corrected(calibration, 100) != 100

    calibration.teach(estimated(100), request("one-more"), 100)

    assert len(calibration) == MODELS
    assert corrected(calibration, 100) == 100


def test_a_name_that_is_no_name_is_not_remembered() -> None:
    assert len(taught((100, 150), model="m" * (LONGEST_NAME + 1))) == 0


def test_what_was_learned_survives_as_json() -> None:
    calibration = taught((10, 30), (40, 61), (25, 45), (9, 9_000))

    restored = Calibration()
    restored.load(json.loads(json.dumps(calibration.dump())))

    assert restored.dump() == calibration.dump()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(st.lists(json_values, max_size=4))
def test_no_foreign_rows_are_believed(rows: list[Any]) -> None:
    calibration = Calibration()

    calibration.load(rows)

    assert len(calibration) == 0


@given(st.integers(0, 13), json_values)
def test_a_damaged_row_is_left_out_or_harmless(place: int, value: Any) -> None:
    row = taught((10, 30), (40, 61)).dump()[0]
    assert len(row) == 13
    row[place % 13] = value
    calibration = Calibration()

    calibration.load([row])

    assert 1 <= corrected(calibration, 1_000) <= 10_000 + 10_000
    calibration.teach(estimated(100), request(), 120)


@given(st.lists(st.tuples(st.integers(1, 2_000_000), st.integers(1, 100_000_000)), max_size=60))
def test_whatever_is_reported_the_line_stays_possible(pairs: list[tuple[int, int]]) -> None:
    line = Line()
    for tokens, reported in pairs:
        line = line.taught(tokens, reported)

        assert 0.7 <= line.slope <= 2.5
        assert -1_000 <= line.intercept <= 10_000
        assert line.slope_variance > 0
        assert line.intercept_variance > 0
        assert math.isfinite(line.at(2_000_000))
    calibration = Calibration()
    calibration._lines[("groq", "m", "chat", False, "bytes")] = line
    restored = Calibration()
    restored.load(json.loads(json.dumps(calibration.dump())))
    assert len(restored) == 1
