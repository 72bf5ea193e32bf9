"""Anthropic Messages: recognising a call and reading its body.

Floor 1, pure. Answers are `answers`, denials `dialect`. Source:
anthropic-sdk-python `types/message_create_params`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from extproc.decision import Denial, LimitState
from extproc.formats import fields
from extproc.formats.answers import reader
from extproc.formats.anthropic import dialect as anthropic_dialect
from extproc.formats.anthropic.answers import AnthropicAnswers
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
from extproc.formats.images import size_of_base64
from extproc.formats.strict_json import compact_json
from extproc.formats.unasked import Unasked
from extproc.model import AIRequest

_OPERATIONS: Mapping[str, str] = MappingProxyType({"/messages": "chat", "/messages/count_tokens": CONTROL})
_MODELS_PATH = "/models"
# No role of the API, so that no counter takes a schema for plain text.
_SCHEMA_ROLE = "response_format"

_STATE_KEYS = ("container", "thread")
_MESSAGE_KEYS = frozenset({"role", "content"})
_FALLBACK_KEYS = frozenset({"model", "max_tokens"})
_TOOL_KEYS = frozenset({"type", "name", "model", "max_tokens", "max_uses"})
# A fallback without a ceiling of its own has the first one's. What advisors say cannot be told so: it
# comes on top.
CEILING = OutputCeiling(
    read=("max_tokens", "fallbacks/*/max_tokens"), added="max_tokens", below=("thinking/budget_tokens",)
)
_BLOCK_KEYS = frozenset({"type", "text", "source", "input", "name", "content", "thinking"})


class AnthropicMessages(Unasked):
    """The wire format `anthropic_messages`."""

    name = "anthropic_messages"
    provider = "anthropic"

    def claim(self, line: RequestLine) -> Call | None:
        """Messages are POST; counting them, and model lists in this dialect, are control."""
        if line.method == "POST" and (operation := _OPERATIONS.get(line.path)):
            return Call(api=self.name, operation=operation)
        is_models = line.path == _MODELS_PATH or line.path.startswith(_MODELS_PATH + "/")
        if line.method == "GET" and is_models and "anthropic-version" in line.headers:
            return Call(api=self.name, operation=CONTROL, body=BodyKind.NONE)
        return None

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a message body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        model = fields.model(body, call)
        fallbacks = _read_attempts(body, "fallbacks", _FALLBACK_KEYS)
        # An advisor is a model of its own, asked as often as the first one likes.
        advisors = _read_attempts(body, "tools", _TOOL_KEYS)
        content = Content()
        message_count = _read_messages(body, content)
        _read_schema(body, content)
        tool_names, definitions = _read_tools(body)
        request = AIRequest(
            api=call.api,
            provider=call.provider,
            operation=call.operation,
            model=model,
            models=fields.models([*fields.models_of(body, call), *fallbacks.models, *advisors.models]),
            stream=fields.flag(body, "stream"),
            message_count=message_count,
            tools=tool_names,
            modalities=tuple(sorted(content.modalities)),
            end_user=fields.string(fields.mapping(body, "metadata"), "user_id", "/metadata"),
            temperature=fields.number(body, "temperature"),
            # A container keeps files and variables of earlier requests, a thread their messages.
            has_state=any(body.get(key) is not None for key in _STATE_KEYS),
            max_output_tokens=_ceiling(_declared(body), fallbacks, advisors),
        )
        return ParsedRequest(request=request, prompt=content.prompt(definitions))

    def output_ceiling(self, _body: JSON, _call: Call) -> OutputCeiling | None:
        """That of the message, whoever writes it."""
        return CEILING

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(AnthropicAnswers(), headers)

    def render_denial(self, denial: Denial, _provider: str = "") -> Reply:
        """An Anthropic error."""
        return anthropic_dialect.render_denial(denial)

    def limit_headers(
        self, limits: tuple[LimitState, ...], now_s: float, _provider: str = ""
    ) -> Mapping[str, str]:
        """`anthropic-ratelimit-*`."""
        return anthropic_dialect.limit_headers(limits, now_s)


@dataclass(slots=True)
class _Attempts:
    """The models that may answer beside the first: their names, and what each may say in all."""

    models: list[str] = field(default_factory=list)
    ceilings: list[int | None] = field(default_factory=list)  # None: as the model's own


def _read_attempts(body: JSON, key: str, keys: frozenset[str]) -> _Attempts:
    found = _Attempts()
    for at, each in fields.objects(body, key):
        fields.check_case(each, keys, at)
        model = fields.name(each, "model", at)
        ceiling = fields.count(each, "max_tokens", at)
        if model:
            uses = fields.count(each, "max_uses", at) or 1
            found.models.append(model)
            found.ceilings.append(ceiling and ceiling * uses)
    return found


def _declared(body: JSON) -> int | None:
    """Zero is a ceiling here: it reads a prompt into the cache and generates nothing."""
    value = body.get("max_tokens")
    return 0 if type(value) is int and value == 0 else fields.count(body, "max_tokens")


def _ceiling(declared: int | None, fallbacks: _Attempts, advisors: _Attempts) -> int | None:
    """One attempt answers, the first or a fallback; what advisors say comes on top."""
    if declared is None or None in advisors.ceilings:
        return None
    return max(declared, *filter(None, fallbacks.ceilings), 0) + sum(filter(None, advisors.ceilings))


def _read_messages(body: JSON, content: Content) -> int:
    if body.get("messages") is None:
        raise fields.not_this_call("/messages is required: this path takes a message")
    if body.get("system") is not None:
        _read_blocks(body, "system", "", content)
        content.end_message("system")
    messages = list(fields.objects(body, "messages"))
    for at, message in messages:
        fields.check_case(message, _MESSAGE_KEYS, at)
        role = fields.required_name(message, "role", at)
        _read_blocks(message, "content", at, content)
        content.end_message(role)
    return len(messages)


def _read_schema(body: JSON, content: Content) -> None:
    """A JSON schema for the answer is part of the prompt; betas before 2026 had it at the top level."""
    for holder, key, at in (
        (body, "output_format", ""),
        (fields.mapping(body, "output_config"), "format", "/output_config"),
    ):
        schema = fields.mapping(holder, key, at).get("schema")
        if schema is not None:
            content.text(compact_json(schema))
            content.end_message(_SCHEMA_ROLE)


def _read_blocks(holder: JSON, key: str, at: str, content: Content) -> None:
    value = holder.get(key)
    if isinstance(value, str):
        content.text(value)
    elif isinstance(value, list):
        for here, block in fields.objects(holder, key, at):
            fields.check_case(block, _BLOCK_KEYS, here)
            _BLOCK_READERS.get(fields.string(block, "type", here), _read_unknown)(block, here, content)
    elif value is not None:
        raise fields.wrong(f"{at}/{key}", "must be a string or a list of blocks")


def _read_text(block: JSON, at: str, content: Content) -> None:
    content.text(fields.string(block, "text", at))


def _read_thinking(block: JSON, at: str, content: Content) -> None:
    content.text(fields.string(block, "thinking", at))


def _read_image(block: JSON, at: str, content: Content) -> None:
    source = fields.mapping(block, "source", at)
    is_here = fields.string(source, "type", f"{at}/source") == "base64"
    data = fields.string(source, "data", f"{at}/source") if is_here else ""
    content.image(size_of_base64(data))


def _read_document(block: JSON, at: str, content: Content) -> None:
    source = fields.mapping(block, "source", at)
    kind = fields.string(source, "type", f"{at}/source")
    for key in ("title", "context"):
        content.text(fields.string(block, key, at))
    if kind == "text":
        content.text(fields.string(source, "data", f"{at}/source"))
    elif kind == "content":
        _read_blocks(source, "content", f"{at}/source", content)
    else:
        content.other("file")


def _read_tool_use(block: JSON, at: str, content: Content) -> None:
    content.text(fields.string(block, "name", at))
    content.text(compact_json(block.get("input")))


def _read_tool_result(block: JSON, at: str, content: Content) -> None:
    _read_blocks(block, "content", at, content)


def _read_search_result(block: JSON, at: str, content: Content) -> None:
    for key in ("source", "title"):
        content.text(fields.string(block, key, at))
    _read_blocks(block, "content", at, content)


def _read_upload(_block: JSON, _at: str, content: Content) -> None:
    content.other("file")


def _read_unknown(block: JSON, _at: str, content: Content) -> None:
    """A block of a kind we do not know is counted as the text it is written in."""
    content.text(compact_json(block))


_BLOCK_READERS: Mapping[str, Callable[[JSON, str, Content], None]] = MappingProxyType(
    {
        "text": _read_text,
        "thinking": _read_thinking,
        "image": _read_image,
        "document": _read_document,
        "tool_use": _read_tool_use,
        "server_tool_use": _read_tool_use,
        "mcp_tool_use": _read_tool_use,
        "tool_result": _read_tool_result,
        "mcp_tool_result": _read_tool_result,
        "search_result": _read_search_result,
        "container_upload": _read_upload,
    }
)


def _read_tools(body: JSON) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names: list[str] = []
    definitions: list[Any] = []
    for at, tool in fields.objects(body, "tools"):
        names.append(fields.string(tool, "name", at) or fields.string(tool, "type", at))
        definitions.append(compact_json(tool))
    # A remote server's tools are not in the body; its name is all a rule can hold on to.
    names += [fields.string(server, "name", at) for at, server in fields.objects(body, "mcp_servers")]
    return fields.tools(names, "/tools and /mcp_servers"), tuple(definitions)
