"""OpenAI Moderations: texts and images to judge.

Floor 1, pure. Answers are `answers`, denials `dialect`. Source: openai-python
`types/moderation_create_params`.
"""

from __future__ import annotations

from collections.abc import Mapping

from extproc.formats import fields
from extproc.formats.answers import reader
from extproc.formats.base import JSON, AnswerReader, Call, ParsedRequest, RequestLine
from extproc.formats.content import Content
from extproc.formats.openai import answers as openai_answers
from extproc.formats.openai import request as openai_request
from extproc.formats.openai.dialect import OpenAIFormat
from extproc.model import AIRequest


class OpenAIModerations(OpenAIFormat):
    """The wire format `openai_moderations`."""

    name = "openai_moderations"

    def claim(self, line: RequestLine) -> Call | None:
        """Moderations are POST."""
        if line.method == "POST" and line.path == "/moderations":
            return Call(api=self.name, operation="moderation")
        return None

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body; its model may be left to the API.

        Raises `RequestRefused` (400) naming the JSON pointer that is wrong.
        """
        if body.get("input") is None:
            raise fields.not_this_call("/input is required: this path takes something to judge")
        content = Content()
        count = openai_request.read_inputs(body, "input", content, openai_request.read_part)
        request = AIRequest(
            api=call.api,
            provider=call.provider,
            operation=call.operation,
            model=call.model or fields.name(body, "model"),
            models=openai_request.models(body, call),
            message_count=count,
            modalities=tuple(sorted(content.modalities)),
            end_user=openai_request.end_user(body),
        )
        return ParsedRequest(request=request, prompt=content.prompt())

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(openai_answers.InputAnswers(), headers)
