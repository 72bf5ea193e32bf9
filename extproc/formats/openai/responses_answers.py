"""Usage, text and endings of OpenAI Responses answers.

Floor 1, pure. Sources: openai-python `types/responses/response_stream_event`, recorded answers.
"""

from __future__ import annotations

from typing import Any

from extproc.formats.answers import JSON, Tally, as_object, as_objects, as_text, event_object, word
from extproc.formats.openai.answers import read_usage
from extproc.formats.sse import SSEEvent

_ENDINGS = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
# A response that runs on behind the answer: what it costs, only a later GET says.
_UNFINISHED = frozenset({"queued", "in_progress"})
# Deltas that the model did not write: sound in base64, and what its commands printed.
_NOT_WRITTEN = frozenset({"response.audio.delta", "response.shell_call_output_content.delta"})
_DELTA = ".delta"
# What a call of a tool is made of; names come with the item, all else in deltas too.
_CALL_TEXTS = ("arguments", "input", "code")
_CALL_OBJECTS = ("action", "operation")


class OpenAIResponsesAnswers:
    """Reads `response` objects and the events of a streamed response; one instance an answer."""

    def __init__(self) -> None:
        self._is_background = False

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a whole response, or the error in its place."""
        self._read_response(body, tally)
        for position, item in enumerate(as_objects(body.get("output"))):
            _say_item(tally, position, item)
        if word(body.get("status")) in _UNFINISHED:
            tally.finished = tally.is_legible = False

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Take one event; its kind stands in its data, as the SDKs read it."""
        data = event_object(event.data)
        kind = word(data.get("type")) or event.event
        if kind.endswith(_DELTA) and kind not in _NOT_WRITTEN:
            where = (kind, data.get("output_index"), data.get("content_index"), data.get("summary_index"))
            tally.say(_hashable(where), data.get("delta"))
        elif kind == "response.output_item.added":
            _say_name(tally, data.get("output_index"), as_object(data.get("item")))
        elif kind == "error" or data.get("error"):
            tally.fail(data.get("error") or {"code": data.get("code")})
        self._read_response(as_object(data.get("response")), tally)
        tally.finished = tally.finished or kind in _ENDINGS
        if self._is_background and not tally.finished:
            # It runs on when the stream is cut: what was seen says nothing of what it will cost.
            tally.is_legible = False

    def _read_response(self, response: JSON, tally: Tally) -> None:
        self._is_background = self._is_background or response.get("background") is True
        if response.get("error"):
            tally.fail(response["error"])
        tally.name(model=response.get("model"), response_id=response.get("id"))
        status = word(response.get("status"))
        if status and status not in _UNFINISHED:
            reason = word(as_object(response.get("incomplete_details")).get("reason"))
            tally.finish_reasons[0] = reason or status
        tally.usage = read_usage(as_object(response.get("usage"))) or tally.usage


def _say_item(tally: Tally, position: int, item: JSON) -> None:
    for key in ("content", "summary"):
        for number, part in enumerate(as_objects(item.get(key))):
            for name in ("text", "refusal", "transcript"):
                tally.say((position, key, number), part.get(name))
    _say_name(tally, position, item)
    for key in _CALL_TEXTS:
        tally.say((position, "call"), item.get(key))
    for key in _CALL_OBJECTS:
        tally.say((position, "call"), as_text(item.get(key)))


def _say_name(tally: Tally, position: Any, item: JSON) -> None:
    tally.say(_hashable((position, "name")), item.get("name"))


def _hashable(where: tuple[Any, ...]) -> tuple[Any, ...]:
    """A place made of words and numbers; whatever else a provider sends for one is none."""
    return tuple(part if isinstance(part, str | int) else None for part in where)
