"""Text-generation-inference: Hugging Face's server, also behind SageMaker endpoints.

Floor 1, pure. Sources: text-generation-inference's OpenAPI document (3.x) and router, SageMaker
Runtime's service model (2017-05-13), recorded exchanges.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from extproc.decision import Denial
from extproc.formats import fields
from extproc.formats.advice import told
from extproc.formats.answers import reader
from extproc.formats.aws import bedrock_dialect
from extproc.formats.base import JSON, AnswerReader, Call, OutputCeiling, ParsedRequest, Reply, RequestLine
from extproc.formats.content import Content
from extproc.formats.images import size_of_url
from extproc.formats.tgi_answers import TGIAnswers
from extproc.formats.unasked import Unasked
from extproc.model import AIRequest

# None: the body's `stream` decides.
_PATHS: Mapping[str, bool | None] = MappingProxyType(
    {"/": None, "/generate": False, "/generate_stream": True}
)
# SageMaker's, which name the endpoint.
_INVOCATIONS: Mapping[str, bool | None] = MappingProxyType(
    {"invocations": None, "invocations-response-stream": True}
)
_ENDPOINT = re.compile(r"[A-Za-z0-9-]{1,63}")
_ENDPOINT_SEGMENTS = 3

_PARAMETER_KEYS = frozenset({"max_new_tokens", "best_of", "temperature", "adapter_id"})
_MESSAGE_KEYS = frozenset({"role", "content"})
# How multimodal models take images; to others it is text like any.
_IMAGE_START, _IMAGE_END = "![](", ")"
# An endpoint of several models runs the one that a header names.
_TARGETS = (
    "x-amzn-sagemaker-target-model",
    "x-amzn-sagemaker-inference-component",
    "x-amzn-sagemaker-target-container-hostname",
    "x-amzn-sagemaker-target-variant",
)
# What servers behind the same paths read in place of `inputs`.
_OTHERS_INPUTS = ("messages", "prompt", "input", "text", "input_ids")

# What the server's own client tells errors apart by.
_ERROR_TYPES: Mapping[int, str] = MappingProxyType({429: "overloaded"})
_SERVER_ERRORS = 500


class TGI(Unasked):
    """The wire format `tgi`; the last event tells what was generated, and SageMaker's bodies are signed."""

    name = "tgi"
    provider = "hugging_face"

    def claim(self, line: RequestLine) -> Call | None:
        """Generation on the server's own paths, and what SageMaker's endpoints are invoked with.

        The bare base path is claimed only where a provider is said to listen there: anything may.
        """
        if line.method != "POST" or (line.path == "/" and not line.provider):
            return None
        if line.path in _PATHS:
            return Call(api=self.name, operation="text_completion", stream=_PATHS[line.path])
        if len(line.segments) != _ENDPOINT_SEGMENTS or line.segments[0] != "endpoints":
            return None
        _, endpoint, action = line.segments
        if action not in _INVOCATIONS or not _ENDPOINT.fullmatch(endpoint):
            return None
        return Call(
            api=self.name,
            operation="text_completion",
            provider="aws.sagemaker",
            model=endpoint.lower(),
            stream=_INVOCATIONS[action],
            # All of them always, so that no parameter of the URL can pass for a header.
            query={name: line.headers.get(name, "") for name in _TARGETS},
        )

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        if body.get("inputs") is None:
            raise fields.not_this_call("/inputs is required: this path takes a text to go on with")
        for key in _OTHERS_INPUTS:
            if body.get(key) is not None:
                raise fields.wrong(f"/{key}", "must not be given beside /inputs: some servers read it alone")
        content = Content()
        count = _read_inputs(body["inputs"], content)
        parameters = fields.mapping(body, "parameters")
        fields.check_case(parameters, _PARAMETER_KEYS, "/parameters")
        adapter = fields.name(parameters, "adapter_id", "/parameters")
        streams = fields.flag(body, "stream")
        request = AIRequest(
            api=call.api,
            provider=call.provider,
            operation=call.operation,
            model=call.model,
            models=fields.models([*fields.models_of(body, call), adapter, *_targets(call)]),
            stream=streams if call.stream is None else call.stream,
            choices=count * (fields.count(parameters, "best_of", "/parameters") or 1),
            message_count=count,
            modalities=tuple(sorted(content.modalities)),
            temperature=fields.number(parameters, "temperature", "/parameters"),
            max_output_tokens=fields.count(parameters, "max_new_tokens", "/parameters"),
        )
        return ParsedRequest(request=request, prompt=content.prompt())

    def output_ceiling(self, _body: JSON, _call: Call) -> OutputCeiling | None:
        """One name."""
        return OutputCeiling(read=("parameters/max_new_tokens",), added="parameters/max_new_tokens")

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(TGIAnswers(headers), headers)

    def render_denial(self, denial: Denial, _provider: str = "") -> Reply:
        """An error of the server and of AWS in one: their clients look for different members."""
        error_type = _ERROR_TYPES.get(
            denial.status, "generation" if denial.status >= _SERVER_ERRORS else "validation"
        )
        aws = bedrock_dialect.render_denial(denial)
        body = {"error": told(denial), "error_type": error_type, **json.loads(aws.body)}
        return Reply(status=aws.status, headers=aws.headers, body=json.dumps(body).encode())


def _targets(call: Call) -> list[str]:
    """The models that headers name; only the call of an endpoint holds what they say."""
    return [fields.name(call.query, name) for name in _TARGETS] if call.model else []


def _read_inputs(inputs: Any, content: Content) -> int:
    """How many inputs there are, each of which is answered: texts, or dialogs of messages."""
    if isinstance(inputs, str):
        _read_text(inputs, content)
        return 1
    if not isinstance(inputs, list) or not inputs:
        raise fields.wrong("/inputs", "must be a string or a list that is not empty")
    for position, each in enumerate(inputs):
        if isinstance(each, str):
            _read_text(each, content)
        elif isinstance(each, list):
            _read_dialog(each, str(position), content)
        else:
            raise fields.wrong(f"/inputs/{position}", "must be a string or a list of messages")
    return len(inputs)


def _read_text(text: str, content: Content) -> None:
    content.text(text)
    for url in _image_urls(text):
        content.image(size_of_url(url))
    content.end_message("user")


def _image_urls(text: str) -> Iterator[str]:
    start = text.find(_IMAGE_START)
    while start >= 0:
        start += len(_IMAGE_START)
        end = text.find(_IMAGE_END, start)
        if end < 0:
            # Nor does any other beginning have an end: looking for each would take for ever.
            return
        yield text[start:end]
        start = text.find(_IMAGE_START, end)


def _read_dialog(messages: list[Any], position: str, content: Content) -> None:
    for at, message in fields.objects({position: messages}, position, "/inputs"):
        fields.check_case(message, _MESSAGE_KEYS, at)
        content.text(fields.string(message, "content", at))
        content.end_message(fields.required_name(message, "role", at))
