"""Replicate: predictions by version, by model or by deployment, whose input is whatever a model takes.

Floor 1, pure. An answer usually comes before the prediction ran; its output is then fetched by calls
that spend nothing, so a prediction is charged what was reserved unless its caller waited for it.
Sources: replicate-python `prediction`, `deployment`; Replicate's HTTP API reference; recorded exchanges.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from extproc.decision import Denial
from extproc.formats import fields
from extproc.formats.advice import denial_headers, facts, told
from extproc.formats.answers import Tally, as_object, event_object, reader, tokens, word
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
from extproc.formats.sse import SSEEvent
from extproc.formats.strict_json import compact_json
from extproc.formats.unasked import Unasked
from extproc.model import AIRequest, Usage

_LISTS = frozenset(
    {"account", "collections", "deployments", "hardware", "models", "predictions", "streams", "trainings"}
)
_PREDICTIONS = "predictions"
_NAMED = frozenset({"models", "deployments"})
_CEILINGS = ("max_tokens", "max_new_tokens", "max_completion_tokens")
_INPUT_KEYS = frozenset({"prompt", *_CEILINGS, "temperature", "num_outputs"})
_REFERENCES = ("http://", "https://", "data:")
_OVER = frozenset({"succeeded", "failed", "canceled"})


class Replicate(Unasked):
    """The wire format `replicate`."""

    name = "replicate"
    provider = "replicate"

    def claim(self, line: RequestLine) -> Call | None:
        """Making a prediction is POST; whatever is fetched is control."""
        # Without a path some part holds a slash, which a server may take for one more part.
        if not line.path or line.segments[:1] != ("v1",) or _LISTS.isdisjoint(line.segments[1:2]):
            return None
        noun, rest = line.segments[1], line.segments[2:]
        if line.method == "GET":
            return Call(api=self.name, operation=CONTROL, body=BodyKind.NONE)
        if line.method != "POST":
            return None
        if noun == _PREDICTIONS and not rest:
            return Call(api=self.name, operation="prediction")
        if noun in _NAMED and rest[2:] == (_PREDICTIONS,):
            return Call(api=self.name, operation="prediction", model="/".join(rest[:2]))
        is_cancel = noun == _PREDICTIONS and rest[1:] == ("cancel",)
        return Call(api=self.name, operation=CONTROL, body=BodyKind.NONE) if is_cancel else None

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        if body.get("input") is None:
            raise fields.not_this_call("/input is required: this path takes a prediction")
        given = fields.mapping(body, "input")
        fields.check_case(given, _INPUT_KEYS, "/input")
        version = fields.name(body, "version")
        if not (version or call.model):
            raise fields.wrong("/version", "is required and must be a string that is not empty")
        content = Content()
        _read_input(given, content)
        ceilings = [fields.count(given, key, "/input") for key in _CEILINGS]
        request = AIRequest(
            api=call.api,
            provider=call.provider,
            operation=call.operation,
            model=call.model or version,
            # `owner/name:version` names a model and one of its versions.
            models=fields.models([call.model, version, *version.split(":")]),
            stream=fields.flag(body, "stream"),
            choices=fields.count(given, "num_outputs", "/input") or 1,
            message_count=1,
            modalities=tuple(sorted(content.modalities)),
            temperature=fields.number(given, "temperature", "/input"),
            max_output_tokens=max((each for each in ceilings if each is not None), default=None),
        )
        return ParsedRequest(request=request, prompt=content.prompt())

    def output_ceiling(self, _body: JSON, _call: Call) -> OutputCeiling | None:
        """What its caller calls it; which name it has where none is there, only the model knows."""
        return OutputCeiling(read=tuple(f"input/{key}" for key in _CEILINGS))

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(_ReplicateAnswers(), headers)

    def render_denial(self, denial: Denial, _provider: str = "") -> Reply:
        """A problem as Replicate writes it."""
        problem = {"title": str(denial.reason), "detail": told(denial), "status": denial.status}
        body = {**problem, **facts(denial)}
        return Reply(status=denial.status, headers=denial_headers(denial), body=json.dumps(body).encode())


def _read_input(given: JSON, content: Content) -> None:
    """Every text may be a prompt, every reference a file; which is which only the model knows."""
    for value in given.values():
        if isinstance(value, str) and value.startswith(_REFERENCES):
            content.other("file")
        elif isinstance(value, str):
            content.text(value)
        elif isinstance(value, list | dict):
            content.text(compact_json(value))
    content.end_message("")


class _ReplicateAnswers:
    """Reads a prediction, if it is over; before that nobody knows its cost."""

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a prediction as it is now, or the error in its place."""
        if body.get("error"):
            tally.fail(body["error"])
        tally.name(model=body.get("model"), response_id=body.get("id"))
        status = word(body.get("status"))
        tally.is_legible = tally.finished = status in _OVER
        if not tally.finished:
            return
        tally.finish_reasons[0] = status
        output = body.get("output")
        for text in output if isinstance(output, list) else [output]:
            if isinstance(text, str) and not text.startswith(_REFERENCES):
                tally.say("output", text)
        tally.usage = _read_metrics(as_object(body.get("metrics")))

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Output streams from another address; an event here is read as a prediction."""
        self.read_whole(event_object(event.data), tally)


def _read_metrics(metrics: JSON) -> Usage | None:
    """Only language models report tokens; others are billed by the second."""
    given, generated = tokens(metrics.get("input_token_count")), tokens(metrics.get("output_token_count"))
    if given is None and generated is None:
        return None
    return Usage(input_tokens=given, output_tokens=generated)
