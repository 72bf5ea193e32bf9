"""The file of a batch: one request a line, each read as if it had been sent by itself.

Floor 1, pure. Nobody sees these requests again before they run, so what one of them may not do
refuses the file. Source: OpenAI's and Azure's batch guides; openai-python `types/batch_create_params`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from extproc.errors import RequestRefused
from extproc.formats import fields
from extproc.formats.base import BodyKind, Call, ParsedRequest, RequestLine, WireFormat
from extproc.formats.strict_json import check_body_keys, parse_json
from extproc.model import AIRequest, Prompt

# OpenAI's own bound.
MAX_LINES = 50_000

_LINE_KEYS = frozenset({"custom_id", "method", "url", "body"})
_BASE_PATH = "/v1"
_NO_OUTPUT = frozenset({"embeddings", "moderation"})
# What batches are made of; no batch in a batch, no session, no run.
_OPERATIONS = _NO_OUTPUT | {"chat", "image_generation", "text_completion"}


def read(content: bytes, call: Call, formats: Mapping[str, WireFormat]) -> ParsedRequest:
    """All requests of a file as one, read by whichever of `formats` claims each line's URL.

    Raises `RequestRefused` naming the line.
    """
    batch = _Batch(call, formats)
    for number, line in enumerate(io.BytesIO(content), 1):
        if line.isspace():
            continue
        if len(batch.requests) == MAX_LINES:
            raise fields.wrong("/file", f"has more than {MAX_LINES} requests")
        try:
            batch.add(line)
        except RequestRefused as refused:
            raise RequestRefused(
                status=refused.status, code=refused.code, message=f"Line {number} of /file: {refused.message}"
            ) from None
    if not batch.requests:
        raise fields.not_this_call("/file must hold the requests of a batch, one a line")
    return batch.parsed()


@dataclass(slots=True)
class _Batch:
    call: Call
    formats: Mapping[str, WireFormat]
    requests: list[AIRequest] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    models: dict[str, None] = field(default_factory=dict)
    _calls: dict[str, Call] = field(default_factory=dict)

    def add(self, line: bytes) -> None:
        wrapped = parse_json(line)
        fields.check_case(wrapped, _LINE_KEYS, "/")
        if fields.string(wrapped, "method") != "POST":
            raise fields.wrong("/method", "must be POST")
        body = fields.mapping(wrapped, "body")
        check_body_keys(body)
        call = self._call(fields.string(wrapped, "url"))
        parsed = self.formats[call.api].parse_request(body, call)
        self.models |= dict.fromkeys(parsed.request.models)
        fields.models(list(self.models))
        self.requests.append(parsed.request)
        self.prompts.append(parsed.prompt)

    def _call(self, url: str) -> Call:
        call = self._calls.get(url)
        if call is None:
            call = self._calls[url] = _claimed(url, self.call, self.formats)
        return call

    def parsed(self) -> ParsedRequest:
        requests, prompts = self.requests, self.prompts
        ceilings = [_ceiling(request) for request in requests]
        declared = [ceiling for ceiling in ceilings if ceiling is not None]
        request = AIRequest(
            api=self.call.api,
            provider=self.call.provider,
            operation=self.call.operation,
            model=requests[0].model,
            models=fields.models(list(self.models)),
            choices=sum(request.choices for request in requests),
            message_count=len(requests),
            tools=fields.tools(
                list(dict.fromkeys(tool for request in requests for tool in request.tools)), "/file"
            ),
            modalities=tuple(sorted({kind for request in requests for kind in request.modalities})),
            has_state=any(request.has_state for request in requests),
            max_output_tokens=max(declared) if len(declared) == len(ceilings) else None,
        )
        prompt = Prompt(
            messages=tuple(message for prompt in prompts for message in prompt.messages),
            tools=tuple(tool for prompt in prompts for tool in prompt.tools),
            images=tuple(image for prompt in prompts for image in prompt.images),
            media=tuple(media for prompt in prompts for media in prompt.media),
            tokens=sum(prompt.tokens for prompt in prompts),
        )
        return ParsedRequest(request=request, prompt=prompt)


def _ceiling(request: AIRequest) -> int | None:
    return 0 if request.operation in _NO_OUTPUT else request.max_output_tokens


def _claimed(url: str, batch: Call, formats: Mapping[str, WireFormat]) -> Call:
    """Who reads a line's body; formats match paths exactly, so no odd spelling of a URL is anybody's."""
    path = url.removeprefix(_BASE_PATH)
    line = RequestLine(method="POST", path=path, segments=tuple(path.split("/")[1:]), provider=batch.provider)
    for wire_format in formats.values():
        call = wire_format.claim(line)
        if call and call.body is BodyKind.JSON and call.operation in _OPERATIONS:
            return replace(call, provider=batch.provider or call.provider or wire_format.provider)
    raise fields.not_this_call("/url is no path whose requests are read here")
