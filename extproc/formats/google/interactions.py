"""The Interactions API of Gemini: recognising a call and reading its body.

Floor 1, pure. Answers are `interaction_answers`, denials `dialect`. Source: google-genai
`interactions`, guide of the API, read 2026-11.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

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
from extproc.formats.fields import wrong
from extproc.formats.google import line as google_line
from extproc.formats.google.gemini import GoogleFormat
from extproc.formats.google.gemini_body import model_name
from extproc.formats.google.gemini_content import read_media
from extproc.formats.google.interaction_answers import InteractionAnswers
from extproc.formats.google.proto_json import messages, names, repeated
from extproc.formats.strict_json import compact_json
from extproc.model import AIRequest

_COLLECTION = "interactions"
_LOCATION = ("projects", "locations")
_BODY = names(
    *("model", "agent", "agentConfig", "input", "systemInstruction", "tools", "generationConfig"),
    *("responseFormat", "stream", "previousInteractionId", "cachedContent", "continuationToken"),
    *("environment",),
)
_STATE = ("previousInteractionId", "cachedContent", "continuationToken", "environment")
# What there is to go on with where nothing is said.
_GOES_ON = ("input", "previousInteractionId", "continuationToken")
_AGENT = names("model")
_CONFIG = names("maxOutputTokens", "temperature")
_TOOL = names("type", "name", "vertexRagStore")
_RANKING = names("ragRetrievalConfig", "ranking", "llmRanker", "rankService", "modelName")
_STEP = names("type", "role", "content", "summary", "name", "arguments", "result")
_CONTENT = names("type", "text", "mimeType", "data", "uri")
# Snake case is what the guide of this API has.
_CEILING = OutputCeiling(
    read=("generation_config/max_output_tokens",),
    added="generation_config/max_output_tokens",
    has_two_spellings=True,
)
_SCHEMA_ROLE = "response_schema"
# Steps that may be empty.
_SAY_NOTHING = frozenset({"thought", "user_input", "model_output"})
_MEDIA = frozenset({"image", "audio", "video", "document"})


class GeminiInteractions(GoogleFormat):
    """The wire format `gemini_interactions`."""

    name = "gemini_interactions"
    provider = "gcp.gemini"

    def claim(self, line: RequestLine) -> Call | None:
        """To create one is POST; to read, to cancel and to delete one is control.

        Raises `RequestRefused` (400) for parameters that change how the answer is written.
        """
        rest = _below_version(line)
        if rest[:1] != (_COLLECTION,) or not line.path:
            return None
        if (line.method, len(rest)) in (("GET", 2), ("DELETE", 2)):
            return Call(api=self.name, operation=CONTROL, body=BodyKind.NONE)
        if line.method != "POST":
            return None
        google_line.check_parameters(line)
        if len(rest) == 1:
            return Call(api=self.name, operation="generate_content")
        is_cancel = rest[2:] == ("cancel",)
        return Call(api=self.name, operation=CONTROL, body=BodyKind.OPAQUE) if is_cancel else None

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        found = _BODY.read(body, "")
        if not any(key in found for key in _GOES_ON):
            raise fields.not_this_call("/input is required: this path takes an interaction")
        content = Content()
        message_count = _read_input(found, content)
        agent, models, tools = model_name(fields.name(found, "agent")), _read_models(found), _Tools()
        tools.read(found)
        config = _CONFIG.read(fields.mapping(found, "generationConfig"), "/generationConfig")
        if "responseFormat" in found:
            content.text(compact_json(found["responseFormat"]))
            content.end_message(_SCHEMA_ROLE)
        request = AIRequest(
            api=call.api,
            provider=call.provider,
            operation="invoke_agent" if agent else call.operation,
            model=models[0],
            models=fields.models([*models, *tools.models]),
            stream=fields.flag(found, "stream"),
            message_count=message_count,
            tools=fields.tools(tools.names, "/tools"),
            modalities=tuple(sorted(content.modalities)),
            temperature=fields.number(config, "temperature", "/generationConfig"),
            has_state=any(key in found for key in _STATE),
            max_output_tokens=fields.count(config, "maxOutputTokens", "/generationConfig"),
        )
        return ParsedRequest(request=request, prompt=content.prompt(tuple(tools.definitions)))

    def output_ceiling(self, body: JSON, _call: Call) -> OutputCeiling | None:
        """That of a model; an agent decides by itself how much it says."""
        return _CEILING if body.get("agent") is None else None

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(InteractionAnswers(), headers)


def _below_version(line: RequestLine) -> tuple[str, ...]:
    """What follows the version and, on Vertex AI, project and location; empty where there is none."""
    if line.segments[:1] and line.segments[0] in google_line.VERSIONS:
        rest = line.segments[1:]
        return rest[4:] if rest[:4:2] == _LOCATION else rest
    return ()


def _read_models(found: JSON) -> list[str]:
    """Model or agent, and the model that an agent is told to use; one of the first two is required."""
    config = _AGENT.read(fields.mapping(found, "agentConfig"), "/agentConfig")
    named = [
        model_name(fields.name(found, "model")),
        model_name(fields.name(found, "agent")),
        model_name(fields.name(config, "model", "/agentConfig")),
    ]
    if not named[0] and not named[1]:
        raise fields.not_this_call("/model or /agent is required: this path takes an interaction")
    return [name for name in named if name]


def _read_input(found: JSON, content: Content) -> int:
    if "systemInstruction" in found:
        content.text(fields.string(found, "systemInstruction"))
        content.end_message("system")
    count = 0
    for at, item in repeated(found, "input", ""):
        if isinstance(item, str):
            content.text(item)
            role = "user"
        elif isinstance(item, dict):
            role = _read_step(item, at, content)
        else:
            raise wrong(at, "must be a string or an object")
        content.end_message(role)
        count += 1
    return count


def _read_step(step: JSON, at: str, content: Content) -> str:
    """Read a step, a turn or a bare content; who said it."""
    found = _STEP.read(step, at)
    kind = fields.string(found, "type", at)
    if kind in _READERS:
        _read_content(step, at, content)
        return "user"
    is_known = False
    for key in ("content", "summary"):
        for here, item in repeated(found, key, at):
            is_known = True
            _read_item(item, here, content)
    for key in ("name", "arguments", "result"):
        if key in found:
            is_known = True
            _read_value(found[key], f"{at}/{key}", content)
    if not is_known and kind not in _SAY_NOTHING:
        content.text(compact_json(step))
    return fields.name(found, "role", at) or ("user" if kind in ("", "user_input") else "model")


def _read_item(item: Any, at: str, content: Content) -> None:
    if isinstance(item, str):
        content.text(item)
    elif isinstance(item, dict):
        _read_content(item, at, content)
    else:
        raise wrong(at, "must be a string or an object")


def _read_value(value: Any, at: str, content: Content) -> None:
    """What a tool was told, or said: text, or whatever its schema wants; media among it is media."""
    if isinstance(value, str):
        content.text(value)
    elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
        for position, item in enumerate(value):
            _read_content(item, f"{at}/{position}", content)
    else:
        content.text(compact_json(value))


def _read_content(item: JSON, at: str, content: Content) -> None:
    found = _CONTENT.read(item, at)
    kind = fields.string(found, "type", at)
    _READERS.get(kind, _read_unknown)(found if kind in _READERS else item, at, content)


def _read_text(found: JSON, at: str, content: Content) -> None:
    content.text(fields.string(found, "text", at))


def _read_media(found: JSON, at: str, content: Content) -> None:
    kind = fields.string(found, "type", at)
    read_media(f"{kind}/", fields.string(found, "data", at), content)


def _read_unknown(item: JSON, _at: str, content: Content) -> None:
    """A content of a kind we do not know is counted as the text it is written in."""
    content.text(compact_json(item))


_READERS: Mapping[str, Callable[[JSON, str, Content], None]] = MappingProxyType(
    {"text": _read_text, **dict.fromkeys(_MEDIA, _read_media)}
)


class _Tools:
    """The tools of one body: functions and servers by name, the provider's own by type."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.definitions: list[str] = []
        self.models: list[str] = []

    def read(self, found: JSON) -> None:
        """Gather them. Raises `RequestRefused` (400)."""
        for at, tool in messages(found, "tools", ""):
            known = _TOOL.read(tool, at)
            kind = fields.string(known, "type", at)
            self.names.append(fields.string(known, "name", at) or kind)
            if kind == "function":
                self.definitions.append(compact_json(tool))
            if "vertexRagStore" in known:
                self._ranking(known["vertexRagStore"], f"{at}/vertexRagStore")

    def _ranking(self, message: Any, at: str) -> None:
        """A retrieval may let a model of its own rank what it found."""
        if not isinstance(message, dict):
            raise wrong(at, "must be an object")
        for key, value in _RANKING.read(message, at).items():
            if key == "modelName":
                self.models.append(model_name(fields.name({key: value}, key, at)))
            else:
                self._ranking(value, f"{at}/{key}")
