"""Usage, text and endings of what Bedrock's InvokeModel answers, whichever vendor's shape it has.

Floor 1, pure. An answer is known by its fields, not by the model asked, for an id need not name its
vendor. Vendor counts come first; what they leave out Bedrock reports itself, in headers or in the
last event. Sources: Bedrock user guide, "Inference request parameters and response fields for
foundation models"; recorded answers.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import fields as fields_of
from dataclasses import replace
from typing import Any

from extproc.formats.answers import (
    JSON,
    Dialect,
    Tally,
    as_object,
    as_objects,
    as_text,
    event_object,
    header_count,
    tokens,
    word,
)
from extproc.formats.anthropic.answers import AnthropicAnswers
from extproc.formats.aws.bedrock_answers import ConverseAnswers, read_error
from extproc.formats.aws.event_stream import EXCEPTION
from extproc.formats.openai.answers import OpenAIAnswers
from extproc.formats.sse import SSEEvent
from extproc.model import Usage

_METRICS = "amazon-bedrock-invocationMetrics"
_METRICS_MARK = _METRICS.encode()
_COUNTS = {
    "inputTokenCount": "x-amzn-bedrock-input-token-count",
    "outputTokenCount": "x-amzn-bedrock-output-token-count",
    "cacheReadInputTokenCount": "x-amzn-bedrock-cache-read-input-token-count",
    "cacheWriteInputTokenCount": "x-amzn-bedrock-cache-write-input-token-count",
}
_NOVA_EVENTS = ("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop")


class InvokeAnswers:
    """Reads whole answers and streamed ones; one instance an answer.

    `is_generating` is false where nothing is generated, so that no output tokens are missing.
    """

    def __init__(self, headers: Mapping[str, str], *, is_generating: bool = True) -> None:
        counts = {name: header_count(headers, header) for name, header in _COUNTS.items()}
        self._reported = _read_metrics(counts)
        self._is_generating = is_generating
        self._vendor: Dialect | None = None

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a whole answer, or the error in its place."""
        read_error(body, tally)
        _vendor_of(body).read_whole(body, tally)
        self._complete(tally)

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Take one frame: a vendor's event, or the exception that ends a stream."""
        data = event_object(event.data)
        if event.event == EXCEPTION:
            tally.fail(data)
            return
        raw = _decoded(data.get("bytes"))
        if not raw:
            return
        if self._vendor is None:
            self._vendor = _vendor_of(event_object(raw))
        self._vendor.read_event(SSEEvent(raw), tally)
        if _METRICS_MARK in raw and (metrics := as_object(event_object(raw).get(_METRICS))):
            self._reported = _read_metrics(metrics) or self._reported
            self._complete(tally)
            tally.finished = True

    def _complete(self, tally: Tally) -> None:
        usage = _completed(tally.usage, self._reported)
        if usage is not None and usage.output_tokens is None and not self._is_generating:
            usage = replace(usage, output_tokens=0)
        tally.usage = usage


def _decoded(data: Any) -> bytes:
    if not isinstance(data, str):
        return b""
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _read_metrics(metrics: JSON) -> Usage | None:
    """Bedrock's own counts in inclusive ones; None where it has neither total."""
    uncached, output, read, written = (tokens(metrics.get(name)) for name in _COUNTS)
    if uncached is None and output is None:
        return None
    return Usage(
        input_tokens=None if uncached is None else uncached + (read or 0) + (written or 0),
        output_tokens=output,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=written,
    )


def _completed(vendor: Usage | None, reported: Usage | None) -> Usage | None:
    """The vendor's counts, and Bedrock's where the vendor has none."""
    if vendor is None or reported is None:
        return vendor or reported
    known = {each.name: getattr(vendor, each.name) for each in fields_of(vendor)}
    return replace(reported, **{name: count for name, count in known.items() if count is not None})


def _vendor_of(body: JSON) -> Dialect:
    """Who reads answers with these fields."""
    if "choices" in body:
        return OpenAIAnswers()
    if "output" in body or any(name in body for name in (*_NOVA_EVENTS, "metadata")):
        return _NovaAnswers()
    if "type" in body and "completion" not in body:
        return AnthropicAnswers()
    return _PlainAnswers()


class _NovaAnswers(ConverseAnswers):
    """Nova's own answers: Converse's, but each event is an object with one member of its name."""

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        for name, data in event_object(event.data).items():
            self.read_named(name, as_object(data), tally)


class _PlainAnswers:
    """The answers of completion models; counts are cumulative, so the last value wins."""

    def __init__(self) -> None:
        self._input: int | None = None
        self._output: int | None = None

    def read_whole(self, body: JSON, tally: Tally) -> None:
        self._read_texts(body, tally)
        self._read_counts(body, tally)

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        self.read_whole(event_object(event.data), tally)

    def _read_texts(self, body: JSON, tally: Tally) -> None:
        _say(tally, 0, body)
        for name in ("results", "generations", "outputs"):
            for position, part in enumerate(as_objects(body.get(name))):
                _say(tally, position, part)
        for position, completion in enumerate(as_objects(body.get("completions"))):
            _say(tally, position, as_object(completion.get("data")))
            _stop(tally, position, as_object(completion.get("finishReason")).get("reason"))
        for call in as_objects(body.get("tool_calls")):
            tally.say("tools", call.get("name"))
            tally.say("tools", as_text(call.get("parameters")))

    def _read_counts(self, body: JSON, tally: Tally) -> None:
        results = [tokens(each.get("tokenCount")) for each in as_objects(body.get("results"))]
        known = [count for count in results if count is not None]
        output = (body.get("totalOutputTextTokenCount"), body.get("generation_token_count"))
        self._input = _last(self._input, body.get("inputTextTokenCount"), body.get("prompt_token_count"))
        self._output = _last(self._output, *output, sum(known) if known else None)
        if self._input is not None or self._output is not None:
            tally.usage = Usage(input_tokens=self._input, output_tokens=self._output)


def _last(before: int | None, *values: Any) -> int | None:
    found = [count for count in map(tokens, values) if count is not None]
    return found[-1] if found else before


def _say(tally: Tally, where: int, part: JSON) -> None:
    for name in ("outputText", "generation", "completion", "text"):
        tally.say(where, part.get(name))
    for name in ("completionReason", "stop_reason", "finish_reason"):
        _stop(tally, where, part.get(name))


def _stop(tally: Tally, where: int, reason: Any) -> None:
    if said := word(reason):
        tally.finish_reasons[where] = said
