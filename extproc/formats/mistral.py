"""What Mistral has beside OpenAI's APIs: conversations, agents, OCR.

Floor 1, pure. Its chats are `openai.chat`, its fill-in-the-middle `openai.completions`. Answers are
`mistral_answers`. Source: mistralai's `models/conversationrequest`, `models/agentscompletionrequest`,
`models/ocrrequest`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

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
from extproc.formats.images import size_of_url
from extproc.formats.mistral_answers import ConversationAnswers, OCRAnswers
from extproc.formats.openai.chat import OpenAIChat
from extproc.formats.openai.dialect import OpenAIFormat
from extproc.formats.openai.request import read_parts
from extproc.formats.openai.tools import Tools
from extproc.formats.strict_json import compact_json
from extproc.model import AIRequest, Prompt

_CHAT = OpenAIChat()
_POST: Mapping[tuple[str, ...], str] = MappingProxyType(
    {
        ("ocr",): "ocr",
        ("agents", "completions"): "chat",
        ("conversations",): "chat",
        ("agents",): CONTROL,
    }
)
_STORED = frozenset({"agents", "conversations"})
_RESTART = "restart"

_ARGUMENT_KEYS = frozenset({"max_tokens", "temperature", "response_format"})
_ENTRY_KEYS = frozenset({"type", "role", "content", "name", "arguments", "result"})
_DOCUMENT_KEYS = frozenset({"type", "document_url", "image_url", "file_id"})


class Mistral(OpenAIFormat):
    """The wire format `mistral`."""

    name = "mistral"
    provider = "mistral_ai"

    def claim(self, line: RequestLine) -> Call | None:
        """Making something is POST; a conversation goes on by a POST to its id."""
        if not line.path:
            # Some part holds a slash, which a server may take for one more part.
            return None
        noun, rest = line.segments[:1], line.segments[1:]
        if line.method == "POST":
            is_turn = noun == ("conversations",) and len(rest) in (1, 2) and rest[1:] in ((), (_RESTART,))
            operation = "chat" if is_turn else _POST.get(line.segments)
            # Elsewhere a POST to agents may be what runs one.
            is_known = operation != CONTROL or line.provider == self.provider
            return Call(api=self.name, operation=operation) if operation and is_known else None
        if not _STORED.issuperset(noun) or not noun or line.method not in ("GET", "DELETE", "PATCH"):
            return None
        body = BodyKind.JSON if line.method == "PATCH" else BodyKind.NONE
        return Call(api=self.name, operation=CONTROL, body=body)

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        if call.operation == CONTROL:
            return _read_agent(body, call)
        readers = _READERS[call.operation]
        found = [key for key in readers if body.get(key) is not None]
        if len(found) != 1:
            raise fields.not_this_call(f"This path takes one of {', '.join(f'/{key}' for key in readers)}")
        return readers[found[0]](body, call)

    def output_ceiling(self, body: JSON, call: Call) -> OutputCeiling | None:
        """That of a chat with an agent, or of a turn."""
        if body.get("messages") is not None:
            return _CHAT.output_ceiling(body, call)
        name = "completion_args/max_tokens"
        return OutputCeiling(read=(name,), added=name) if body.get("inputs") is not None else None

    def answer_reader(self, request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(OCRAnswers() if request.operation == "ocr" else ConversationAnswers(), headers)


def _read_agent(body: JSON, call: Call) -> ParsedRequest:
    """An agent is made, or changed: rules see the model it will have."""
    tools = Tools()
    tools.read(body)
    model = fields.name(body, "model")
    request = AIRequest(
        api=call.api,
        provider=call.provider,
        operation=CONTROL,
        model=model,
        models=fields.models([model, *tools.models]),
        tools=fields.tools(tools.names, "/tools"),
    )
    return ParsedRequest(request=request, prompt=Prompt())


def _read_completion(body: JSON, call: Call) -> ParsedRequest:
    """A chat with an agent in place of a model."""
    return _CHAT.parse_request(body, replace(call, model=fields.required_name(body, "agent_id")))


def _read_conversation(body: JSON, call: Call) -> ParsedRequest:
    """A turn; one that goes on with a conversation names neither agent nor model."""
    content, tools = Content(), Tools()
    if instructions := fields.string(body, "instructions"):
        content.text(instructions)
        content.end_message("system")
    count = _read_entries(body, content)
    tools.read(body)
    arguments = fields.mapping(body, "completion_args")
    fields.check_case(arguments, _ARGUMENT_KEYS, "/completion_args")
    names = [fields.name(body, key) for key in ("agent_id", "model")]
    models = fields.models([*names, *tools.models])
    request = AIRequest(
        api=call.api,
        provider=call.provider,
        operation=call.operation,
        model=next(filter(None, names), ""),
        models=models,
        stream=fields.flag(body, "stream"),
        message_count=count,
        tools=fields.tools(tools.names, "/tools"),
        modalities=tuple(sorted(content.modalities)),
        temperature=fields.number(arguments, "temperature", "/completion_args"),
        # An agent has instructions of its own, and a conversation its earlier turns.
        has_state=True,
        max_output_tokens=fields.count(arguments, "max_tokens", "/completion_args"),
    )
    return ParsedRequest(request=request, prompt=content.prompt(tuple(tools.definitions)))


def _read_entries(body: JSON, content: Content) -> int:
    """A text, or entries: messages, calls of functions and what came of them."""
    if isinstance(body.get("inputs"), str):
        content.text(fields.string(body, "inputs"))
        content.end_message("user")
        return 1
    entries = list(fields.objects(body, "inputs"))
    for at, entry in entries:
        fields.check_case(entry, _ENTRY_KEYS, at)
        read_parts(entry, "content", at, content)
        content.text(fields.string(entry, "name", at))
        for key in ("arguments", "result"):
            value = entry.get(key)
            content.text(value if isinstance(value, str) else "" if value is None else compact_json(value))
        content.end_message(fields.name(entry, "role", at) or "assistant")
    return len(entries)


def _read_ocr(body: JSON, call: Call) -> ParsedRequest:
    """A document by its URL or id: nobody here knows its pages."""
    at = "/document"
    document = fields.mapping(body, "document")
    fields.check_case(document, _DOCUMENT_KEYS, at)
    content = Content()
    image = document.get("image_url")
    if image is None:
        content.other("file")
    else:
        nested = image if isinstance(image, dict) else {"url": image}
        content.image(size_of_url(fields.string(nested, "url", f"{at}/image_url")))
    model = fields.model(body, call)
    request = AIRequest(
        api=call.api,
        provider=call.provider,
        operation=call.operation,
        model=model,
        models=fields.models(fields.models_of(body, call)),
        message_count=1,
        modalities=tuple(sorted(content.modalities)),
    )
    return ParsedRequest(request=request, prompt=content.prompt())


_Reader = Callable[[JSON, Call], ParsedRequest]

_READERS: Mapping[str, Mapping[str, _Reader]] = MappingProxyType(
    {
        "chat": {"messages": _read_completion, "inputs": _read_conversation},
        "ocr": {"document": _read_ocr},
    }
)
