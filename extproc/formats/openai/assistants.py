"""OpenAI Assistants: threads, their runs, and the stores of files they search.

Floor 1, pure. Only runs spend. Answers are `assistants_answers`, denials `dialect`.
Source: openai-python `types/beta`, `resources/beta`, `resources/vector_stores`.
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
from extproc.formats.content import Content
from extproc.formats.openai import request as openai_request
from extproc.formats.openai.assistants_answers import OpenAIAssistantsAnswers
from extproc.formats.openai.dialect import OpenAIFormat
from extproc.formats.openai.tools import Tools
from extproc.model import AIRequest

_RUN = "invoke_agent"
_ROOTS = frozenset({"assistants", "threads", "vector_stores"})
# What POST means, with `*` for an identifier.
_POSTS: Mapping[tuple[str, ...], tuple[str, BodyKind]] = MappingProxyType(
    {
        ("threads", "runs"): (_RUN, BodyKind.JSON),
        ("threads", "*", "runs"): (_RUN, BodyKind.JSON),
        ("threads", "*", "runs", "*", "submit_tool_outputs"): (_RUN, BodyKind.JSON),
        ("threads", "*", "runs", "*"): (CONTROL, BodyKind.JSON),
        ("threads", "*", "runs", "*", "cancel"): (CONTROL, BodyKind.OPAQUE),
        ("threads",): (CONTROL, BodyKind.JSON),
        ("threads", "*"): (CONTROL, BodyKind.JSON),
        ("threads", "*", "messages"): (CONTROL, BodyKind.JSON),
        ("threads", "*", "messages", "*"): (CONTROL, BodyKind.JSON),
        ("assistants",): (CONTROL, BodyKind.JSON),
        ("assistants", "*"): (CONTROL, BodyKind.JSON),
        # They cost by size and day, not by token.
        ("vector_stores",): (CONTROL, BodyKind.OPAQUE),
        ("vector_stores", "*"): (CONTROL, BodyKind.OPAQUE),
        ("vector_stores", "*", "search"): (CONTROL, BodyKind.OPAQUE),
        ("vector_stores", "*", "files"): (CONTROL, BodyKind.OPAQUE),
        ("vector_stores", "*", "files", "*"): (CONTROL, BodyKind.OPAQUE),
        ("vector_stores", "*", "file_batches"): (CONTROL, BodyKind.OPAQUE),
        ("vector_stores", "*", "file_batches", "*", "cancel"): (CONTROL, BodyKind.OPAQUE),
    }
)
_STORED_METHODS = frozenset({"GET", "DELETE"})
_CEILING = "max_completion_tokens"


class OpenAIAssistants(OpenAIFormat):
    """The wire format `openai_assistants`."""

    name = "openai_assistants"

    def claim(self, line: RequestLine) -> Call | None:
        """Starting a run, or going on with one, spends; everything else is control."""
        # Without a path some part holds a slash, which servers may take for one more part.
        if not line.path or line.segments[0] not in _ROOTS:
            return None
        if line.method in _STORED_METHODS:
            return Call(api=self.name, operation=CONTROL, body=BodyKind.NONE)
        posted = _POSTS.get(line.segments) or _POSTS.get(_shape(line.segments))
        if line.method != "POST" or posted is None:
            return None
        operation, body = posted
        return Call(api=self.name, operation=operation, body=body)

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body; a run without a model uses its assistant's, which nobody here knows.

        Raises `RequestRefused` (400) naming the JSON pointer that is wrong.
        """
        is_run = call.operation == _RUN
        if is_run and body.get("assistant_id") is None and body.get("tool_outputs") is None:
            raise fields.not_this_call("/assistant_id or /tool_outputs is required: this path takes a run")
        content, tools = Content(), Tools()
        message_count = _read_content(body, content)
        tools.read(body)
        models = openai_request.models(body, call)
        request = AIRequest(
            api=call.api,
            provider=call.provider,
            operation=call.operation,
            model=call.model or fields.name(body, "model"),
            models=models,
            stream=fields.flag(body, "stream"),
            message_count=message_count,
            tools=fields.tools(tools.names, "/tools"),
            modalities=tuple(sorted(content.modalities)),
            temperature=fields.number(body, "temperature"),
            # A run reads its thread, which is kept by the provider.
            has_state=is_run,
            max_output_tokens=fields.count(body, _CEILING),
        )
        return ParsedRequest(request=request, prompt=content.prompt(tuple(tools.definitions)))

    def output_ceiling(self, body: JSON, _call: Call) -> OutputCeiling | None:
        """That of the whole run, which only its beginning may say."""
        begins = body.get("assistant_id") is not None
        return OutputCeiling(read=(_CEILING,), added=_CEILING) if begins else None

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(OpenAIAssistantsAnswers(), headers)


def _shape(segments: tuple[str, ...]) -> tuple[str, ...]:
    """A path with its identifiers left out: words and identifiers take turns."""
    return tuple(part if place % 2 == 0 else "*" for place, part in enumerate(segments))


def _read_content(body: JSON, content: Content) -> int:
    """Whatever the model will read of this body: how many messages there are."""
    for key in ("instructions", "additional_instructions"):
        if body.get(key) is not None:
            content.text(fields.string(body, key))
            content.end_message("system")
    count = openai_request.read_messages(body, content, "additional_messages")
    count += openai_request.read_messages(body, content)
    count += openai_request.read_messages(fields.mapping(body, "thread"), content, at="/thread")
    for at, output in fields.objects(body, "tool_outputs"):
        content.text(fields.string(output, "output", at))
        content.end_message("tool")
        count += 1
    if body.get("content") is None:
        return count
    openai_request.read_parts(body, "content", "", content)
    content.end_message(fields.name(body, "role") or "user")
    return count + 1
