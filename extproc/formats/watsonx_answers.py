"""Usage, text and endings of watsonx.ai's answers.

Floor 1, pure. Sources: watsonx.ai's API reference, recorded answers.
"""

from __future__ import annotations

from extproc.formats.answers import JSON, Tally, as_objects, tokens, word
from extproc.formats.base import NO_OUTPUT
from extproc.formats.openai.answers import OpenAIAnswers
from extproc.model import Usage

_UNFINISHED = "not_finished"


class WatsonxAnswers(OpenAIAnswers):
    """Reads generations, embeddings and reranks, and chats, which are OpenAI's; one instance an answer."""

    def __init__(self, operation: str) -> None:
        self._has_output = operation not in NO_OUTPUT
        self._input: int | None = None
        self._output: int | None = None

    def _read(self, body: JSON, tally: Tally, part: str) -> None:
        super()._read(body, tally, part)
        self._read_results(body, tally)

    def _read_results(self, body: JSON, tally: Tally) -> None:
        for error in as_objects(body.get("errors"))[:1]:
            tally.fail(error)
        tally.name(model=body.get("model_id"))
        results = as_objects(body.get("results"))
        for position, result in enumerate(results):
            tally.say(("result", position), result.get("generated_text"))
            reason = word(result.get("stop_reason"))
            if reason and reason != _UNFINISHED:
                tally.finish_reasons[position] = reason
        self._read_counts([body, *results], tally)

    def _read_counts(self, holders: list[JSON], tally: Tally) -> None:
        """A stream counts output up and input once, and says 0 of it later: the most is what it was."""
        self._input = _most(self._input, _sum(holders, "input_token_count"))
        self._output = _most(self._output, _sum(holders, "generated_token_count"))
        if self._input is None and self._output is None:
            return
        output = 0 if self._output is None and not self._has_output else self._output
        tally.usage = Usage(input_tokens=self._input, output_tokens=output)


def _sum(holders: list[JSON], name: str) -> int | None:
    counts = [count for holder in holders if (count := tokens(holder.get(name))) is not None]
    return sum(counts) if counts else None


def _most(*counts: int | None) -> int | None:
    return max((count for count in counts if count is not None), default=None)
