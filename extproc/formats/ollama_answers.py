"""Usage, text and endings of Ollama's answers: one object, or one a line.

Floor 1, pure. Sources: Ollama's `docs/api.md` and `api/types.go`, recorded answers.
"""

from __future__ import annotations

from extproc.formats.answers import JSON, Tally, as_object, as_objects, as_text, event_object, tokens, word
from extproc.formats.sse import SSEEvent
from extproc.model import Usage


class OllamaAnswers:
    """Reads chat, generate and embed answers; the last line of a stream has the counts."""

    def __init__(self, operation: str) -> None:
        self._has_output = operation != "embeddings"

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a whole answer, or the error in its place."""
        self._read(body, tally)

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Take one line; an error may be the last."""
        line = event_object(event.data)
        self._read(line, tally)
        tally.finished = tally.finished or line.get("done") is True

    def _read(self, body: JSON, tally: Tally) -> None:
        if body.get("error"):
            tally.fail(body["error"])
        tally.name(model=body.get("model"))
        message = as_object(body.get("message"))
        tally.say("content", message.get("content"))
        tally.say("content", body.get("response"))
        for holder in (message, body):
            tally.say("thinking", holder.get("thinking"))
            _say_calls(holder, tally)
        if reason := word(body.get("done_reason")):
            tally.finish_reasons[0] = reason
        tally.usage = _read_usage(body, has_output=self._has_output) or tally.usage


def _read_usage(body: JSON, *, has_output: bool) -> Usage | None:
    """Older servers leave the input out where their cache had all of it: then it is not known."""
    given, generated = tokens(body.get("prompt_eval_count")), tokens(body.get("eval_count"))
    if given is None and generated is None:
        return None
    return Usage(
        input_tokens=given,
        output_tokens=0 if generated is None and not has_output else generated,
        cache_read_input_tokens=tokens(body.get("prompt_eval_cached_count")),
    )


def _say_calls(holder: JSON, tally: Tally) -> None:
    for call in as_objects(holder.get("tool_calls")):
        function = as_object(call.get("function"))
        tally.say("tool", function.get("name"))
        if arguments := as_object(function.get("arguments")):
            tally.say("tool", as_text(arguments))
