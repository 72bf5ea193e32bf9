"""Usage, text and endings of Cohere's answers, of both versions of its API.

Floor 1, pure. Sources: cohere-python `types/*_stream_event`, `types/usage`, recorded answers. An
answer counts twice: `billed_units` leaves out what Cohere itself adds to a prompt, `tokens` does
not. OpenTelemetry's conventions ask for the billed counts, so these are taken. `cached_tokens` is
a part of `tokens` alone, and says nothing of a billed count.
"""

from __future__ import annotations

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
from extproc.formats.base import NO_OUTPUT
from extproc.formats.sse import SSEEvent
from extproc.model import Usage


class CohereAnswers:
    """Reads whole answers and the events of streams; one instance an answer."""

    def __init__(self, operation: str) -> None:
        self._has_output = operation not in NO_OUTPUT
        self._saw_call_chunks = False

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a whole answer, or the error in its place."""
        if body.get("error") or isinstance(body.get("message"), str):
            tally.fail(body.get("error"))
        self._read_end(body, tally)
        for position, generation in enumerate(as_objects(body.get("generations"))):
            tally.say(position, generation.get("text"))
            _read_stop(generation, position, tally)
        for name in ("text", "summary"):
            tally.say("content", body.get(name))
        _say_calls(body, tally)
        _say_message(as_object(body.get("message")), tally)

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Take one event; its kind is `type` in version 2, `event_type` in version 1."""
        data = event_object(event.data)
        if data.get("error"):
            tally.fail(data["error"])
        kind = word(data.get("type")) or word(data.get("event_type")) or event.event
        if kind in ("message-end", "stream-end"):
            self._read_last(data, tally)
        elif kind == "stream-error":
            tally.fail(data)
        elif kind == "tool-calls-chunk":
            self._read_call_chunk(data, tally)
        elif kind == "tool-calls-generation":
            self._read_calls(data, tally)
        else:
            tally.name(response_id=data.get("id"))
            tally.say(("text", place(data.get("index"))), data.get("text"))
            _say_delta(
                as_object(as_object(data.get("delta")).get("message")), place(data.get("index")), tally
            )

    def _read_last(self, data: JSON, tally: Tally) -> None:
        """The end of a stream repeats its text in version 1, which is not generated twice."""
        end = as_object(data.get("delta")) or as_object(data.get("response"))
        if end.get("error"):
            tally.fail(end["error"])
        _read_stop(data, 0, tally)
        self._read_end(end, tally)
        for position, generation in enumerate(as_objects(end.get("generations"))):
            _read_stop(generation, position, tally)
        tally.finished = True

    def _read_call_chunk(self, data: JSON, tally: Tally) -> None:
        self._saw_call_chunks = True
        chunk = as_object(data.get("tool_call_delta"))
        tally.say("plan", data.get("text"))
        for name in ("name", "parameters"):
            tally.say(("call", place(chunk.get("index"))), chunk.get(name))

    def _read_calls(self, data: JSON, tally: Tally) -> None:
        """Calls that came in chunks come whole once more."""
        if not self._saw_call_chunks:
            tally.say("plan", data.get("text"))
            _say_calls(data, tally)

    def _read_end(self, holder: JSON, tally: Tally) -> None:
        tally.name(response_id=holder.get("response_id") or holder.get("id"))
        _read_stop(holder, 0, tally)
        reported = as_object(holder.get("usage")) or as_object(holder.get("meta"))
        tally.usage = read_usage(reported, has_output=self._has_output) or tally.usage


def read_usage(reported: JSON, *, has_output: bool = True) -> Usage | None:
    """A `usage` or `meta` object in billed counts; None where it has neither (reranks bill searches)."""
    billed, all_tokens = as_object(reported.get("billed_units")), as_object(reported.get("tokens"))
    counts = [
        count if (count := tokens(billed.get(name))) is not None else tokens(all_tokens.get(name))
        for name in ("input_tokens", "output_tokens")
    ]
    if counts == [None, None]:
        return None
    return Usage(
        input_tokens=counts[0], output_tokens=0 if counts[1] is None and not has_output else counts[1]
    )


def _say_message(message: JSON, tally: Tally) -> None:
    tally.say("plan", message.get("tool_plan"))
    for part in as_objects(message.get("content")):
        tally.say("content", part.get("text"))
        tally.say("thinking", part.get("thinking"))
    _say_calls(message, tally)


def _say_delta(message: JSON, index: int, tally: Tally) -> None:
    tally.say("plan", message.get("tool_plan"))
    content = as_object(message.get("content"))
    tally.say(("text", index), content.get("text"))
    tally.say(("thinking", index), content.get("thinking"))
    function = as_object(as_object(message.get("tool_calls")).get("function"))
    tally.say(("call", index), function.get("name"))
    tally.say(("call", index), function.get("arguments"))


def _say_calls(holder: JSON, tally: Tally) -> None:
    for position, call in enumerate(as_objects(holder.get("tool_calls"))):
        function = as_object(call.get("function")) or call
        tally.say(("call", position), function.get("name"))
        tally.say(("call", position), function.get("arguments"))
        if parameters := as_object(function.get("parameters")):
            tally.say(("call", position), as_text(parameters))


def _read_stop(holder: JSON, choice: int, tally: Tally) -> None:
    if reason := word(holder.get("finish_reason")):
        tally.finish_reasons[choice] = reason
