"""Cohere's API, version 2: chat, embed, rerank.

Floor 1, pure. Answers are `answers`, denials `dialect`. Source: cohere-python
`v2/client`, recorded requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from extproc.decision import Denial
from extproc.formats import fields
from extproc.formats.answers import reader
from extproc.formats.base import JSON, AnswerReader, Call, OutputCeiling, ParsedRequest, Reply, RequestLine
from extproc.formats.cohere import dialect as cohere_dialect
from extproc.formats.cohere import inputs as cohere_inputs
from extproc.formats.cohere.answers import CohereAnswers
from extproc.formats.content import Content
from extproc.formats.strict_json import compact_json
from extproc.formats.unasked import Unasked
from extproc.model import AIRequest

_OPERATIONS: Mapping[str, str] = MappingProxyType(
    {"/v2/chat": "chat", "/v2/embed": "embeddings", "/v2/rerank": "rerank"}
)
_MESSAGE_KEYS = frozenset({"role", "content", "tool_calls", "tool_plan", "tool_call_id"})
_FUNCTION_KEYS = frozenset({"name", "arguments"})
# No role of the API, so that no counter takes documents and schemas for plain text.
_DOCUMENTS_ROLE = "documents"
_SCHEMA_ROLE = "response_format"


class CohereV2(Unasked):
    """The wire format `cohere_v2`."""

    name = "cohere_v2"
    provider = "cohere"

    def claim(self, line: RequestLine) -> Call | None:
        """Three paths, all POST."""
        operation = _OPERATIONS.get(line.path) if line.method == "POST" else None
        return Call(api=self.name, operation=operation) if operation else None

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        return _READERS[call.operation](body, call)

    def output_ceiling(self, _body: JSON, call: Call) -> OutputCeiling | None:
        """None for an embed, where the field cuts the input."""
        return OutputCeiling(read=("max_tokens",), added="max_tokens") if call.operation == "chat" else None

    def answer_reader(self, request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(CohereAnswers(request.operation), headers)

    def render_denial(self, denial: Denial, _provider: str = "") -> Reply:
        """A Cohere error."""
        return cohere_dialect.render_denial(denial)


def _read_chat(body: JSON, call: Call) -> ParsedRequest:
    if body.get("messages") is None:
        raise fields.not_this_call("/messages is required: this path takes a chat")
    content = Content()
    messages = list(fields.objects(body, "messages"))
    for at, message in messages:
        fields.check_case(message, _MESSAGE_KEYS, at)
        _read_message(message, at, content)
        content.end_message(fields.required_name(message, "role", at))
    if cohere_inputs.read_documents(body, "documents", content):
        content.end_message(_DOCUMENTS_ROLE)
    wanted = fields.mapping(body, "response_format")
    schema = fields.mapping(wanted, "json_schema", "/response_format")
    if schema:
        content.text(compact_json(schema))
        content.end_message(_SCHEMA_ROLE)
    return cohere_inputs.parsed(
        body,
        call,
        content,
        message_count=len(messages),
        tools=_read_tools(body),
        stream=fields.flag(body, "stream"),
        temperature=fields.number(body, "temperature"),
        max_output_tokens=fields.count(body, "max_tokens"),
    )


def _read_message(message: JSON, at: str, content: Content) -> None:
    cohere_inputs.read_parts(message, "content", at, content)
    content.text(fields.string(message, "tool_plan", at))
    for here, tool_call in fields.objects(message, "tool_calls", at):
        function = fields.mapping(tool_call, "function", here)
        fields.check_case(function, _FUNCTION_KEYS, f"{here}/function")
        for key in ("name", "arguments"):
            content.text(fields.string(function, key, f"{here}/function"))


def _read_tools(body: JSON) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names: list[str] = []
    definitions: list[str] = []
    for at, tool in fields.objects(body, "tools"):
        function = fields.mapping(tool, "function", at)
        fields.check_case(function, _FUNCTION_KEYS, f"{at}/function")
        names.append(fields.string(function, "name", f"{at}/function") or fields.string(tool, "type", at))
        definitions.append(compact_json(tool))
    return fields.tools(names, "/tools"), tuple(definitions)


_READERS: Mapping[str, Callable[[JSON, Call], ParsedRequest]] = MappingProxyType(
    {
        "chat": _read_chat,
        "embeddings": cohere_inputs.read_embed,
        "rerank": cohere_inputs.read_rerank,
    }
)
