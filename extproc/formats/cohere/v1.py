"""Cohere's API, version 1: chat by one message, generate, summarize, embed, rerank, classify.

Floor 1, pure. Answers are `answers`, denials `dialect`. Source: cohere-python
`base_client`, recorded requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from extproc.decision import Denial
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
    Reply,
    RequestLine,
)
from extproc.formats.cohere import dialect as cohere_dialect
from extproc.formats.cohere import inputs as cohere_inputs
from extproc.formats.cohere.answers import CohereAnswers
from extproc.formats.content import Content
from extproc.formats.strict_json import compact_json
from extproc.formats.unasked import Unasked
from extproc.model import AIRequest

# A classification generates nothing and is billed by the input, as an embedding is.
_OPERATIONS: Mapping[str, str] = MappingProxyType(
    {
        "/v1/chat": "chat",
        "/v1/generate": "text_completion",
        "/v1/summarize": "text_completion",
        "/v1/embed": "embeddings",
        "/v1/classify": "embeddings",
        "/v1/rerank": "rerank",
        "/v1/tokenize": CONTROL,
        "/v1/detokenize": CONTROL,
    }
)
_LISTS = frozenset({"models", "datasets", "connectors", "embed-jobs", "finetuning"})

_TURN_KEYS = frozenset({"role", "message", "tool_calls", "tool_results"})
_TOOL_KEYS = frozenset({"name", "description", "parameter_definitions"})
_EXAMPLE_KEYS = frozenset({"text", "label"})
_ROLES: Mapping[str, str] = MappingProxyType({"chatbot": "assistant"})
# No role of the API, so that no counter takes documents and schemas for plain text.
_DOCUMENTS_ROLE = "documents"


class CohereV1(Unasked):
    """The wire format `cohere_v1`."""

    name = "cohere_v1"
    provider = "cohere"

    def claim(self, line: RequestLine) -> Call | None:
        """Spending calls are POST; lists are GET, and other vendors' except on Cohere's own host."""
        if line.method == "POST" and (operation := _OPERATIONS.get(line.path)):
            return Call(api=self.name, operation=operation)
        is_list = line.segments[:1] == ("v1",) and not _LISTS.isdisjoint(line.segments[1:2])
        if line.method == "GET" and is_list and line.provider == self.provider:
            return Call(api=self.name, operation=CONTROL, body=BodyKind.NONE)
        return None

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body; the field that distinguishes it says which of an operation's calls it is.

        Raises `RequestRefused` (400) naming the JSON pointer that is wrong.
        """
        readers = _READERS[call.operation]
        found = {read for key, read in readers.items() if body.get(key) is not None}
        if len(found) != 1:
            raise fields.not_this_call(f"This path takes one of {', '.join(f'/{key}' for key in readers)}")
        return found.pop()(body, call)

    def output_ceiling(self, body: JSON, call: Call) -> OutputCeiling | None:
        """None for a summary, whose length is a word, and for an embed, where the field cuts the input."""
        says = call.operation == "chat" or body.get("prompt") is not None
        return OutputCeiling(read=("max_tokens",), added="max_tokens") if says else None

    def answer_reader(self, request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(CohereAnswers(request.operation), headers)

    def render_denial(self, denial: Denial, _provider: str = "") -> Reply:
        """A Cohere error."""
        return cohere_dialect.render_denial(denial)


def _read_chat(body: JSON, call: Call) -> ParsedRequest:
    content = Content()
    _say(body, "preamble", "system", content)
    turns = list(fields.objects(body, "chat_history"))
    for at, turn in turns:
        fields.check_case(turn, _TURN_KEYS, at)
        content.text(fields.string(turn, "message", at))
        _read_objects(turn, ("tool_calls", "tool_results"), at, content)
        role = fields.required_name(turn, "role", at)
        content.end_message(_ROLES.get(role, role))
    _read_objects(body, ("tool_results",), "", content)
    _say(body, "message", "user", content)
    if cohere_inputs.read_documents(body, "documents", content):
        content.end_message(_DOCUMENTS_ROLE)
    schema = fields.mapping(fields.mapping(body, "response_format"), "schema", "/response_format")
    if schema:
        content.text(compact_json(schema))
        content.end_message("response_format")
    return cohere_inputs.parsed(
        body,
        call,
        content,
        message_count=len(turns) + 1,
        tools=_read_tools(body),
        stream=fields.flag(body, "stream"),
        temperature=fields.number(body, "temperature"),
        max_output_tokens=fields.count(body, "max_tokens"),
        has_state=body.get("conversation_id") is not None,
    )


def _say(body: JSON, key: str, role: str, content: Content) -> None:
    if text := fields.string(body, key):
        content.text(text)
        content.end_message(role)


def _read_objects(holder: JSON, keys: tuple[str, ...], at: str, content: Content) -> None:
    for key in keys:
        for _, item in fields.objects(holder, key, at):
            content.text(compact_json(item))


def _read_tools(body: JSON) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Functions of the caller, and connectors: tools that Cohere runs itself."""
    names: list[str] = []
    definitions: list[str] = []
    for at, tool in fields.objects(body, "tools"):
        fields.check_case(tool, _TOOL_KEYS, at)
        names.append(fields.string(tool, "name", at))
        definitions.append(compact_json(tool))
    names += [fields.string(connector, "id", at) for at, connector in fields.objects(body, "connectors")]
    return fields.tools(names, "/tools and /connectors"), tuple(definitions)


def _read_generate(body: JSON, call: Call) -> ParsedRequest:
    content = Content()
    content.text(fields.string(body, "prompt"))
    content.end_message("")
    return cohere_inputs.parsed(
        body,
        call,
        content,
        message_count=1,
        stream=fields.flag(body, "stream"),
        temperature=fields.number(body, "temperature"),
        max_output_tokens=fields.count(body, "max_tokens"),
        choices=fields.count(body, "num_generations") or 1,
        has_state=body.get("preset") is not None,
    )


def _read_summarize(body: JSON, call: Call) -> ParsedRequest:
    content = Content()
    for key in ("text", "additional_command"):
        content.text(fields.string(body, key))
    content.end_message("")
    temperature = fields.number(body, "temperature")
    return cohere_inputs.parsed(body, call, content, message_count=1, temperature=temperature)


def _read_classify(body: JSON, call: Call) -> ParsedRequest:
    content = Content()
    inputs = cohere_inputs.strings(body, "inputs")
    for _, text in inputs:
        content.text(text)
        content.end_message("")
    for at, example in fields.objects(body, "examples"):
        fields.check_case(example, _EXAMPLE_KEYS, at)
        for key in ("text", "label"):
            content.text(fields.string(example, key, at))
    content.end_message("")
    return cohere_inputs.parsed(body, call, content, message_count=len(inputs))


def _read_names_only(body: JSON, call: Call) -> ParsedRequest:
    return cohere_inputs.parsed(body, call, Content(), message_count=0)


_Reader = Callable[[JSON, Call], ParsedRequest]

_READERS: Mapping[str, Mapping[str, _Reader]] = MappingProxyType(
    {
        "chat": {"message": _read_chat},
        "text_completion": {"prompt": _read_generate, "text": _read_summarize},
        "embeddings": {
            "texts": cohere_inputs.read_embed,
            "images": cohere_inputs.read_embed,
            "inputs": _read_classify,
        },
        "rerank": {"documents": cohere_inputs.read_rerank},
        CONTROL: {"text": _read_names_only, "tokens": _read_names_only},
    }
)
