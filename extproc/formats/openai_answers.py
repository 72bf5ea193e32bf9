"""Usage, text and endings of OpenAI chat answers, and of the many servers that imitate them.

Floor 1, pure. Sources: openai-python `types/chat`, recorded answers of OpenAI, Azure, Groq,
DeepSeek, Mistral, vLLM and xAI.
"""

from __future__ import annotations

import re
from typing import Any

from extproc.formats.answers import JSON, Tally, as_object, as_objects, event_object, tokens, word
from extproc.formats.sse import SSEEvent
from extproc.model import Usage

_DONE = b"[DONE]"
# Spares parsing every chunk of a stream to find the one.
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')


class OpenAIChatAnswers:
    """Reads `chat.completion` objects and `chat.completion.chunk` events."""

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
            index = choice.get("index")
            number = index if type(index) is int else position
            reason = word(choice.get("finish_reason")) or tally.finish_reasons.get(number, "")
            tally.finish_reasons[number] = reason
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
        index = call.get("index")
        number = index if type(index) is int else position
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


def read_usage(usage: JSON) -> Usage | None:
    """A `usage` object in inclusive counts; None where it has neither total."""
    prompt, completion = tokens(usage.get("prompt_tokens")), tokens(usage.get("completion_tokens"))
    if prompt is None and completion is None:
        return None
    total = tokens(usage.get("total_tokens"))
    # xAI leaves reasoning out of completion_tokens but not out of the total.
    if total is not None and prompt is not None and total - prompt > (completion or 0):
        completion = total - prompt
    input_details = as_object(usage.get("prompt_tokens_details"))
    output_details = as_object(usage.get("completion_tokens_details"))
    cached = tokens(input_details.get("cached_tokens"))
    return Usage(
        input_tokens=prompt,
        output_tokens=completion,
        # DeepSeek's own field says the same beside the details, or instead of them.
        cache_read_input_tokens=tokens(usage.get("prompt_cache_hit_tokens")) if cached is None else cached,
        cache_creation_input_tokens=tokens(input_details.get("cache_write_tokens")),
        reasoning_output_tokens=tokens(output_details.get("reasoning_tokens")),
    )


def is_usage_chunk(event_data: bytes) -> bool:
    """Whether a chunk carries usage and nothing else; Azure's first chunk has no choices either."""
    if not _NO_CHOICES.search(event_data):
        return False
    chunk = event_object(event_data)
    return chunk.get("choices") == [] and isinstance(chunk.get("usage"), dict) and "error" not in chunk
