"""OpenAI Chat Completions: recognising a call, reading its body, asking it for usage.

Floor 1, pure. Messages, parts and models are `request`, answers `answers`, denials
`dialect`. Source: openai-python `types/chat/completion_create_params`, and what compatible
servers add to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from extproc.formats import fields
from extproc.formats.answers import reader
from extproc.formats.base import (
    CONTROL,
    JSON,
    AnswerReader,
    BodyKind,
    Call,
    OutputCeiling,
    ParsedRequest,
    RequestLine,
)
from extproc.formats.content import Content
from extproc.formats.openai import answers as openai_answers
from extproc.formats.openai import request as openai_request
from extproc.formats.openai.dialect import OpenAIFormat
from extproc.formats.openai.tools import Tools
from extproc.formats.strict_json import compact_json
from extproc.model import AIRequest

_PATH = "/chat/completions"
_MODELS_PATH = "/models"
# What vLLM and its like put into the prompt beside the messages.
_SHOWN = ("documents", "chat_template", "chat_template_kwargs")
# No role of the API, so that no counter takes it for what somebody said.
_SHOWN_ROLE = "documents"
_OLD, _NEW = "max_tokens", "max_completion_tokens"
# They call the older name deprecated, and some of their models refuse it; all others know it alone, or both.
_TAKE_THE_NEW = frozenset({"openai", "azure.ai.openai", "aws.bedrock", "cerebras", "groq", "x_ai"})
# As Anthropic's own endpoint for this dialect calls it, and OpenRouter.
_BUDGETS = ("thinking/budget_tokens", "reasoning/max_tokens")


class OpenAIChat(OpenAIFormat):
    """The wire format `openai_chat`."""

    name = "openai_chat"

    def claim(self, line: RequestLine) -> Call | None:
        """Chat is POST; model lists are control, unless they are asked for in Anthropic's dialect."""
        if line.method == "POST" and line.path == _PATH:
            return Call(api=self.name, operation="chat")
        is_models = line.path == _MODELS_PATH or line.path.startswith(_MODELS_PATH + "/")
        if line.method == "GET" and is_models and "anthropic-version" not in line.headers:
            return Call(api=self.name, operation=CONTROL, body=BodyKind.NONE)
        return None

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a chat body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        model = fields.model(body, call)
        if body.get("messages") is None:
            raise fields.not_this_call("/messages is required: this path takes a chat completion")
        content, tools = Content(), Tools()
        message_count = openai_request.read_messages(body, content)
        _read_shown(body, content)
        _read_response_format(body, content)
        tools.read(body)
        tools.read_functions(body)
        models = openai_request.models(body, call, *tools.models, openai_request.moderator(body))
        searches = openai_request.read_searches(body, models, content)
        request = AIRequest(
            api=call.api,
            provider=call.provider,
            operation=call.operation,
            model=model,
            models=models,
            stream=fields.flag(body, "stream"),
            # Servers of open models know best_of: it is generated, though not answered.
            choices=max(fields.count(body, "n") or 1, fields.count(body, "best_of") or 1),
            message_count=message_count,
            tools=fields.tools([*tools.names, *searches], "/tools and /functions"),
            modalities=tuple(sorted(content.modalities)),
            end_user=openai_request.end_user(body),
            temperature=fields.number(body, "temperature"),
            has_state=tools.has_state or openai_request.has_state(body, models),
            max_output_tokens=_read_ceiling(body),
            wants_usage_chunk=openai_request.wants_usage_chunk(body, call),
        )
        return ParsedRequest(request=request, prompt=content.prompt(tuple(tools.definitions)))

    def ask_for_usage(self, body: JSON, call: Call) -> JSON | None:
        """A streamed body with `stream_options.include_usage`; None where nothing is to change."""
        return openai_request.with_usage(body, call)

    def output_ceiling(self, _body: JSON, call: Call) -> OutputCeiling | None:
        """One of two names, by provider."""
        is_new = call.provider in _TAKE_THE_NEW and not openai_request.is_older_azure(call)
        return OutputCeiling(read=(_OLD, _NEW), added=_NEW if is_new else _OLD, below=_BUDGETS)

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(openai_answers.OpenAIAnswers(), headers)

    def is_usage_chunk(self, event_data: bytes) -> bool:
        """Whether a chunk is there only for its usage."""
        return openai_answers.is_usage_chunk(event_data)


def _read_ceiling(body: JSON) -> int | None:
    ceilings = (fields.count(body, _OLD), fields.count(body, _NEW))
    return max((ceiling for ceiling in ceilings if ceiling is not None), default=None)


def _read_shown(body: JSON, content: Content) -> None:
    shown = [body[key] for key in _SHOWN if body.get(key) is not None]
    for value in shown:
        content.text(value if isinstance(value, str) else compact_json(value))
    if shown:
        content.end_message(_SHOWN_ROLE)


def _read_response_format(body: JSON, content: Content) -> None:
    at = "/response_format"
    wanted = fields.mapping(fields.mapping(body, "response_format"), "json_schema", at)
    if wanted:
        openai_request.read_schema(wanted, f"{at}/json_schema", content)
