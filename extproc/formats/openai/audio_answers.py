"""Usage, text and endings of OpenAI's transcriptions, translations and speech.

Floor 1, pure. Sources: openai-python `types/audio`, recorded answers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from extproc.formats.answers import (
    JSON,
    Tally,
    as_object,
    as_objects,
    event_object,
    reader,
    tokens,
)
from extproc.formats.base import AnswerReader
from extproc.formats.body import media_type
from extproc.formats.plain_answers import TextAnswer, UnreadAnswer
from extproc.formats.sse import SSEEvent
from extproc.model import Usage

_SOUND_EVENT = "speech.audio.delta"
# As transcriptions come with response_format text, srt and vtt.
_TEXT_TYPES = frozenset({"text/plain", "text/vtt", "text/srt", "application/x-subrip", "application/srt"})
_MAX_SECONDS = 10 * 24 * 3600


class OpenAIAudioAnswers:
    """Reads transcription objects, `transcript.text.*` and `speech.audio.*` events."""

    def __init__(self) -> None:
        self._has_deltas = False

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a whole answer, or the error in its place."""
        if body.get("error"):
            tally.fail(body["error"])
        tally.name(model=body.get("model"))
        tally.say("text", body.get("text"))
        if not isinstance(body.get("text"), str):
            for segment in as_objects(body.get("segments")):
                tally.say("text", segment.get("text"))
        tally.usage = read_usage(as_object(body.get("usage")))

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Take one event: a piece of text, the end with its usage, an error."""
        if event.event == _SOUND_EVENT:
            return
        body = event_object(event.data)
        if body.get("error"):
            tally.fail(body["error"])
        kind = body.get("type")
        if kind == "transcript.text.delta":
            self._has_deltas = True
            tally.say("text", body.get("delta"))
        elif kind == "transcript.text.segment":
            tally.say("segments", None if self._has_deltas else body.get("text"))
        elif kind in ("transcript.text.done", "speech.audio.done"):
            tally.usage = read_usage(as_object(body.get("usage"))) or tally.usage
            tally.finished = True


def read_usage(usage: JSON) -> Usage | None:
    """Tokens, or the duration that a model without token prices bills: such an answer costs no tokens."""
    seconds = _seconds(usage.get("seconds"))
    if usage.get("type") == "duration" and seconds is not None:
        return Usage(input_tokens=0, output_tokens=0, input_audio_ms=math.ceil(seconds * 1000))
    read, written = tokens(usage.get("input_tokens")), tokens(usage.get("output_tokens"))
    if read is None and written is None:
        return None
    details = as_object(usage.get("input_token_details"))
    return Usage(
        input_tokens=read, output_tokens=written, audio_input_tokens=tokens(details.get("audio_tokens"))
    )


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # NaN fails every comparison.
    return float(value) if 0 <= value <= _MAX_SECONDS else None


def answer_reader(headers: Mapping[str, str]) -> AnswerReader:
    """A reader for one answer: JSON, events, plain text, or sound, which nobody reads."""
    kind = media_type(headers)
    if kind in _TEXT_TYPES:
        return TextAnswer()
    if kind.startswith("audio/") or kind == "application/octet-stream":
        return UnreadAnswer()
    return reader(OpenAIAudioAnswers(), headers)
