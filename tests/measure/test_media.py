import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.measure.media import LARGEST_CONTEXT, largest_media_tokens, media_tokens
from extproc.model import PromptMedia

MODELS = ("gpt-4o-audio-preview", "gemini-2.5-pro", "claude-opus-4-8", "voxtral-small", "")


@pytest.mark.parametrize(
    ("modality", "size_bytes", "model", "tokens"),
    [
        ("audio", 160_000, "gpt-4o-audio-preview", 100),
        ("audio", 160_000, "gemini-2.5-pro", 320),
        ("audio", 160_000, "voxtral-small", 320),
        ("audio", None, "openai/gpt-4o-audio-preview", 6_000),
        ("video", 1_250_000, "gemini-2.5-pro", 2_950),
        ("video", None, "gemini-2.5-pro", 17_700),
        ("file", 250_000, "gemini-2.5-pro", 2_580),
        ("file", 250_000, "claude-sonnet-4-5", 30_000),
        ("file", None, "gpt-4o", 15_000),
        ("file", 0, "gpt-4o", 1),
        ("hologram", None, "gpt-4o", 15_000),
        ("file", 10**12, "gpt-4o", LARGEST_CONTEXT),
    ],
)
def test_media_cost_what_their_size_and_family_say(
    modality: str, size_bytes: int | None, model: str, tokens: int
) -> None:
    assert media_tokens(PromptMedia(modality=modality, size_bytes=size_bytes), model=model) == tokens


@given(
    st.sampled_from(["audio", "video", "file", "hologram"]),
    st.none() | st.integers(0, 10**12),
    st.sampled_from(MODELS),
)
def test_no_media_cost_more_than_the_most(modality: str, size_bytes: int | None, model: str) -> None:
    media = PromptMedia(modality=modality, size_bytes=size_bytes)

    assert 1 <= media_tokens(media, model=model) <= largest_media_tokens(media) <= LARGEST_CONTEXT


def test_the_bound_of_sound_follows_its_size() -> None:
    assert largest_media_tokens(PromptMedia(modality="audio", size_bytes=750)) == 32
