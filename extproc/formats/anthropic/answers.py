"""Usage, text and endings of Anthropic Messages answers.

Floor 1, pure. Sources: anthropic-sdk-python `types/raw_message_stream_event`, `types/usage`,
recorded answers.
"""

from __future__ import annotations

from typing import Any

from extproc.formats.answers import (
    JSON,
    Tally,
    as_object,
    as_objects,
    as_text,
    event_object,
    place,
    tokens,
    word,
)
from extproc.formats.sse import SSEEvent
from extproc.model import Usage

# Where each kind of block and of delta keeps what was generated.
_BLOCK_TEXTS = {
    "text": "text",
    "thinking": "thinking",
    "tool_use": "name",
    "server_tool_use": "name",
    "mcp_tool_use": "name",
}
_DELTA_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


class AnthropicAnswers:
    """Reads `message` objects and the events of a streamed message; one instance an answer."""

    def __init__(self) -> None:
        self._usage: dict[str, Any] = {}

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a whole message, or the error in its place."""
        if body.get("type") == "error" or body.get("error"):
            tally.fail(body.get("error"))
        self._read_message(body, tally)
        for position, block in enumerate(as_objects(body.get("content"))):
            _say_block(tally, position, block)
            if block.get("input"):
                tally.say(position, as_text(block["input"]))
        self._read_stop(body, tally)

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Take one event; its kind stands in its data, as the SDKs read it."""
        data = event_object(event.data)
        read = {
            "message_start": self._read_start,
            "content_block_start": self._read_block,
            "content_block_delta": self._read_delta,
            "message_delta": self._read_message_delta,
            "message_stop": self._read_end,
            "error": self._read_error,
        }.get(word(data.get("type")) or event.event)
        if read:
            read(data, tally)

    def _read_start(self, data: JSON, tally: Tally) -> None:
        self._read_message(as_object(data.get("message")), tally)

    def _read_block(self, data: JSON, tally: Tally) -> None:
        _say_block(tally, place(data.get("index")), as_object(data.get("content_block")))

    def _read_delta(self, data: JSON, tally: Tally) -> None:
        delta = as_object(data.get("delta"))
        tally.say(place(data.get("index")), delta.get(_DELTA_TEXTS.get(word(delta.get("type")), "")))

    def _read_message_delta(self, data: JSON, tally: Tally) -> None:
        self._read_usage(as_object(data.get("usage")), tally)
        self._read_stop(as_object(data.get("delta")), tally)

    def _read_end(self, _data: JSON, tally: Tally) -> None:
        tally.finished = True

    def _read_error(self, data: JSON, tally: Tally) -> None:
        tally.fail(data.get("error"))

    def _read_message(self, message: JSON, tally: Tally) -> None:
        tally.name(model=message.get("model"), response_id=message.get("id"))
        self._read_usage(as_object(message.get("usage")), tally)

    def _read_stop(self, holder: JSON, tally: Tally) -> None:
        if reason := word(holder.get("stop_reason")):
            tally.finish_reasons[0] = reason

    def _read_usage(self, usage: JSON, tally: Tally) -> None:
        """Counts are cumulative, and some backends report input only at the end: last value wins."""
        self._usage |= {name: value for name, value in usage.items() if value is not None}
        tally.usage = read_usage(self._usage) or tally.usage


def read_usage(usage: JSON) -> Usage | None:
    """A `usage` object in inclusive counts; None where it has neither total.

    `input_tokens` leaves out what the cache was read for or written with.
    """
    uncached, output = tokens(usage.get("input_tokens")), tokens(usage.get("output_tokens"))
    if uncached is None and output is None:
        return None
    read = tokens(usage.get("cache_read_input_tokens"))
    created = tokens(usage.get("cache_creation_input_tokens"))
    lifetimes = as_object(usage.get("cache_creation"))
    if created is None:
        created = _sum_of_lifetimes(lifetimes)
    return Usage(
        input_tokens=None if uncached is None else uncached + (read or 0) + (created or 0),
        output_tokens=output,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=created,
        # Written for an hour it costs more than for five minutes.
        cache_creation_1h_input_tokens=tokens(lifetimes.get("ephemeral_1h_input_tokens")),
        reasoning_output_tokens=tokens(as_object(usage.get("output_tokens_details")).get("thinking_tokens")),
    )


def _sum_of_lifetimes(created: JSON) -> int | None:
    counts = [tokens(created.get(f"ephemeral_{lifetime}_input_tokens")) for lifetime in ("5m", "1h")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _say_block(tally: Tally, where: int, block: JSON) -> None:
    tally.say(where, block.get(_BLOCK_TEXTS.get(word(block.get("type")), "")))
