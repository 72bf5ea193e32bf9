"""Usage, text and endings of OpenAI's runs.

Floor 1, pure. Sources: openai-python `types/beta/assistant_stream_event`, recorded answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from extproc.formats.answers import JSON, Tally, as_object, as_objects, event_object, place, word
from extproc.formats.openai.answers import read_usage
from extproc.formats.sse import SSEEvent
from extproc.model import Usage

_DONE = b"[DONE]"
# A run ends behind its answer unless it says that it has ended.
_ENDED = frozenset({"completed", "incomplete", "failed", "cancelled", "expired"})
_WAITS_FOR_TOOLS = "requires_action"


@dataclass(slots=True)
class OpenAIAssistantsAnswers:
    """Reads `thread.run` objects and the events of a streamed run; one instance an answer."""

    _run_usage: Usage | None = None
    _step_usages: dict[str, Usage] = field(default_factory=dict)

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a run as it was started, or the error in its place.

        What a run costs that has not ended, only a later GET says.
        """
        if body.get("error"):
            tally.fail(body["error"])
        self._read_run(body, tally)
        if word(body.get("object")) != "thread.run":
            return
        # A run never holds its own text: without usage there is nothing to count either.
        is_untold = tally.usage is None and not tally.error
        if word(body.get("status")) not in _ENDED or is_untold:
            tally.finished = tally.is_legible = False

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Take one event: an object of the API in its new state, or a delta of one."""
        if event.data.strip() == _DONE:
            tally.finished = True
            return
        data = event_object(event.data)
        if event.event == "error" or data.get("error"):
            tally.fail(data.get("error") or data)
        kind = word(data.get("object"))
        if kind == "thread.run":
            self._read_run(data, tally)
        elif kind == "thread.run.step":
            self._read_step(data, tally)
        elif kind == "thread.message.delta":
            _say_message(data, tally)
        elif kind == "thread.run.step.delta":
            _say_calls(data, tally)
        if not (tally.finished or tally.error):
            # It runs on when the stream is cut, on a thread that nobody counted.
            tally.is_legible = False

    def _read_run(self, run: JSON, tally: Tally) -> None:
        tally.name(model=run.get("model"), response_id=run.get("id"))
        if run.get("last_error"):
            tally.fail(run["last_error"])
        status = word(run.get("status"))
        if status in _ENDED or status == _WAITS_FOR_TOOLS:
            reason = word(as_object(run.get("incomplete_details")).get("reason"))
            tally.finish_reasons[0] = reason or status
        self._run_usage = read_usage(as_object(run.get("usage"))) or self._run_usage
        self._settle_usage(tally)

    def _read_step(self, step: JSON, tally: Tally) -> None:
        if usage := read_usage(as_object(step.get("usage"))):
            self._step_usages[word(step.get("id"))] = usage
            self._settle_usage(tally)

    def _settle_usage(self, tally: Tally) -> None:
        """A run's own usage holds that of its steps, which only stand in for it."""
        steps = self._step_usages.values()
        tally.usage = self._run_usage or (_sum(list(steps)) if steps else None)


def _sum(usages: list[Usage]) -> Usage:
    return Usage(
        input_tokens=sum(usage.input_tokens or 0 for usage in usages),
        output_tokens=sum(usage.output_tokens or 0 for usage in usages),
    )


def _say_message(data: JSON, tally: Tally) -> None:
    for part in as_objects(as_object(data.get("delta")).get("content")):
        tally.say((word(data.get("id")), "text"), as_object(part.get("text")).get("value"))
        tally.say((word(data.get("id")), "refusal"), part.get("refusal"))


def _say_calls(data: JSON, tally: Tally) -> None:
    details = as_object(as_object(data.get("delta")).get("step_details"))
    for position, call in enumerate(as_objects(details.get("tool_calls"))):
        where = (word(data.get("id")), place(call.get("index"), position))
        function = as_object(call.get("function"))
        for text in (function.get("name"), function.get("arguments")):
            tally.say(where, text)
        tally.say(where, as_object(call.get("code_interpreter")).get("input"))
