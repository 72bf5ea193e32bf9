"""Counts, text and endings of text-generation-inference's answers.

Floor 1, pure. Sources: text-generation-inference's OpenAPI document (3.x) and router, SageMaker
Runtime's service model (2017-05-13), recorded answers.
"""

from __future__ import annotations

from collections.abc import Mapping

from extproc.formats.answers import (
    JSON,
    Tally,
    as_object,
    as_objects,
    event_object,
    header_count,
    tokens,
    word,
)
from extproc.formats.aws.event_stream import EXCEPTION
from extproc.formats.sse import SSEEvent, SSEParser
from extproc.model import Usage

# A frame of SageMaker's streams: any piece of what the server streams.
_PART = "PayloadPart"


class TGIAnswers:
    """Reads whole answers and the events of streamed ones; one instance an answer."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._input = header_count(headers, "x-prompt-tokens")
        self._header_output = header_count(headers, "x-generated-tokens")
        self._output: int | None = None
        self._answers = 0
        self._inner = SSEParser()

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a whole answer, one of several in a list, or the error in its place."""
        _fail(body, tally)
        position = self._answers
        self._answers += 1
        tally.say(position, body.get("generated_text"))
        # What JumpStart's dialogs are answered with.
        tally.say(position, as_object(body.get("generation")).get("content"))
        self._read_details(as_object(body.get("details")), position, tally)
        if self._output is None:
            self._output = self._header_output
        self._tell(tally)

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Take one token, the last of which comes with the whole text; or an error."""
        data = event_object(event.data)
        if event.event == EXCEPTION:
            tally.fail(data)
        elif event.event == _PART:
            for inner in self._inner.feed(event.data):
                self.read_event(inner, tally)
        else:
            self._read_token(data, tally)

    def _read_token(self, data: JSON, tally: Tally) -> None:
        _fail(data, tally)
        token = as_object(data.get("token"))
        if token.get("special") is not True:
            tally.say(0, token.get("text"))
        if isinstance(data.get("generated_text"), str):
            self._read_details(as_object(data.get("details")), 0, tally)
            self._tell(tally)
            tally.finished = True

    def _read_details(self, details: JSON, position: int, tally: Tally) -> None:
        if reason := word(details.get("finish_reason")):
            tally.finish_reasons[position] = reason
        others = as_objects(details.get("best_of_sequences"))
        counts = [tokens(each.get("generated_tokens")) for each in (details, *others)]
        known = [count for count in counts if count is not None]
        if known:
            self._output = (self._output or 0) + sum(known)
        length = tokens(details.get("input_length"))
        self._input = self._input if length is None else length

    def _tell(self, tally: Tally) -> None:
        if self._output is not None:
            tally.usage = Usage(input_tokens=self._input, output_tokens=self._output)


def _fail(body: JSON, tally: Tally) -> None:
    """An error is a sentence with a type beside it; AWS's is a message alone."""
    error = body.get("error")
    if isinstance(error, dict):
        tally.fail(error)
    elif error or body.get("message"):
        tally.fail({"type": body.get("error_type")})
