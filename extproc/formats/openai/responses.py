"""OpenAI Responses: recognising its calls and reading their bodies.

Floor 1, pure. Items of the input are `items`, answers `responses_answers`, denials
`dialect`. Source: openai-python `types/responses/response_create_params`.
"""

from __future__ import annotations

from collections.abc import Mapping
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
from extproc.formats.openai import request as openai_request
from extproc.formats.openai.dialect import OpenAIFormat
from extproc.formats.openai.items import Input
from extproc.formats.openai.responses_answers import OpenAIResponsesAnswers
from extproc.model import AIRequest, nothing

_CONVERSATIONS = "conversations"
_ROOTS = frozenset({"responses", _CONVERSATIONS})
_CONVERSATION_KEYS = frozenset({"items", "metadata"})
# Under this name a call says which it is; no parameter of the URL can take its place.
_KEPT, _ONE, _NEW = "conversation", "one", "new"
# As a parameter of the URL it would only have a request refused that is to be limited.
_COMPACTS = "compacts"
_COMPACT_PATH = "/responses/compact"
_CEILING = "max_output_tokens"
# What POST means, with `*` for an identifier; `input_tokens` counts and spends nothing.
_POSTS: Mapping[tuple[str, ...], tuple[str, BodyKind]] = MappingProxyType(
    {
        ("responses",): ("chat", BodyKind.JSON),
        ("responses", "compact"): ("chat", BodyKind.JSON),
        ("responses", "input_tokens"): (CONTROL, BodyKind.JSON),
        ("responses", "*", "cancel"): (CONTROL, BodyKind.OPAQUE),
        ("conversations",): (CONTROL, BodyKind.JSON),
        ("conversations", "*"): (CONTROL, BodyKind.JSON),
        ("conversations", "*", "items"): (CONTROL, BodyKind.JSON),
    }
)
# What is stored is read and deleted for nothing, also where an answer is streamed a second time.
_STORED_METHODS = frozenset({"GET", "DELETE"})
_TEXT_KEYS = frozenset({"format"})


class OpenAIResponses(OpenAIFormat):
    """The wire format `openai_responses`."""

    name = "openai_responses"

    def claim(self, line: RequestLine) -> Call | None:
        """Creating and compacting spend; whatever touches only what is stored is control."""
        # Without a path some part holds a slash, which servers may take for one more part.
        if not line.path or line.segments[0] not in _ROOTS:
            return None
        if line.method in _STORED_METHODS and line.path != "/responses":
            return Call(api=self.name, operation=CONTROL, body=BodyKind.NONE)
        shape = (line.segments[0], "*", *line.segments[2:])
        posted = _POSTS.get(line.segments) or _POSTS.get(shape)
        if line.method != "POST" or posted is None:
            return None
        operation, body = posted
        return Call(api=self.name, operation=operation, body=body, query=_marks(line))

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        _check_conversation(body, call)
        found = Input()
        given = body.get("input")
        if isinstance(given, str):
            found.read_text(given)
        elif given is None or isinstance(given, list):
            found.read_items(body, "input")
        else:
            raise fields.wrong("/input", "must be a string or a list of items")
        found.read_items(body, "items")  # of a conversation
        message_count = found.message_count
        found.read_instructions(body)
        has_prompt = found.read_prompt(body)
        if not (found.is_anything or _continues(body) or call.operation == CONTROL):
            raise fields.not_this_call("/input is required: this path takes a response to create")
        _read_format(body, found)
        found.tools.read(body)
        models = openai_request.models(body, call, *found.tools.models, openai_request.moderator(body))
        searches = openai_request.read_searches(body, models, found.content)
        request = AIRequest(
            api=call.api,
            provider=call.provider,
            operation=call.operation,
            # A stored prompt brings its own model, and so may a router.
            model=_model(body, call, is_required=not has_prompt),
            models=models,
            stream=fields.flag(body, "stream"),
            message_count=message_count,
            tools=fields.tools([*found.tools.names, *searches], "/tools"),
            modalities=tuple(sorted(found.content.modalities)),
            end_user=openai_request.end_user(body),
            temperature=fields.number(body, "temperature"),
            has_state=found.has_state or openai_request.has_state(body, models),
            max_output_tokens=fields.count(body, _CEILING),
        )
        return ParsedRequest(request=request, prompt=found.content.prompt(tuple(found.tools.definitions)))

    def output_ceiling(self, _body: JSON, call: Call) -> OutputCeiling | None:
        """None for what is compacted: it is as long as it is."""
        if _COMPACTS in call.query:
            return None
        return OutputCeiling(read=(_CEILING,), added=_CEILING)

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(OpenAIResponsesAnswers(), headers)


def _marks(line: RequestLine) -> Mapping[str, str]:
    """What the path says that a body cannot."""
    if line.segments[0] == _CONVERSATIONS:
        return {_KEPT: _ONE if line.segments[1:] else _NEW}
    return {_COMPACTS: "true"} if line.path == _COMPACT_PATH else nothing()


def _check_conversation(body: JSON, call: Call) -> None:
    """Mistral's conversations have the same paths, and spend: OpenAI's take these fields and no other."""
    kept = call.query.get(_KEPT)
    if call.operation != CONTROL or kept is None:
        return
    # One that is there is asked for nothing without them; a new one may be empty.
    is_empty = kept == _ONE and all(value is None for value in body.values())
    if is_empty or not body.keys() <= _CONVERSATION_KEYS:
        raise fields.not_this_call(
            "A conversation takes /items and /metadata alone: with others it may spend"
        )


def _model(body: JSON, call: Call, *, is_required: bool) -> str:
    if is_required and call.operation != CONTROL:
        return fields.model(body, call)
    return call.model or fields.name(body, "model")


def _continues(body: JSON) -> bool:
    return any(body.get(key) is not None for key in ("previous_response_id", "conversation"))


def _read_format(body: JSON, found: Input) -> None:
    text = fields.mapping(body, "text")
    fields.check_case(text, _TEXT_KEYS, "/text")
    wanted = fields.mapping(text, "format", "/text")
    if fields.string(wanted, "type", "/text/format") == "json_schema":
        openai_request.read_schema(wanted, "/text/format", found.content)
