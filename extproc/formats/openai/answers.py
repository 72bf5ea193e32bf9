"""Usage, text and endings of OpenAI's chats and completions, and of the many that imitate them.

Floor 1, pure. Sources: openai-python `types/chat`, `types/completion`, `types/completion_usage`;
recorded answers of OpenAI, Azure, Groq, DeepSeek, Mistral, vLLM, Voyage and xAI; Perplexity's guide.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from extproc.formats.answers import JSON, Tally, as_object, as_objects, event_object, place, tokens, word
from extproc.formats.sse import SSEEvent
from extproc.model import Usage

_DONE = b"[DONE]"
# Spares parsing every chunk of a stream to find the one.
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')


class OpenAIAnswers:
    """Reads `chat.completion` and `text_completion` objects, and the chunks of both."""

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a whole answer, or the error in its place."""
        self._read(body, tally, "message")

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Take one chunk, the end marker, or an error inside the stream."""
        if event.data.strip() == _DONE:
            tally.finished = True
            return
        self._read(event_object(event.data), tally, "delta")
        is_stopped = bool(tally.finish_reasons) and all(tally.finish_reasons.values())
        tally.finished = is_stopped and tally.usage is not None

    def _read(self, body: JSON, tally: Tally, part: str) -> None:
        if body.get("error"):
            tally.fail(body["error"])
        tally.name(model=body.get("model"), response_id=body.get("id"))
        for position, choice in enumerate(as_objects(body.get("choices"))):
            number = place(choice.get("index"), position)
            reason = word(choice.get("finish_reason")) or tally.finish_reasons.get(number, "")
            tally.finish_reasons[number] = reason
            tally.say((number, "text"), choice.get("text"))
            _say(tally, number, as_object(choice.get(part)))
        # Groq's streams report beside the standard place.
        reported = as_object(body.get("usage")) or as_object(as_object(body.get("x_groq")).get("usage"))
        tally.usage = read_usage(reported) or tally.usage


def _say(tally: Tally, choice: int, message: JSON) -> None:
    for name in ("reasoning_content", "reasoning", "refusal"):
        tally.say((choice, name), message.get(name))
    _say_content(tally, choice, message.get("content"))
    tally.say((choice, "audio"), as_object(message.get("audio")).get("transcript"))
    calls: list[tuple[Any, JSON]] = [("legacy", as_object(message.get("function_call")))]
    for position, call in enumerate(as_objects(message.get("tool_calls"))):
        number = place(call.get("index"), position)
        calls.append((number, as_object(call.get("function")) or as_object(call.get("custom"))))
    for where, function in calls:
        tally.say((choice, "tool", where), function.get("name"))
        tally.say((choice, "tool", where), function.get("arguments") or function.get("input"))


def _say_content(tally: Tally, choice: int, content: Any) -> None:
    """Content is text; Mistral's reasoning models send parts, thoughts being parts of a part."""
    tally.say((choice, "content"), content)
    for part in as_objects(content):
        tally.say((choice, "content"), part.get("text"))
        for thought in as_objects(part.get("thinking")):
            tally.say((choice, "thinking"), thought.get("text"))


class InputAnswers:
    """Reads answers to which nothing is generated: embeddings, scores, verdicts."""

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a whole answer, or the error in its place."""
        if body.get("error"):
            tally.fail(body["error"])
        tally.name(model=body.get("model"), response_id=body.get("id"))
        tally.usage = _read_input_usage(body)

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """These APIs have no streams; one would be read as whole answers."""
        self.read_whole(event_object(event.data), tally)


def _read_input_usage(body: JSON) -> Usage | None:
    """Voyage and Jina have totals alone; rerankers after Cohere's model report in `meta`."""
    usage, meta = as_object(body.get("usage")), as_object(body.get("meta"))
    counts = (
        usage.get("prompt_tokens"),
        usage.get("input_tokens"),
        usage.get("total_tokens"),
        as_object(meta.get("billed_units")).get("input_tokens"),
        as_object(meta.get("tokens")).get("input_tokens"),
    )
    known = [count for count in map(tokens, counts) if count is not None]
    if not known:
        return None
    return Usage(input_tokens=known[0], output_tokens=tokens(usage.get("completion_tokens")) or 0)


def read_usage(usage: JSON) -> Usage | None:
    """A `usage` object in inclusive counts; None where it has neither total.

    Chat says prompt and completion where Responses says input and output.
    """
    prompt = _first(usage, "prompt_tokens", "input_tokens")
    completion = _first(usage, "completion_tokens", "output_tokens")
    if prompt is None and completion is None:
        return None
    total = tokens(usage.get("total_tokens"))
    # xAI leaves reasoning out of completion_tokens but not out of the total.
    if total is not None and prompt is not None and total - prompt > (completion or 0):
        completion = total - prompt
    into, out_of = _details(usage, _INPUT_DETAILS), _details(usage, _OUTPUT_DETAILS)
    cached = tokens(into.get("cached_tokens"))
    reasoning = tokens(out_of.get("reasoning_tokens"))
    found = Usage(
        input_tokens=prompt,
        output_tokens=completion,
        # Where the details are missing, others say the same beside them.
        cache_read_input_tokens=_first(usage, *_CACHED) if cached is None else cached,
        cache_creation_input_tokens=tokens(into.get("cache_write_tokens")),
        audio_input_tokens=tokens(into.get("audio_tokens")),
        image_input_tokens=tokens(into.get("image_tokens")),
        reasoning_output_tokens=tokens(usage.get("reasoning_tokens")) if reasoning is None else reasoning,
        audio_output_tokens=tokens(out_of.get("audio_tokens")),
        image_output_tokens=tokens(out_of.get("image_tokens")),
    )
    return _with_citations(found, tokens(usage.get("citation_tokens")))


_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details", "prompt_token_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details")
_CACHED = ("prompt_cache_hit_tokens", "cached_tokens")  # DeepSeek; Together and Moonshot


def _details(usage: JSON, names: tuple[str, ...]) -> JSON:
    return next((found for name in names if (found := as_object(usage.get(name)))), {})


def _first(usage: JSON, *names: str) -> int | None:
    return next((count for name in names if (count := tokens(usage.get(name))) is not None), None)


def _with_citations(usage: Usage, citations: int | None) -> Usage:
    """Perplexity's deep research bills what it cited and how it reasoned beside the totals."""
    if citations is None:
        return usage
    return replace(
        usage,
        input_tokens=(usage.input_tokens or 0) + citations,
        output_tokens=(usage.output_tokens or 0) + (usage.reasoning_output_tokens or 0),
        tool_input_tokens=citations,
    )


def is_usage_chunk(event_data: bytes) -> bool:
    """Whether a chunk carries usage and nothing else; Azure's first chunk has no choices either."""
    if not _NO_CHOICES.search(event_data):
        return False
    chunk = event_object(event_data)
    return chunk.get("choices") == [] and isinstance(chunk.get("usage"), dict) and "error" not in chunk
