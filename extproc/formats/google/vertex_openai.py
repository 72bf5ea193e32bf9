"""Models of other publishers on Vertex AI, such as Mistral's: chat bodies whose model is in the path.

Floor 1, pure. Bodies and answers are those of OpenAI's chat. Source: Vertex AI's guides to partner
models, read 2026-11.
"""

from __future__ import annotations

from extproc.formats.base import JSON, Call, ParsedRequest, RequestLine
from extproc.formats.google import line as google_line
from extproc.formats.google.vertex_anthropic import RAW_METHODS, check_stream, published
from extproc.formats.openai.chat import OpenAIChat

# Those with a dialect of their own.
_OTHERS = frozenset({"", "google", "anthropic"})
# Mistral reports usage unasked, and takes no field that it does not know.
_REPORT_UNASKED = ("mistral", "codestral", "ministral", "magistral")


class VertexOpenAI(OpenAIChat):
    """The wire format `vertex_openai`."""

    name = "vertex_openai"
    provider = "gcp.vertex_ai"

    def claim(self, line: RequestLine) -> Call | None:
        """Raw predictions of a publisher's model are chat.

        Raises `RequestRefused` (400) for parameters that change how the answer is written.
        """
        publisher, model, method = published(line)
        if publisher in _OTHERS or method not in RAW_METHODS:
            return None
        google_line.check_parameters(line)
        return Call(api=self.name, operation="chat", model=model.lower(), stream=RAW_METHODS[method])

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a chat body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        check_stream(body, call)
        return super().parse_request(body, call)

    def ask_for_usage(self, body: JSON, call: Call) -> JSON | None:
        """As OpenAI's chat, unless the model reports usage unasked."""
        return None if call.model.startswith(_REPORT_UNASKED) else super().ask_for_usage(body, call)
