"""Anthropic's text completions, the API before messages; its answers report no usage.

Floor 1, pure. Denials are `dialect`. Source: anthropic-sdk-python
`types/completion_create_params`, `types/completion`.
"""

from __future__ import annotations

from collections.abc import Mapping

from extproc.decision import Denial, LimitState
from extproc.formats import fields
from extproc.formats.answers import Tally, event_object, reader, word
from extproc.formats.anthropic import dialect as anthropic_dialect
from extproc.formats.base import JSON, AnswerReader, Call, OutputCeiling, ParsedRequest, Reply, RequestLine
from extproc.formats.content import Content
from extproc.formats.sse import SSEEvent
from extproc.formats.unasked import Unasked
from extproc.model import AIRequest

_PATH = "/complete"
_CEILING = "max_tokens_to_sample"


class AnthropicComplete(Unasked):
    """The wire format `anthropic_complete`."""

    name = "anthropic_complete"
    provider = "anthropic"

    def claim(self, line: RequestLine) -> Call | None:
        """One path, POST."""
        is_call = line.method == "POST" and line.path == _PATH
        return Call(api=self.name, operation="text_completion") if is_call else None

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a completion body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        if body.get("prompt") is None:
            raise fields.not_this_call("/prompt is required: this path takes a completion")
        content = Content()
        content.text(fields.string(body, "prompt"))
        content.end_message("")
        request = AIRequest(
            api=call.api,
            provider=call.provider,
            operation=call.operation,
            model=fields.model(body, call),
            models=fields.models(fields.models_of(body, call)),
            stream=fields.flag(body, "stream"),
            message_count=1,
            modalities=tuple(sorted(content.modalities)),
            end_user=fields.string(fields.mapping(body, "metadata"), "user_id", "/metadata"),
            temperature=fields.number(body, "temperature"),
            max_output_tokens=fields.count(body, _CEILING),
        )
        return ParsedRequest(request=request, prompt=content.prompt())

    def output_ceiling(self, _body: JSON, _call: Call) -> OutputCeiling | None:
        """One name."""
        return OutputCeiling(read=(_CEILING,), added=_CEILING)

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(_CompleteAnswers(), headers)

    def render_denial(self, denial: Denial, _provider: str = "") -> Reply:
        """An Anthropic error."""
        return anthropic_dialect.render_denial(denial)

    def limit_headers(
        self, limits: tuple[LimitState, ...], now_s: float, _provider: str = ""
    ) -> Mapping[str, str]:
        """`anthropic-ratelimit-*`."""
        return anthropic_dialect.limit_headers(limits, now_s)


class _CompleteAnswers:
    """Reads whole completions, and events that each hold some more of one."""

    def read_whole(self, body: JSON, tally: Tally) -> None:
        """Take a whole completion, or the error in its place."""
        if body.get("error"):
            tally.fail(body["error"])
        tally.name(model=body.get("model"), response_id=body.get("id"))
        tally.say("completion", body.get("completion"))
        if reason := word(body.get("stop_reason")):
            tally.finish_reasons[0] = reason

    def read_event(self, event: SSEEvent, tally: Tally) -> None:
        """Take one event; the last one says why it stopped."""
        self.read_whole(event_object(event.data), tally)
        tally.finished = bool(tally.finish_reasons)
