"""OpenAI Completions, the API before chat, and Mistral's fill-in-the-middle.

Floor 1, pure. Answers are `answers`, denials `dialect`. Source: openai-python
`types/completion_create_params`, and what compatible servers add to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from extproc.formats import fields
from extproc.formats.answers import reader
from extproc.formats.base import JSON, AnswerReader, Call, OutputCeiling, ParsedRequest, RequestLine
from extproc.formats.content import Content
from extproc.formats.openai import answers as openai_answers
from extproc.formats.openai import request as openai_request
from extproc.formats.openai.dialect import OpenAIFormat
from extproc.model import AIRequest

_PATHS = frozenset({"/completions", "/fim/completions"})


class OpenAICompletions(OpenAIFormat):
    """The wire format `openai_completions`."""

    name = "openai_completions"

    def claim(self, line: RequestLine) -> Call | None:
        """Completions are POST."""
        if line.method == "POST" and line.path in _PATHS:
            return Call(api=self.name, operation="text_completion")
        return None

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a completion body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        model = fields.model(body, call)
        if body.get("prompt") is None:
            raise fields.not_this_call("/prompt is required: this path takes a completion")
        content = Content()
        prompts = openai_request.read_inputs(body, "prompt", content)
        content.text(fields.string(body, "suffix"))
        if body.get("suffix"):
            content.end_message("")
        if body.get("prompt_embeds") is not None:
            content.other("file")
        models = openai_request.models(body, call)
        request = AIRequest(
            api=call.api,
            provider=call.provider,
            operation=call.operation,
            model=model,
            models=models,
            stream=fields.flag(body, "stream"),
            choices=_read_choices(body, prompts),
            message_count=prompts,
            tools=fields.tools(openai_request.read_searches(body, models, content), "/plugins"),
            modalities=tuple(sorted(content.modalities)),
            end_user=openai_request.end_user(body),
            temperature=fields.number(body, "temperature"),
            has_state=openai_request.has_state(body, models),
            max_output_tokens=_read_ceiling(body),
            wants_usage_chunk=openai_request.wants_usage_chunk(body, call),
        )
        return ParsedRequest(request=request, prompt=content.prompt())

    def ask_for_usage(self, body: JSON, call: Call) -> JSON | None:
        """A streamed body with `stream_options.include_usage`; None where nothing is to change."""
        return openai_request.with_usage(body, call)

    def output_ceiling(self, _body: JSON, _call: Call) -> OutputCeiling | None:
        """One name everywhere."""
        return OutputCeiling(read=("max_tokens",), added="max_tokens")

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(openai_answers.OpenAIAnswers(), headers)

    def is_usage_chunk(self, event_data: bytes) -> bool:
        """Whether a chunk is there only for its usage."""
        return openai_answers.is_usage_chunk(event_data)


def _read_choices(body: JSON, prompts: int) -> int:
    """Every prompt is answered `n` times, or `best_of` times before the best are chosen."""
    each = max(fields.count(body, "n") or 1, fields.count(body, "best_of") or 1)
    return min(max(1, prompts) * each, fields.MAX_COUNT)


def _read_ceiling(body: JSON) -> int | None:
    """Zero is a ceiling here: with `echo` it asks for the prompt's own log probabilities."""
    value = body.get("max_tokens")
    return 0 if type(value) is int and value == 0 else fields.count(body, "max_tokens")
