"""Usage, text and endings of Bedrock Converse answers, and of Nova's native ones.

Floor 1, pure. Sources: Bedrock Runtime's service model (2023-09-30), recorded answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    tokens,
    word,
)
from extproc.formats.aws.event_stream import EXCEPTION
from extproc.formats.sse import SSEEvent
from extproc.model import Usage


class ConverseAnswers:
    """Reads whole answers and the events of streamed ones; one instance an answer."""

    def __init__(self) -> None:
        self._is_stopped = False

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a whole answer, or the error in its place."""
        read_error(body, tally)
        message = as_object(as_object(body.get("output")).get("message"))
        for position, block in enumerate(as_objects(message.get("content"))):
            say_block(tally, position, block)
        self._read_stop(body, tally)
        self._read_metadata(body, tally)

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Take one event, or the exception that ends a stream."""
        data = event_object(event.data)
        if event.event == EXCEPTION:
            tally.fail(data)
        else:
            self.read_named(event.event, data, tally)

    def read_named(self, name: str, data: JSON, tally: Tally) -> None:
        """Take one event of this name; an unknown one says nothing."""
        read = {
            "contentBlockStart": self._read_block,
            "contentBlockDelta": self._read_delta,
            "messageStop": self._read_stop,
            "metadata": self._read_end,
        }.get(name)
        if read:
            read(data, tally)

    def _read_block(self, data: JSON, tally: Tally) -> None:
        say_block(tally, place(data.get("contentBlockIndex")), as_object(data.get("start")))

    def _read_delta(self, data: JSON, tally: Tally) -> None:
        say_block(tally, place(data.get("contentBlockIndex")), as_object(data.get("delta")))

    def _read_stop(self, data: JSON, tally: Tally) -> None:
        if reason := word(data.get("stopReason")):
            tally.finish_reasons[0] = reason
            self._is_stopped = True

    def _read_end(self, data: JSON, tally: Tally) -> None:
        self._read_metadata(data, tally)
        tally.finished = self._is_stopped

    def _read_metadata(self, data: JSON, tally: Tally) -> None:
        tally.usage = read_usage(as_object(data.get("usage"))) or tally.usage
        # A router of prompts says whom it asked.
        router = as_object(as_object(data.get("trace")).get("promptRouter"))
        tally.name(model=router.get("invokedModelId"))


def read_error(body: JSON, tally: Tally) -> None:
    """Note AWS's error, a message and nothing that was generated, or that of whoever stands before it."""
    if body.get("error"):
        tally.fail(body["error"])
    elif isinstance(body.get("message"), str) and "output" not in body:
        tally.fail(body)


def read_usage(usage: JSON) -> Usage | None:
    """A `usage` object in inclusive counts; None where it has neither total.

    `inputTokens` leaves out what the cache was read for or written with.
    """
    uncached, output = tokens(usage.get("inputTokens")), tokens(usage.get("outputTokens"))
    if uncached is None and output is None:
        return None
    read = _first(usage, "cacheReadInputTokens", "cacheReadInputTokenCount")
    written = _first(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    return Usage(
        input_tokens=None if uncached is None else uncached + (read or 0) + (written or 0),
        output_tokens=output,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=written,
        cache_creation_1h_input_tokens=_written_for_an_hour(usage.get("cacheDetails")),
    )


def _first(usage: JSON, *names: str) -> int | None:
    """Converse's name of a count, or Nova's."""
    found = (tokens(usage.get(name)) for name in names)
    return next((count for count in found if count is not None), None)


def _written_for_an_hour(details: Any) -> int | None:
    counts = [tokens(each.get("inputTokens")) for each in as_objects(details) if each.get("ttl") == "1h"]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def say_block(tally: Tally, where: int, block: JSON) -> None:
    """Tell the tally what a block, the beginning of one, or a piece of one says."""
    for kind, value in block.items():
        say = _SAYERS.get(kind)
        if say:
            say(tally, where, value)


def _say_text(tally: Tally, where: int, value: Any) -> None:
    tally.say(where, value)


def _say_tool_use(tally: Tally, where: int, value: Any) -> None:
    use = as_object(value)
    tally.say(where, use.get("name"))
    given = use.get("input")
    tally.say(where, given if isinstance(given, str) else as_text(given))


def _say_reasoning(tally: Tally, where: int, value: Any) -> None:
    """Whole blocks nest the text, pieces do not."""
    reasoning = as_object(value)
    tally.say((where, "reasoning"), as_object(reasoning.get("reasoningText")).get("text"))
    tally.say((where, "reasoning"), reasoning.get("text"))


def _say_cited(tally: Tally, where: int, value: Any) -> None:
    for part in as_objects(as_object(value).get("content")):
        tally.say(where, part.get("text"))


_SAYERS: Mapping[str, Callable[[Tally, int, Any], None]] = MappingProxyType(
    {
        "text": _say_text,
        "toolUse": _say_tool_use,
        "reasoningContent": _say_reasoning,
        "citationsContent": _say_cited,
    }
)
