"""vLLM's paths outside `/v1`: the same inference under other names, and calls that look at the server.

Floor 1, pure. Bodies are read by OpenAI's formats. Sources: vLLM's `entrypoints/serve`,
`entrypoints/sagemaker`, and its security guide: an API key guards none of these paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from extproc.formats import fields
from extproc.formats.answers import Tally, as_objects, reader
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
from extproc.formats.openai.answers import InputAnswers, OpenAIAnswers
from extproc.formats.openai.chat import OpenAIChat
from extproc.formats.openai.completions import OpenAICompletions
from extproc.formats.openai.dialect import OpenAIFormat
from extproc.formats.openai.embeddings import OpenAIEmbeddings
from extproc.model import AIRequest, Prompt, Usage

_CHAT = OpenAIChat()
_COMPLETIONS = OpenAICompletions()
_EMBEDDINGS = OpenAIEmbeddings()

# What a path takes until the body says more: SageMaker's takes anything.
_OPERATIONS: Mapping[str, str] = MappingProxyType(
    {
        "/invocations": "chat",
        "/inference/v1/generate": "text_completion",
        "/pooling": "embeddings",
        "/classify": "embeddings",
        "/tokenize": CONTROL,
        "/detokenize": CONTROL,
    }
)
_LOOKS = frozenset({"/health", "/version", "/ping", "/load"})
# The field that decides what an invocation is, and the operation that it then is.
_INVOCATIONS: Mapping[str, tuple[str, OpenAIChat | OpenAICompletions | OpenAIEmbeddings]] = MappingProxyType(
    {
        "messages": ("chat", _CHAT),
        "prompt": ("text_completion", _COMPLETIONS),
        "input": ("embeddings", _EMBEDDINGS),
    }
)
_TOKENIZABLE = ("prompt", "messages", "tokens")
_SAMPLING_KEYS = frozenset({"max_tokens", "n", "temperature"})


class VLLM(OpenAIFormat):
    """The wire format `vllm`."""

    name = "vllm"
    provider = "vllm"

    def claim(self, line: RequestLine) -> Call | None:
        """Inference is POST; SageMaker's liveness check may be either."""
        if line.method == "POST" and (operation := _OPERATIONS.get(line.path)):
            return Call(api=self.name, operation=operation)
        is_look = line.path in _LOOKS and (line.method == "GET" or line.path == "/ping")
        return Call(api=self.name, operation=CONTROL, body=BodyKind.NONE) if is_look else None

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        if call.operation == "chat":
            return _read_invocation(body, call)
        if call.operation == "embeddings":
            return _EMBEDDINGS.parse_request(body, call)
        return _read_generate(body, call) if call.operation == "text_completion" else _read_names(body, call)

    def ask_for_usage(self, body: JSON, call: Call) -> JSON | None:
        """A streamed invocation can be asked for usage as any chat or completion."""
        generates = body.get("input") is None and body.get("token_ids") is None
        return _CHAT.ask_for_usage(body, call) if generates else None

    def output_ceiling(self, body: JSON, call: Call) -> OutputCeiling | None:
        """As OpenAI's formats have it, and of what takes tokens."""
        if call.operation == "text_completion":
            return OutputCeiling(read=("sampling_params/max_tokens",), added="sampling_params/max_tokens")
        found = (_INVOCATIONS[key][1] for key in _INVOCATIONS if body.get(key) is not None)
        wire_format = next(found, _EMBEDDINGS)
        return wire_format.output_ceiling(body, call)

    def answer_reader(self, request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(InputAnswers() if request.operation == "embeddings" else _VLLMAnswers(), headers)

    def is_usage_chunk(self, event_data: bytes) -> bool:
        """Whether a chunk is there only for its usage."""
        return _CHAT.is_usage_chunk(event_data)


def _read_invocation(body: JSON, call: Call) -> ParsedRequest:
    found = [key for key in _INVOCATIONS if body.get(key) is not None]
    if len(found) != 1:
        wanted = ", ".join(f"/{key}" for key in _INVOCATIONS)
        raise fields.not_this_call(f"Exactly one of {wanted} must say what this invocation is")
    operation, wire_format = _INVOCATIONS[found[0]]
    return wire_format.parse_request(body, replace(call, operation=operation))


def _read_generate(body: JSON, call: Call) -> ParsedRequest:
    """Token ids in, token ids out; media come as features that were computed elsewhere."""
    ids = body.get("token_ids")
    if ids is None:
        raise fields.not_this_call("/token_ids is required: this path takes tokens")
    if not isinstance(ids, list) or not all(type(token) is int for token in ids):
        raise fields.wrong("/token_ids", "must be a list of whole numbers")
    content = Content()
    content.ids(len(ids))
    if body.get("features") is not None:
        content.other("file")
    at = "/sampling_params"
    parameters = fields.mapping(body, "sampling_params")
    fields.check_case(parameters, _SAMPLING_KEYS, at)
    request = AIRequest(
        api=call.api,
        provider=call.provider,
        operation=call.operation,
        model=fields.model(body, call),
        models=fields.models(fields.models_of(body, call)),
        stream=fields.flag(body, "stream"),
        choices=fields.count(parameters, "n", at) or 1,
        message_count=1,
        modalities=tuple(sorted(content.modalities)),
        temperature=fields.number(parameters, "temperature", at),
        max_output_tokens=fields.count(parameters, "max_tokens", at),
    )
    return ParsedRequest(request=request, prompt=content.prompt())


def _read_names(body: JSON, call: Call) -> ParsedRequest:
    """The model is optional where nothing is spent."""
    if all(body.get(key) is None for key in _TOKENIZABLE):
        wanted = ", ".join(f"/{key}" for key in _TOKENIZABLE)
        raise fields.not_this_call(f"One of {wanted} is required for this path")
    model = fields.name(body, "model")
    models = fields.models(fields.models_of(body, call))
    request = AIRequest(api=call.api, provider=call.provider, operation=CONTROL, model=model, models=models)
    return ParsedRequest(request=request, prompt=Prompt())


class _VLLMAnswers(OpenAIAnswers):
    """Reads OpenAI's answers, and those of token ids, which report no usage but can be counted."""

    def __init__(self) -> None:
        self._generated = 0

    def _read(self, body: JSON, tally: Tally, part: str) -> None:
        super()._read(body, tally, part)
        self._count(body, tally)

    def _count(self, body: JSON, tally: Tally) -> None:
        for choice in as_objects(body.get("choices")):
            ids = choice.get("token_ids")
            self._generated += len(ids) if isinstance(ids, list) else 0
        is_reported = tally.usage is not None and tally.usage.input_tokens is not None
        if self._generated and not is_reported:
            tally.usage = Usage(output_tokens=self._generated)
