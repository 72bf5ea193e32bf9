"""Usage, text and endings of answers of Gemini's Interactions API.

Floor 1, pure. Source: google-genai `interactions`; events of the first version of the API, which says
content where the second says step, are read too.
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

_DONE = b"[DONE]"
_ENDINGS = frozenset({"interaction.completed", "interaction.complete"})
_OPEN = frozenset({"in_progress", "queued"})
# Where deltas, contents and steps keep what was generated.
_TEXTS = ("text", "name", "code", "arguments", "partial_arguments")


class InteractionAnswers:
    """Reads interactions, whole and as events; one instance an answer."""

    def __init__(self) -> None:
        self._usage: dict[str, Any] = {}

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a whole interaction, or the error in its place."""
        if error := body.get("error"):
            _fail(error, tally)
        self._read_interaction(body, tally)
        for key in ("steps", "outputs"):
            for position, step in enumerate(as_objects(body.get(key))):
                _say(tally, position, step)
        if word(body.get("status")) in _OPEN:
            # It runs on behind the answer: what it costs, only a later GET says.
            tally.usage = None
            tally.finished = tally.is_legible = False

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Take one event; its kind stands in its data."""
        if event.data.strip() == _DONE:
            tally.finished = True
            return
        data = event_object(event.data)
        kind = word(data.get("event_type")) or event.event
        if error := data.get("error"):
            _fail(error, tally)
        if interaction := as_object(data.get("interaction")):
            self._read_interaction(interaction, tally)
        where = place(data.get("index"))
        for key in ("step", "content", "delta"):
            _say(tally, where, as_object(data.get(key)))
        # What a step cost is less than all: only sums of the whole count.
        self._read_usage(as_object(as_object(data.get("metadata")).get("total_usage")), tally)
        if kind == "interaction.status_update":
            self._read_usage(as_object(data.get("usage")), tally)
        if kind in _ENDINGS:
            tally.finished = True

    def _read_interaction(self, interaction: JSON, tally: Tally) -> None:
        tally.name(
            model=interaction.get("model") or interaction.get("agent"), response_id=interaction.get("id")
        )
        self._read_usage(as_object(interaction.get("usage")), tally)
        if status := word(interaction.get("status")):
            tally.finish_reasons[0] = "" if status in _OPEN else status

    def _read_usage(self, usage: JSON, tally: Tally) -> None:
        """Counts are cumulative: last value wins."""
        self._usage |= {name: value for name, value in usage.items() if value is not None}
        tally.usage = read_usage(self._usage) or tally.usage


def read_usage(usage: JSON) -> Usage | None:
    """A `usage` object in inclusive counts; None where it has neither total."""
    said, written = tokens(usage.get("total_input_tokens")), tokens(usage.get("total_output_tokens"))
    if said is None and written is None:
        return None
    tool, thoughts = tokens(usage.get("total_tool_use_tokens")), tokens(usage.get("total_thought_tokens"))
    total = tokens(usage.get("total_tokens"))
    read = None if said is None else said + (tool or 0)
    output = None if written is None and thoughts is None else (written or 0) + (thoughts or 0)
    if total is not None and read is not None:
        if total < read + (written or 0) and said is not None:
            read = said  # which the tools' were part of
        # Thoughts are part of the output, or beside it: the total knows.
        output = max(written or 0, total - read)
    return Usage(
        input_tokens=read,
        output_tokens=output,
        cache_read_input_tokens=tokens(usage.get("total_cached_tokens")),
        audio_input_tokens=_of_modality(usage, "input_tokens_by_modality", "audio"),
        image_input_tokens=_of_modality(usage, "input_tokens_by_modality", "image"),
        tool_input_tokens=tool,
        reasoning_output_tokens=thoughts,
        audio_output_tokens=_of_modality(usage, "output_tokens_by_modality", "audio"),
        image_output_tokens=_of_modality(usage, "output_tokens_by_modality", "image"),
    )


def _of_modality(usage: JSON, key: str, modality: str) -> int | None:
    counts = [
        tokens(each.get("tokens"))
        for each in as_objects(usage.get(key))
        if word(each.get("modality")).lower() == modality
    ]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _fail(error: Any, tally: Tally) -> None:
    said = as_object(error)
    tally.fail({"type": said.get("status") or said.get("code")})


def _say(tally: Tally, where: int, item: JSON) -> None:
    """Text of a step, a content or a delta, and of the contents that a step or a thought holds."""
    kind = word(item.get("type"))
    # Read, not generated, though it comes among what was.
    if kind == "user_input" or kind.endswith("_result"):
        return
    for key in _TEXTS:
        value = item.get(key)
        # Tools of the provider, and whole answers, have arguments as an object.
        if isinstance(value, dict) and value:
            value = as_text(value)
        tally.say((where, kind), value)
    for key in ("content", "summary"):
        held = item.get(key)
        for inner in [held] if isinstance(held, dict) else as_objects(held):
            tally.say((where, kind), inner.get("text"))
