"""Anthropic's message batches: many messages in one request, answered hours later.

Floor 1, pure. Each request is read by `anthropic_messages`. A batch is charged what was reserved: its
answer says only that it was taken, and its results come through calls that spend nothing.
Source: anthropic-sdk-python `types/messages/batch_create_params`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from extproc.decision import Denial, LimitState
from extproc.errors import RequestRefused
from extproc.formats import fields
from extproc.formats.answers import reader
from extproc.formats.anthropic import dialect as anthropic_dialect
from extproc.formats.anthropic.messages import CEILING, AnthropicMessages
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
from extproc.formats.plain_answers import Receipts
from extproc.formats.strict_json import KNOWN_FIELDS
from extproc.formats.unasked import Unasked
from extproc.model import AIRequest, Prompt

# The API's own ceiling.
MAX_REQUESTS = 100_000

_BATCHES = ("messages", "batches")
_ENTRY_KEYS = frozenset({"custom_id", "params"})
# What may follow a batch's id, and how it is asked for; nothing: the batch itself.
_OF_ONE = frozenset({("GET", ""), ("DELETE", ""), ("GET", "results"), ("POST", "cancel")})

_MESSAGES = AnthropicMessages()


class AnthropicBatches(Unasked):
    """The wire format `anthropic_batches`."""

    name = "anthropic_batches"
    provider = "anthropic"

    def claim(self, line: RequestLine) -> Call | None:
        """Making a batch spends; looking at one, ending it and fetching its results do not."""
        # Without a path some part holds a slash, which a server may take for one more part.
        if not line.path or line.segments[:2] != _BATCHES:
            return None
        rest = line.segments[2:]
        if not rest and line.method == "POST":
            return Call(api=self.name, operation="batch")
        is_list = not rest and line.method == "GET"
        is_one = len(rest) in (1, 2) and (line.method, "".join(rest[1:])) in _OF_ONE
        if is_list or is_one:
            return Call(api=self.name, operation=CONTROL, body=BodyKind.NONE)
        return None

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read every request. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        if body.get("requests") is None:
            raise fields.not_this_call("/requests is required: this path takes a batch of messages")
        found = list(_read_requests(body, call))
        if not found:
            raise fields.wrong("/requests", "must not be empty")
        requests = [each.request for each in found]
        ceilings = [each.max_output_tokens for each in requests]
        declared = [ceiling for ceiling in ceilings if ceiling is not None]
        request = AIRequest(
            api=call.api,
            provider=call.provider,
            operation=call.operation,
            model=requests[0].model,
            models=fields.models([model for each in requests for model in each.models]),
            choices=len(requests),
            message_count=len(requests),
            tools=fields.tools(list({tool: None for each in requests for tool in each.tools}), "/requests"),
            modalities=tuple(sorted({modality for each in requests for modality in each.modalities})),
            has_state=any(each.has_state for each in requests),
            # What one leaves open, the ceiling of the model closes, for all of them.
            max_output_tokens=max(declared) if len(declared) == len(ceilings) else None,
        )
        return ParsedRequest(request=request, prompt=_joined([each.prompt for each in found]))

    def output_ceiling(self, _body: JSON, _call: Call) -> OutputCeiling | None:
        """That of each message."""
        return replace(CEILING, each="requests/*/params")

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(Receipts(), headers)

    def render_denial(self, denial: Denial, _provider: str = "") -> Reply:
        """An Anthropic error."""
        return anthropic_dialect.render_denial(denial)

    def limit_headers(
        self, limits: tuple[LimitState, ...], now_s: float, _provider: str = ""
    ) -> Mapping[str, str]:
        """`anthropic-ratelimit-*`."""
        return anthropic_dialect.limit_headers(limits, now_s)


def _read_requests(body: JSON, call: Call) -> Iterator[ParsedRequest]:
    for number, (at, entry) in enumerate(fields.objects(body, "requests")):
        if number == MAX_REQUESTS:
            raise fields.wrong("/requests", f"must hold at most {MAX_REQUESTS} requests")
        fields.check_case(entry, _ENTRY_KEYS, at)
        parameters = fields.mapping(entry, "params", at)
        fields.check_case(parameters, KNOWN_FIELDS, f"{at}/params")
        try:
            yield _MESSAGES.parse_request(parameters, call)
        except RequestRefused as refused:
            message = f"{at}/params: {refused.message}"
            raise RequestRefused(status=refused.status, code=refused.code, message=message) from None


def _joined(prompts: list[Prompt]) -> Prompt:
    return Prompt(
        messages=tuple(message for prompt in prompts for message in prompt.messages),
        tools=tuple(tool for prompt in prompts for tool in prompt.tools),
        images=tuple(image for prompt in prompts for image in prompt.images),
        media=tuple(media for prompt in prompts for media in prompt.media),
    )
