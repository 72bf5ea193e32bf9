"""IBM watsonx.ai: generation, chat, embeddings and rerank, by model or by deployment.

Floor 1, pure. Chats are read by `openai_chat`. Sources: ibm-watsonx-ai's `foundation_models`,
watsonx.ai's API reference, recorded exchanges of both generations of paths.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from extproc.decision import Denial
from extproc.formats import fields
from extproc.formats.advice import denial_headers, facts, told
from extproc.formats.answers import reader
from extproc.formats.base import (
    CONTROL,
    JSON,
    AnswerReader,
    BodyKind,
    Call,
    OutputCeiling,
    ParsedRequest,
    Reply,
    RequestLine,
)
from extproc.formats.content import Content
from extproc.formats.openai.chat import OpenAIChat
from extproc.formats.unasked import Unasked
from extproc.formats.watsonx_answers import WatsonxAnswers
from extproc.model import AIRequest

_CHAT = OpenAIChat()
# What follows `/ml/v1...` or a deployment: the operation, and whether its answer streams.
_CALLS: Mapping[tuple[str, ...], tuple[str, bool]] = MappingProxyType(
    {
        ("text", "generation"): ("text_completion", False),
        ("generation", "text"): ("text_completion", False),
        ("text", "generation_stream"): ("text_completion", True),
        ("generation", "text_stream"): ("text_completion", True),
        ("text", "chat"): ("chat", False),
        ("text", "chat_stream"): ("chat", True),
        ("text", "embeddings"): ("embeddings", False),
        ("text", "rerank"): ("rerank", False),
        ("text", "tokenization"): (CONTROL, False),
    }
)
_LISTS = frozenset({"foundation_model_specs", "foundation_model_tasks"})
_DEPLOYMENTS = "deployments"
_PARAMETER_KEYS = frozenset({"max_new_tokens", "temperature"})
_CODES: Mapping[int, str] = MappingProxyType(
    {401: "authentication_token_not_valid", 403: "no_associated_service_instance_error", 429: "rate_limit"}
)


class Watsonx(Unasked):
    """The wire format `watsonx`."""

    name = "watsonx"
    provider = "ibm.watsonx.ai"
    model_field = "model_id"

    def claim(self, line: RequestLine) -> Call | None:
        """`/ml/v1`, or an older version, then the noun; a deployment's id stands for its model."""
        # Without a path some part holds a slash, which a server may take for one more part.
        if not line.path.startswith("/ml/v1"):
            return None
        rest, model = line.segments[2:], ""
        if line.method == "GET" and len(rest) == 1 and rest[0] in _LISTS:
            return Call(api=self.name, operation=CONTROL, body=BodyKind.NONE)
        if rest[:1] == (_DEPLOYMENTS,) and len(rest) > 1:
            rest, model = rest[2:], rest[1]
        if line.method != "POST" or rest not in _CALLS:
            return None
        operation, streams = _CALLS[rest]
        return Call(api=self.name, operation=operation, model=model, stream=streams)

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        call = replace(call, model=call.model or fields.required_name(body, "model_id"))
        if call.operation == "chat":
            parsed = _CHAT.parse_request(body, call)
            request = parsed.request
        else:
            content = Content()
            count = _READERS[call.operation](body, content)
            parameters = fields.mapping(body, "parameters")
            fields.check_case(parameters, _PARAMETER_KEYS, "/parameters")
            request = AIRequest(
                api=call.api,
                provider=call.provider,
                operation=call.operation,
                model=call.model,
                message_count=count,
                modalities=tuple(sorted(content.modalities)),
                temperature=fields.number(parameters, "temperature", "/parameters"),
                max_output_tokens=fields.count(parameters, "max_new_tokens", "/parameters"),
            )
            parsed = ParsedRequest(request=request, prompt=content.prompt())
        models = fields.models(
            [*fields.models_of(body, call), fields.name(body, "model_id"), *request.models]
        )
        request = replace(request, models=models, stream=bool(call.stream), wants_usage_chunk=True)
        return replace(parsed, request=request)

    def output_ceiling(self, body: JSON, call: Call) -> OutputCeiling | None:
        """That of a chat, or of a generation."""
        if call.operation == "chat":
            return _CHAT.output_ceiling(body, call)
        name = "parameters/max_new_tokens"
        return OutputCeiling(read=(name,), added=name) if call.operation == "text_completion" else None

    def answer_reader(self, request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(WatsonxAnswers(request.operation), headers)

    def render_denial(self, denial: Denial, _provider: str = "") -> Reply:
        """A watsonx.ai error."""
        code = _CODES.get(denial.status, "invalid_request_entity")
        error = {"code": code, "message": told(denial), **facts(denial)}
        body = {"errors": [error], "trace": denial.decision_id, "status_code": denial.status}
        return Reply(status=denial.status, headers=denial_headers(denial), body=json.dumps(body).encode())


def _read_generation(body: JSON, content: Content) -> int:
    if body.get("input") is None:
        raise fields.not_this_call("/input is required: this path takes a generation")
    content.text(fields.string(body, "input"))
    content.end_message("")
    return 1


def _read_embeddings(body: JSON, content: Content) -> int:
    if body.get("inputs") is None:
        raise fields.not_this_call("/inputs is required: this path takes texts to embed")
    texts = body["inputs"]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise fields.wrong("/inputs", "must be a list of strings")
    for text in texts:
        content.text(text)
        content.end_message("")
    return len(texts)


def _read_rerank(body: JSON, content: Content) -> int:
    if body.get("query") is None or body.get("inputs") is None:
        raise fields.not_this_call("/query and /inputs are required: this path ranks texts")
    content.text(fields.string(body, "query"))
    inputs = list(fields.objects(body, "inputs"))
    for at, item in inputs:
        content.text(fields.string(item, "text", at))
    content.end_message("")
    return len(inputs)


_READERS: Mapping[str, Callable[[JSON, Content], int]] = MappingProxyType(
    {
        "text_completion": _read_generation,
        "embeddings": _read_embeddings,
        "rerank": _read_rerank,
        CONTROL: _read_generation,
    }
)
