"""OpenAI Chat Completions: recognising a call, reading its body, asking it for usage.

Floor 1, pure. Answers are `openai_answers`, denials `openai_dialect`. Source: openai-python
`types/chat/completion_create_params`, and what compatible servers add to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from extproc.decision import Denial, LimitState
from extproc.formats import fields, openai_answers, openai_dialect
from extproc.formats.answers import reader
from extproc.formats.base import (
    CONTROL,
    JSON,
    AnswerReader,
    BodyKind,
    Call,
    ParsedRequest,
    Reply,
    RequestLine,
)
from extproc.formats.content import Content
from extproc.formats.images import size_of_url
from extproc.formats.strict_json import compact_json
from extproc.model import AIRequest

_PATH = "/chat/completions"
_MODELS_PATH = "/models"

_MESSAGE_KEYS = frozenset({"role", "content", "name", "tool_calls", "function_call", "refusal", "audio"})
_PART_KEYS = frozenset({"type", "text", "refusal", "image_url", "input_audio", "file", "video_url"})
_STREAM_OPTION_KEYS = frozenset({"include_usage"})
# No role of the API, so that no counter takes the prompt for plain text: recorded requests with a
# schema come to 5 to 10 % less than text and frame say.
_SCHEMA_ROLE = "response_format"
_STATE_KEYS = ("previous_response_id", "conversation")


class OpenAIChat:
    """The wire format `openai_chat`."""

    name = "openai_chat"
    provider = "openai"

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
        content = Content()
        message_count = _read_messages(body, content)
        _read_response_format(body, content)
        tool_names, definitions = _read_tools(body)
        stream = fields.flag(body, "stream")
        request = AIRequest(
            api=call.api,
            provider=call.provider,
            operation=call.operation,
            model=model,
            models=_read_models(body, call),
            stream=stream,
            # Servers of open models know best_of: it is generated, though not answered.
            choices=max(fields.count(body, "n") or 1, fields.count(body, "best_of") or 1),
            message_count=message_count,
            tools=tool_names,
            modalities=tuple(sorted(content.modalities)),
            end_user=fields.string(body, "safety_identifier") or fields.string(body, "user"),
            temperature=fields.number(body, "temperature"),
            has_state=any(body.get(key) is not None for key in _STATE_KEYS),
            max_output_tokens=_read_ceiling(body),
            wants_usage_chunk=not stream or _asks_for_usage(body),
        )
        return ParsedRequest(request=request, prompt=content.prompt(definitions))

    def ask_for_usage(self, body: JSON, _call: Call) -> JSON | None:
        """A streamed body with `stream_options.include_usage`; None where nothing is to change."""
        if not fields.flag(body, "stream") or _asks_for_usage(body):
            return None
        return {**body, "stream_options": {**fields.mapping(body, "stream_options"), "include_usage": True}}

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(openai_answers.OpenAIChatAnswers(), headers)

    def is_usage_chunk(self, event_data: bytes) -> bool:
        """Whether a chunk is there only for its usage."""
        return openai_answers.is_usage_chunk(event_data)

    def render_denial(self, denial: Denial, provider: str = "") -> Reply:
        """An OpenAI error."""
        return openai_dialect.render_denial(denial, provider)

    def limit_headers(self, limits: tuple[LimitState, ...], now_s: float) -> Mapping[str, str]:
        """`x-ratelimit-*`."""
        return openai_dialect.limit_headers(limits, now_s)


def _asks_for_usage(body: JSON) -> bool:
    options = fields.mapping(body, "stream_options")
    fields.check_case(options, _STREAM_OPTION_KEYS, "/stream_options")
    return fields.flag(options, "include_usage", "/stream_options")


def _read_ceiling(body: JSON) -> int | None:
    ceilings = (fields.count(body, "max_tokens"), fields.count(body, "max_completion_tokens"))
    return max((ceiling for ceiling in ceilings if ceiling is not None), default=None)


def _read_models(body: JSON, call: Call) -> tuple[str, ...]:
    """The model and the fallbacks that routers such as OpenRouter take from the body."""
    named = fields.models_of(body, call)
    alternatives = body.get("models")
    if alternatives is not None:
        if not isinstance(alternatives, list):
            raise fields.wrong("/models", "must be a list")
        numbered = {str(number): name for number, name in enumerate(alternatives)}
        named += [fields.required_name(numbered, key, "/models") for key in numbered]
    named += [fields.name(fallback, "model", at) for at, fallback in fields.objects(body, "fallbacks")]
    return fields.models(named)


def _read_messages(body: JSON, content: Content) -> int:
    if body.get("messages") is None:
        raise fields.not_this_call("/messages is required: this path takes a chat completion")
    messages = list(fields.objects(body, "messages"))
    for at, message in messages:
        fields.check_case(message, _MESSAGE_KEYS, at)
        role = fields.required_name(message, "role", at)
        _read_content(message, at, content)
        _read_calls(message, at, content)
        content.end_message(role, fields.string(message, "name", at) or None)
    return len(messages)


def _read_content(message: JSON, at: str, content: Content) -> None:
    value = message.get("content")
    if isinstance(value, str):
        content.text(value)
    elif isinstance(value, list):
        for here, part in fields.objects(message, "content", at):
            fields.check_case(part, _PART_KEYS, here)
            read = _PART_READERS.get(fields.string(part, "type", here), _read_unknown)
            read(part, here, content)
    elif value is not None:
        raise fields.wrong(f"{at}/content", "must be a string or a list of parts")
    for key in ("refusal", "reasoning_content"):
        content.text(fields.string(message, key, at))
    if message.get("audio") is not None:
        content.other("audio")


def _read_calls(message: JSON, at: str, content: Content) -> None:
    calls = [
        (f"{here}/{kind}", fields.mapping(call, kind, here))
        for here, call in fields.objects(message, "tool_calls", at)
        for kind in ("function", "custom")
    ]
    calls.append((f"{at}/function_call", fields.mapping(message, "function_call", at)))
    for here, call in calls:
        for key in ("name", "arguments", "input"):
            content.text(fields.string(call, key, here))


def _read_text(part: JSON, at: str, content: Content) -> None:
    content.text(fields.string(part, "text", at))


def _read_refusal(part: JSON, at: str, content: Content) -> None:
    content.text(fields.string(part, "refusal", at))


def _read_image(part: JSON, at: str, content: Content) -> None:
    # Several compatible servers take the URL itself in place of the object.
    short = part.get("image_url")
    image = {"url": short} if isinstance(short, str) else fields.mapping(part, "image_url", at)
    url = fields.string(image, "url", f"{at}/image_url")
    content.image(size_of_url(url), fields.string(image, "detail", f"{at}/image_url") or "auto")


def _read_unknown(part: JSON, _at: str, content: Content) -> None:
    """A part of a kind we do not know is counted as the text it is written in."""
    content.text(compact_json(part))


def _modality(name: str) -> Callable[[JSON, str, Content], None]:
    def read(_part: JSON, _at: str, content: Content) -> None:
        content.other(name)

    return read


_PART_READERS: Mapping[str, Callable[[JSON, str, Content], None]] = MappingProxyType(
    {
        "text": _read_text,
        "refusal": _read_refusal,
        "image_url": _read_image,
        "input_audio": _modality("audio"),
        "audio_url": _modality("audio"),
        "video_url": _modality("video"),
        "file": _modality("file"),
    }
)


def _read_tools(body: JSON) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names: list[str] = []
    definitions: list[str] = []
    for at, tool in fields.objects(body, "tools"):
        kind = fields.string(tool, "type", at)
        inner: Any = tool.get(kind)
        named = fields.string(inner, "name", f"{at}/{kind}") if isinstance(inner, dict) else ""
        names.append(named or fields.string(tool, "name", at) or kind)
        definitions.append(compact_json(tool))
    for at, function in fields.objects(body, "functions"):
        names.append(fields.string(function, "name", at))
        definitions.append(compact_json(function))
    if body.get("web_search_options") is not None:
        names.append("web_search")
    return fields.tools(names, "/tools and /functions"), tuple(definitions)


def _read_response_format(body: JSON, content: Content) -> None:
    """A JSON schema is part of the prompt that the provider bills."""
    at = "/response_format"
    wanted = fields.mapping(fields.mapping(body, "response_format"), "json_schema", at)
    if wanted:
        for key in ("name", "description"):
            content.text(fields.string(wanted, key, f"{at}/json_schema"))
        content.text(compact_json(wanted.get("schema")))
        content.end_message(_SCHEMA_ROLE)
