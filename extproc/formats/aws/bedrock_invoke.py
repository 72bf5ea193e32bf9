"""Bedrock InvokeModel: recognising a call and reading the vendor's body in it.

Floor 1, pure. Which vendor's it is says `bedrock_vendors`; answers are `bedrock_invoke_answers`,
denials `bedrock_dialect`. Source: Bedrock Runtime's service model (2023-09-30), as botocore ships it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from extproc.decision import Denial
from extproc.formats import fields
from extproc.formats.answers import reader
from extproc.formats.aws import bedrock_dialect
from extproc.formats.aws.bedrock_invoke_answers import InvokeAnswers
from extproc.formats.aws.bedrock_models import Operation, claim, names
from extproc.formats.aws.bedrock_vendors import shape_of, shapes_of
from extproc.formats.base import (
    JSON,
    NO_OUTPUT,
    AnswerReader,
    Call,
    OutputCeiling,
    ParsedRequest,
    Reply,
    RequestLine,
)
from extproc.formats.unasked import Unasked
from extproc.model import AIRequest

_OPERATIONS: Mapping[str, Operation] = MappingProxyType(
    {
        "invoke": Operation("chat", stream=False),
        "invoke-with-response-stream": Operation("chat", stream=True),
    }
)


class BedrockInvoke(Unasked):
    """The wire format `bedrock_invoke`; bodies are signed, so nothing may be added to them."""

    name = "bedrock_invoke"
    provider = "aws.bedrock"

    def claim(self, line: RequestLine) -> Call | None:
        """Invoke a model, streamed or not; the body may say that it is no chat."""
        call = claim(line, self.name, _OPERATIONS)
        if call is None:
            return None
        operations = {shape.operation for shape in shapes_of(call.model)}
        return replace(call, operation=operations.pop()) if len(operations) == 1 else call

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        shape = shape_of(call.model, body)
        parsed = shape.read(body, call)
        request = replace(
            parsed.request,
            operation=shape.operation,
            models=fields.models([*names(call.model), *parsed.request.models]),
            # The path decides, and nothing was asked for that a client would not expect.
            stream=bool(call.stream),
            wants_usage_chunk=True,
        )
        return replace(parsed, request=request)

    def output_ceiling(self, body: JSON, call: Call) -> OutputCeiling | None:
        """As the vendor has it."""
        return shape_of(call.model, body).ceiling

    def answer_reader(self, request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        is_generating = request.operation not in NO_OUTPUT
        return reader(InvokeAnswers(headers, is_generating=is_generating), headers)

    def render_denial(self, denial: Denial, _provider: str = "") -> Reply:
        """An AWS error."""
        return bedrock_dialect.render_denial(denial)
