"""Ollama's own API: chat, generate, embed, and the calls that manage its models.

Floor 1, pure. Answers are `ollama_answers`. The server is written in Go, whose JSON parser takes
keys in any case, so a key that differs only in case from one that is read is refused at every level.
Sources: Ollama's `docs/api.md`, `api/types.go`, `server/routes.go`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from extproc.decision import Denial
from extproc.formats import fields
from extproc.formats.advice import denial_headers, facts, told
from extproc.formats.answers import reader
from extproc.formats.base import (
    CONTROL,
    JSON,
    NO_OUTPUT,
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
from extproc.formats.ollama_answers import OllamaAnswers
from extproc.formats.strict_json import compact_json
from extproc.formats.unasked import Unasked
from extproc.model import AIRequest, Prompt

_OPERATIONS: Mapping[tuple[str, str], tuple[str, BodyKind]] = MappingProxyType(
    {
        ("POST", "/api/chat"): ("chat", BodyKind.JSON),
        ("POST", "/api/generate"): ("text_completion", BodyKind.JSON),
        ("POST", "/api/embed"): ("embeddings", BodyKind.JSON),
        ("POST", "/api/embeddings"): ("embeddings", BodyKind.JSON),
        # These change what the server holds; rules see the models they name.
        ("POST", "/api/show"): (CONTROL, BodyKind.JSON),
        ("POST", "/api/pull"): (CONTROL, BodyKind.JSON),
        ("POST", "/api/push"): (CONTROL, BodyKind.JSON),
        ("POST", "/api/create"): (CONTROL, BodyKind.JSON),
        ("POST", "/api/copy"): (CONTROL, BodyKind.JSON),
        ("DELETE", "/api/delete"): (CONTROL, BodyKind.JSON),
        ("GET", "/api/tags"): (CONTROL, BodyKind.NONE),
        ("GET", "/api/ps"): (CONTROL, BodyKind.NONE),
        ("GET", "/api/version"): (CONTROL, BodyKind.NONE),
    }
)
_BLOBS = "/api/blobs/"

_MESSAGE_KEYS = frozenset({"role", "content", "thinking", "images", "tool_calls", "tool_name"})
_CALL_KEYS = frozenset({"function"})
_FUNCTION_KEYS = frozenset({"name", "arguments"})
_TOOL_KEYS = frozenset({"type", "function"})
_OPTION_KEYS = frozenset({"num_predict", "temperature"})
# No role of the API, so that no counter takes a schema for plain text.
_SCHEMA_ROLE = "format"
# What calls that manage models name them by.
_MODEL_KEYS = ("model", "name", "from", "source", "destination")


class Ollama(Unasked):
    """The wire format `ollama`."""

    name = "ollama"
    provider = "ollama"

    def claim(self, line: RequestLine) -> Call | None:
        """Exact paths; what is uploaded for a model of one's own passes unread."""
        if found := _OPERATIONS.get((line.method, line.path)):
            operation, body = found
            return Call(api=self.name, operation=operation, body=body)
        if line.path.startswith(_BLOBS) and line.method in ("HEAD", "POST"):
            body = BodyKind.OPAQUE if line.method == "POST" else BodyKind.NONE
            return Call(api=self.name, operation=CONTROL, body=body)
        return None

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        if call.operation == CONTROL:
            return _read_management(body, call)
        content = Content()
        message_count = _READERS[call.operation](body, content)
        names, definitions = _read_tools(body)
        options = fields.mapping(body, "options")
        fields.check_case(options, _OPTION_KEYS, "/options")
        request = AIRequest(
            api=call.api,
            provider=call.provider,
            operation=call.operation,
            model=fields.model(body, call),
            models=_spellings(fields.models_of(body, call)),
            stream=call.operation != "embeddings" and _streams(body),
            message_count=message_count,
            tools=names,
            modalities=tuple(sorted(content.modalities)),
            temperature=fields.number(options, "temperature", "/options"),
            max_output_tokens=_read_ceiling(options),
        )
        return ParsedRequest(request=request, prompt=content.prompt(definitions))

    def output_ceiling(self, _body: JSON, call: Call) -> OutputCeiling | None:
        """One option; an embedding has none."""
        name = "options/num_predict"
        is_generating = call.operation not in NO_OUTPUT
        return OutputCeiling(read=(name,), added=name, least=1) if is_generating else None

    def answer_reader(self, request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(OllamaAnswers(request.operation), headers)

    def render_denial(self, denial: Denial, _provider: str = "") -> Reply:
        """An Ollama error: its clients show the string and nothing else."""
        body = {"error": told(denial), **facts(denial)}
        return Reply(status=denial.status, headers=denial_headers(denial), body=json.dumps(body).encode())


def _streams(body: JSON) -> bool:
    """It streams unless told not to."""
    return body.get("stream") is None or fields.flag(body, "stream")


def _read_ceiling(options: JSON) -> int | None:
    """Numbers below 1 mean no ceiling: until the context is full, or forever."""
    value = options.get("num_predict")
    if type(value) is int and value < 1:
        return None
    return fields.count(options, "num_predict", "/options")


def _spellings(names: list[str]) -> tuple[str, ...]:
    """Each name as it was sent, and as it is short: the registry and the tag that stand for themselves."""
    bare = (name.rpartition("://")[2] for name in names)
    short = [
        name.removeprefix("registry.ollama.ai/").removeprefix("library/").removesuffix(":latest")
        for name in bare
    ]
    return fields.models([*names, *short])


def _read_management(body: JSON, call: Call) -> ParsedRequest:
    if body.get("modelfile") is not None:
        raise fields.wrong("/modelfile", "names models where no rule sees them; use /from")
    names = [fields.name(body, key) for key in _MODEL_KEYS]
    if not any(names):
        raise fields.not_this_call("/model is required: this path manages models")
    models = _spellings(names)
    request = AIRequest(
        api=call.api, provider=call.provider, operation=CONTROL, model=models[0], models=models
    )
    return ParsedRequest(request=request, prompt=Prompt())


def _read_chat(body: JSON, content: Content) -> int:
    if body.get("messages") is None:
        raise fields.not_this_call("/messages is required: this path takes a chat")
    messages = list(fields.objects(body, "messages"))
    for at, message in messages:
        fields.check_case(message, _MESSAGE_KEYS, at)
        for key in ("content", "thinking", "tool_name"):
            content.text(fields.string(message, key, at))
        _read_images(message, at, content)
        _read_calls(message, at, content)
        content.end_message(fields.required_name(message, "role", at))
    _read_format(body, content)
    return len(messages)


def _read_calls(message: JSON, at: str, content: Content) -> None:
    for here, call in fields.objects(message, "tool_calls", at):
        fields.check_case(call, _CALL_KEYS, here)
        function = fields.mapping(call, "function", here)
        fields.check_case(function, _FUNCTION_KEYS, f"{here}/function")
        content.text(fields.string(function, "name", f"{here}/function"))
        content.text(compact_json(fields.mapping(function, "arguments", f"{here}/function")))


def _read_generate(body: JSON, content: Content) -> int:
    """A body without a prompt loads a model, or unloads it."""
    _end_system(body, content)
    for key in ("template", "prompt", "suffix"):
        content.text(fields.string(body, key))
    _read_images(body, "", content)
    if turns := _count_context(body):
        content.ids(turns)
    content.end_message("")
    _read_format(body, content)
    return 1


def _end_system(body: JSON, content: Content) -> None:
    if system := fields.string(body, "system"):
        content.text(system)
        content.end_message("system")


def _count_context(body: JSON) -> int:
    """The tokens of the turns before, which the client keeps; `has_state` would be the server's."""
    context = body.get("context")
    if context is None:
        return 0
    if not isinstance(context, list) or not all(type(token) is int for token in context):
        raise fields.wrong("/context", "must be a list of whole numbers")
    return len(context)


def _read_images(holder: JSON, at: str, content: Content) -> None:
    images = holder.get("images")
    if images is None:
        return
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise fields.wrong(f"{at}/images", "must be a list of strings")
    for image in images:
        content.image(size_of_base64(image))


def _read_format(body: JSON, content: Content) -> None:
    """A word, or a JSON schema that becomes part of the prompt."""
    wanted: Any = body.get("format")
    if isinstance(wanted, dict):
        content.text(compact_json(wanted))
        content.end_message(_SCHEMA_ROLE)
    elif wanted is not None and not isinstance(wanted, str):
        raise fields.wrong("/format", "must be a string or an object")


def _read_embed(body: JSON, content: Content) -> int:
    """`input` is a string or a list of them; the older path takes one `prompt`."""
    value = body.get("input")
    if value is None and body.get("prompt") is None:
        raise fields.not_this_call("/input or /prompt is required: this path takes an embedding")
    texts = [value or ""] if isinstance(value, str | None) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise fields.wrong("/input", "must be a string or a list of strings")
    for text in filter(None, (*texts, fields.string(body, "prompt"))):
        content.text(text)
        content.end_message("")
    return len(content.messages)


def _read_tools(body: JSON) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names: list[str] = []
    definitions: list[str] = []
    for at, tool in fields.objects(body, "tools"):
        fields.check_case(tool, _TOOL_KEYS, at)
        function = fields.mapping(tool, "function", at)
        fields.check_case(function, _FUNCTION_KEYS, f"{at}/function")
        names.append(fields.string(function, "name", f"{at}/function") or fields.string(tool, "type", at))
        definitions.append(compact_json(tool))
    return fields.tools(names, "/tools"), tuple(definitions)


_READERS = MappingProxyType(
    {"chat": _read_chat, "text_completion": _read_generate, "embeddings": _read_embed}
)
