"""Usage, text and endings of answers of the Gemini API and of Vertex AI.

Floor 1, pure. Sources: google-genai `types`, recorded answers; Vertex's SDKs ask for enums as
numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from extproc.formats.answers import (
    JSON,
    Tally,
    as_object,
    as_objects,
    as_text,
    event_object,
    place,
    reader,
    tokens,
    word,
)
from extproc.formats.base import AnswerReader
from extproc.formats.body import media_type
from extproc.formats.google.json_array import ArrayAnswer
from extproc.formats.sse import SSEEvent
from extproc.model import Usage

# The numbers that both APIs give the same meaning.
_FINISH_REASONS = ("", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER")
_MODALITIES: Mapping[Any, str] = MappingProxyType({2: "IMAGE", 4: "AUDIO"})
_NOTHING_GENERATED = "embeddings"


def google_reader(dialect: GeminiAnswers, headers: Mapping[str, str]) -> AnswerReader:
    """The reader for an answer by its content type: events, or JSON that may be an array of them."""
    return reader(dialect, headers) if media_type(headers) == "text/event-stream" else ArrayAnswer(dialect)


class GeminiAnswers:
    """Reads GenerateContentResponse, whole and streamed, embeddings and predictions; one an answer."""

    def __init__(self, operation: str) -> None:
        self._is_input_only = operation == _NOTHING_GENERATED
        self._usage: dict[str, Any] = {}
        self._is_blocked = False

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a whole answer, or the error in its place."""
        self._read(body, tally)
        self._count(tally, is_over=True)
        if tally.usage is None:
            tally.usage = _read_statistics(body)

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Take one answer of a stream; the last one ends every candidate."""
        self._read(event_object(event.data), tally)
        reasons = tally.finish_reasons
        is_over = self._is_blocked or (bool(reasons) and all(reasons.values()))
        self._count(tally, is_over=is_over)
        tally.finished = is_over and (self._is_blocked or tally.usage is not None)

    def _read(self, body: JSON, tally: Tally) -> None:
        if error := body.get("error"):
            tally.fail({"type": as_object(error).get("status")})
        tally.name(model=body.get("modelVersion"), response_id=body.get("responseId"))
        for position, candidate in enumerate(as_objects(body.get("candidates"))):
            number = place(candidate.get("index"), position)
            reason = _finish_reason(candidate.get("finishReason"))
            tally.finish_reasons[number] = reason or tally.finish_reasons.get(number, "")
            _say(tally, number, as_object(candidate.get("content")))
        blocked = as_object(body.get("promptFeedback")).get("blockReason")
        if blocked:
            self._is_blocked = True
            tally.finish_reasons[0] = word(blocked) or "BLOCKED"
        # Counts are cumulative, and some come with the last answer alone: last value wins.
        reported = as_object(body.get("usageMetadata"))
        self._usage |= {name: value for name, value in reported.items() if value is not None}

    def _count(self, tally: Tally, *, is_over: bool) -> None:
        is_silent = self._is_input_only or self._is_blocked
        tally.usage = read_usage(self._usage, is_over=is_over, is_silent=is_silent) or tally.usage


def read_usage(usage: JSON, *, is_over: bool, is_silent: bool = False) -> Usage | None:
    """A `usageMetadata` object in inclusive counts; None where it has no total.

    No output is 0 only where the answer `is_over`, or `is_silent` by its nature.
    """
    prompt, tool = tokens(usage.get("promptTokenCount")), tokens(usage.get("toolUsePromptTokenCount"))
    candidates, thoughts = tokens(usage.get("candidatesTokenCount")), tokens(usage.get("thoughtsTokenCount"))
    total = tokens(usage.get("totalTokenCount"))
    if prompt is None and is_silent:
        prompt = total
    if prompt is None and candidates is None:
        return None
    read = None if prompt is None else prompt + (tool or 0)
    written = None if candidates is None and thoughts is None else (candidates or 0) + (thoughts or 0)
    # What no count names was generated all the same.
    if total is not None and read is not None and total - read > (written or 0):
        written = total - read
    if written is None and (is_silent or (is_over and total is not None)):
        written = 0
    spoken = ("candidatesTokensDetails", "responseTokensDetails")
    heard = ("promptTokensDetails", "toolUsePromptTokensDetails")
    return Usage(
        input_tokens=read,
        output_tokens=written,
        cache_read_input_tokens=tokens(usage.get("cachedContentTokenCount")),
        audio_input_tokens=_of_modality(usage, heard, "AUDIO"),
        image_input_tokens=_of_modality(usage, heard, "IMAGE"),
        tool_input_tokens=tool,
        reasoning_output_tokens=thoughts,
        audio_output_tokens=_of_modality(usage, spoken, "AUDIO"),
        image_output_tokens=_of_modality(usage, spoken, "IMAGE"),
    )


def _of_modality(usage: JSON, keys: tuple[str, ...], modality: str) -> int | None:
    counts = [
        tokens(detail.get("tokenCount"))
        for key in keys
        for detail in as_objects(usage.get(key))
        if _modality(detail.get("modality")) == modality
    ]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _modality(value: Any) -> str:
    return _MODALITIES.get(value, "") if type(value) is int else word(value)


def _finish_reason(value: Any) -> str:
    if type(value) is int:
        return _FINISH_REASONS[value] if 0 <= value < len(_FINISH_REASONS) else str(value)
    return word(value)


def _say(tally: Tally, candidate: int, content: JSON) -> None:
    for part in as_objects(content.get("parts")):
        where = (candidate, "thought" if part.get("thought") is True else "text")
        tally.say(where, part.get("text"))
        tally.say((candidate, "code"), as_object(part.get("executableCode")).get("code"))
        call = as_object(part.get("functionCall"))
        tally.say((candidate, "call"), call.get("name"))
        if args := as_object(call.get("args")):
            tally.say((candidate, "call"), as_text(args))
        for piece in as_objects(call.get("partialArgs")):
            tally.say((candidate, "call"), piece.get("stringValue"))


def _read_statistics(body: JSON) -> Usage | None:
    """What embeddings of Vertex say of each input; images and videos say nothing."""
    counts = [tokens(count) for count in _statistics(body)]
    known = [count for count in counts if count is not None]
    return Usage(input_tokens=sum(known), output_tokens=0) if known else None


def _statistics(body: JSON) -> Iterator[Any]:
    embeddings = [as_object(each.get("embeddings")) for each in as_objects(body.get("predictions"))]
    # The Gemini API gives them, if at all, beside the values.
    embeddings += [as_object(body.get("embedding")), *as_objects(body.get("embeddings"))]
    for each in embeddings:
        found = as_object(each.get("statistics"))
        yield found.get("token_count", found.get("tokenCount"))
