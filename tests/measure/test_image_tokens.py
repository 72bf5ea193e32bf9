import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.measure.images import image_tokens, largest_image_tokens
from extproc.model import PromptImage

MODELS = (
    "gpt-4o",
    "gpt-4o-mini",
    "gpt-4.1",
    "gpt-4.1-mini",
    "gpt-5",
    "gpt-5-nano",
    "gpt-5.2",
    "gpt-5.6",
    "o1",
    "o4-mini",
    "gpt-4-vision-preview",
    "claude-sonnet-4-5",
    "claude-opus-4-8",
    "gemini-2.5-pro",
    "unknown",
)


def image(width_px: int | None, height_px: int | None, detail: str = "auto") -> PromptImage:
    return PromptImage(width_px=width_px, height_px=height_px, detail=detail)


@pytest.mark.parametrize(
    ("model", "size", "detail", "tokens"),
    [
        ("gpt-4o", (1024, 1024), "high", 85 + 4 * 170),
        ("gpt-4o", (2048, 4096), "high", 85 + 6 * 170),
        ("gpt-4o", (4096, 8192), "low", 85),
        ("gpt-4o", (1, 1), "auto", 85 + 170),
        ("gpt-4o-mini", (512, 512), "auto", 2833 + 5667),
        ("gpt-4-vision-preview", (2560, 1669), "auto", 85 + 6 * 170),
        ("gpt-5", (512, 512), "auto", 70 + 140),
        ("o1", (512, 512), "auto", 75 + 150),
        ("gpt-5-nano", (16, 16), "auto", 3),
        ("gpt-5.2", (1024, 1024), "auto", 1229),
        ("claude-sonnet-4-5", (280, 280), "auto", 100),
        ("claude-sonnet-4-5", (1568, 1568), "auto", 1568),
        ("claude-opus-4-8", (1568, 1568), "auto", 3136),
        ("gemini-2.5-pro", (768, 768), "auto", 258),
    ],
)
def test_an_image_costs_what_its_vendors_table_says(
    model: str, size: tuple[int, int], detail: str, tokens: int
) -> None:
    assert image_tokens(image(*size, detail), model=model) == tokens


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [(None, None), (None, 10), (0, 10), (-1, -1)])
def test_an_image_of_unknown_size_costs_the_most(model: str, size: tuple[int | None, int | None]) -> None:
    assert image_tokens(image(*size), model=model) == largest_image_tokens(model=model)


@given(
    st.sampled_from(MODELS),
    st.integers(1, 10**9),
    st.integers(1, 10**9),
    st.sampled_from(["auto", "low", "high"]),
)
def test_no_image_costs_more_than_the_largest(model: str, width: int, height: int, detail: str) -> None:
    assert 1 <= image_tokens(image(width, height, detail), model=model) <= largest_image_tokens(model=model)
