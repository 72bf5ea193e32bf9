"""Writer's API: OpenAI's bodies on paths of its own, and completions that stream in its own words.

Floor 1, pure. Requests are read by `openai.chat` and `openai.completions`. Source: writer-sdk
`resources/chat` and `resources/completions`, recorded exchanges.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from extproc.formats.answers import Tally, reader
from extproc.formats.base import JSON, AnswerReader, Call, OutputCeiling, ParsedRequest, RequestLine
from extproc.formats.openai.answers import OpenAIAnswers
from extproc.formats.openai.chat import OpenAIChat
from extproc.formats.openai.completions import OpenAICompletions
from extproc.formats.openai.dialect import OpenAIFormat
from extproc.model import AIRequest

_CHAT = OpenAIChat()
_READERS: Mapping[str, OpenAIChat | OpenAICompletions] = MappingProxyType(
    {"chat": _CHAT, "text_completion": OpenAICompletions()}
)
_OPERATIONS: Mapping[str, str] = MappingProxyType({"/chat": "chat", "/completions": "text_completion"})


class Writer(OpenAIFormat):
    """The wire format `writer`."""

    name = "writer"
    provider = "writer"

    def claim(self, line: RequestLine) -> Call | None:
        """Chats and completions are POST; only a provider that speaks this format has these paths."""
        operation = _OPERATIONS.get(line.path) if line.method == "POST" else None
        return Call(api=self.name, operation=operation) if operation else None

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        return _READERS[call.operation].parse_request(body, call)

    def ask_for_usage(self, body: JSON, call: Call) -> JSON | None:
        """A streamed chat can be asked for usage; a completion cannot."""
        return _CHAT.ask_for_usage(body, call) if call.operation == "chat" else None

    def output_ceiling(self, body: JSON, call: Call) -> OutputCeiling | None:
        """As OpenAI's formats have it."""
        return _READERS[call.operation].output_ceiling(body, call)

    def answer_reader(self, _request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer."""
        return reader(_WriterAnswers(), headers)

    def is_usage_chunk(self, event_data: bytes) -> bool:
        """Whether a chunk is there only for its usage."""
        return _CHAT.is_usage_chunk(event_data)


class _WriterAnswers(OpenAIAnswers):
    """Reads OpenAI's answers, and events that hold a `value` and nothing else; no event ends those."""

    def _read(self, body: JSON, tally: Tally, part: str) -> None:
        super()._read(body, tally, part)
        tally.say("value", body.get("value"))
