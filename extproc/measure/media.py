"""What audio, video and files of the input cost in tokens: by their size, else by a fixed guess.

Floor 1, pure. Only the provider decodes them, so these are never exact. Sources: OpenAI's and Google's
token guides (a token of audio every 100 ms, 32 a second; 263 a second of video; 258 a page), Anthropic's
PDF guide (1,500 to 3,000 a page beside its picture).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from extproc.measure.families import normalised
from extproc.model import PromptMedia


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What one family takes for a second or a page."""

    audio_second: float = 32
    video_second: float = 263 + 32  # with its sound
    page: float = 3_000


_FAMILIES: tuple[tuple[re.Pattern[str], Rates], ...] = (
    (re.compile(r"gemini|gemma"), Rates(page=258)),
    (re.compile(r"gpt|o\d|whisper|chatgpt|codex"), Rates(audio_second=10, page=1_500)),
)
# Of families without a figure of their own: the highest of the others.
_HIGHEST = Rates()

# MP3 at 128 kbit/s, video at 1 Mbit/s, a page of text with a picture now and then. What is compressed
# less costs less than estimated.
_BYTES_OF: Mapping[str, int] = MappingProxyType({"audio": 16_000, "video": 125_000, "file": 25_000})
# Where only a reference is there: ten minutes of sound, one of video, ten pages.
_UNITS_OF: Mapping[str, int] = MappingProxyType({"audio": 600, "video": 60, "file": 10})
# Opus at its lowest rate, 6 kbit/s.
_FEWEST_AUDIO_BYTES = 750
# No model takes more than two million tokens; of video and pages nothing smaller is certain.
LARGEST_CONTEXT = 2 * 1024 * 1024


def media_tokens(media: PromptMedia, *, model: str) -> int:
    """What one piece of input that is neither text nor image is expected to cost."""
    rate = _rate(media.modality, normalised(model))
    if media.size_bytes is None:
        units: float = _UNITS_OF.get(media.modality, _UNITS_OF["file"])
    else:
        units = media.size_bytes / _BYTES_OF.get(media.modality, _BYTES_OF["file"])
    return min(LARGEST_CONTEXT, max(1, math.ceil(units * rate)))


def largest_media_tokens(media: PromptMedia) -> int:
    """What it costs at the very most, for any model."""
    if media.modality != "audio" or media.size_bytes is None:
        return LARGEST_CONTEXT
    seconds = media.size_bytes / _FEWEST_AUDIO_BYTES
    return min(LARGEST_CONTEXT, max(1, math.ceil(seconds * _HIGHEST.audio_second)))


def _rate(modality: str, name: str) -> float:
    rates = next((rates for pattern, rates in _FAMILIES if pattern.match(name)), _HIGHEST)
    by_modality = {"audio": rates.audio_second, "video": rates.video_second}
    return by_modality.get(modality, rates.page)
