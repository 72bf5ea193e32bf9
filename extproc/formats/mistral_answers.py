"""Usage, text and endings of what Mistral answers in words of its own: conversations and OCR.

Floor 1, pure. Source: mistralai's `models/conversationresponse`, `models/conversationevents`,
`models/ocrresponse`.
"""

from __future__ import annotations

from extproc.formats.answers import JSON, Tally, as_object, as_objects, event_object, place, tokens, word
from extproc.formats.openai.answers import OpenAIAnswers
from extproc.formats.sse import SSEEvent
from extproc.model import Usage


class OCRAnswers:
    """Reads what a document said: it is billed by the page, which is no tokens."""

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a whole answer, or the error in its place."""
        if body.get("error"):
            tally.fail(body["error"])
        tally.name(model=body.get("model"))
        if tokens(as_object(body.get("usage_info")).get("pages_processed")) is not None:
            tally.usage = Usage(input_tokens=0, output_tokens=0)

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Nothing of this kind is streamed; an event is read as a whole answer."""
        self.read_whole(event_object(event.data), tally)


class ConversationAnswers(OpenAIAnswers):
    """Reads the entries that a turn added, whole or as events; and chats, which agents answer too."""

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a whole turn or chat, or the error in its place."""
        if "choices" in body:
            super().read_whole(body, tally)
            return
        if body.get("error"):
            tally.fail(body["error"])
        tally.name(response_id=body.get("conversation_id"))
        for position, entry in enumerate(as_objects(body.get("outputs"))):
            tally.name(model=entry.get("model"))
            _say(entry, position, tally)
        tally.usage = _read_usage(as_object(body.get("usage"))) or tally.usage

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Take one event, the last of which has the usage; a chat's chunks have no kind."""
        data = event_object(event.data)
        kind = word(data.get("type"))
        if not kind:
            super().read_event(event, tally)
            return
        if kind == "conversation.response.error" or data.get("error"):
            tally.fail(data.get("error") or data)
        tally.name(model=data.get("model"), response_id=data.get("conversation_id"))
        if kind.endswith(".delta"):
            _say(data, place(data.get("output_index")), tally)
        if kind == "conversation.response.done":
            tally.usage = _read_usage(as_object(data.get("usage"))) or tally.usage
            tally.finished = True


def _say(entry: JSON, where: int, tally: Tally) -> None:
    """A message in parts or whole, or the call of a function."""
    content = entry.get("content")
    tally.say(where, content)
    for part in (as_object(content), *as_objects(content)):
        tally.say(where, part.get("text"))
        for thought in as_objects(part.get("thinking")):
            tally.say((where, "thinking"), thought.get("text"))
    if entry.get("arguments") is not None:
        tally.say((where, "call"), entry.get("name"))
        tally.say((where, "call"), entry.get("arguments"))


def _read_usage(usage: JSON) -> Usage | None:
    """What connectors found was read by the model, and is in the total alone."""
    given, generated = tokens(usage.get("prompt_tokens")), tokens(usage.get("completion_tokens"))
    if given is None and generated is None:
        return None
    found = tokens(usage.get("connector_tokens"))
    return Usage(
        input_tokens=None if given is None else given + (found or 0),
        output_tokens=generated,
        tool_input_tokens=found,
    )
