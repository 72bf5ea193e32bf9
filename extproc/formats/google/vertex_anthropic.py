"""Anthropic's models on Vertex AI: Messages whose model is in the path.

Floor 1, pure. Bodies and answers are Anthropic's. Sources: anthropic-sdk-python `lib/vertex`, the
discovery document of aiplatform.googleapis.com.
"""

from __future__ import annotations

from extproc.formats import fields
from extproc.formats.anthropic.messages import AnthropicMessages
from extproc.formats.base import CONTROL, JSON, Call, ParsedRequest, RequestLine
from extproc.formats.google import line as google_line
from extproc.formats.google.vertex import below_location

# Both methods send the body as it is; which of them it was must not say otherwise than the body.
RAW_METHODS = {"rawPredict": False, "streamRawPredict": True}
# No model, but the name under which tokens are counted.
_COUNTING = "count-tokens"
_PUBLISHED_PARTS = 4


def published(line: RequestLine) -> tuple[str, str, str]:
    """Publisher, model and custom method of a published model's path; empty where it is none."""
    rest = below_location(line)
    if line.method != "POST" or not line.path or len(rest) != _PUBLISHED_PARTS:
        return "", "", ""
    if rest[::2] != ("publishers", "models"):
        return "", "", ""
    return rest[1], *google_line.split_method(rest[3])


def check_stream(body: JSON, call: Call) -> None:
    """Refuse a body that streams otherwise than its path. Raises `RequestRefused` (400)."""
    if call.stream is not None and fields.flag(body, "stream") is not call.stream:
        raise fields.wrong("/stream", "must agree with the method of the path: streamRawPredict streams")


class VertexAnthropic(AnthropicMessages):
    """The wire format `vertex_anthropic`."""

    name = "vertex_anthropic"
    provider = "gcp.vertex_ai"

    def claim(self, line: RequestLine) -> Call | None:
        """Raw predictions of Anthropic's models are messages; counting their tokens is control.

        Raises `RequestRefused` (400) for parameters that change how the answer is written.
        """
        publisher, model, method = published(line)
        if publisher != "anthropic" or method not in RAW_METHODS:
            return None
        google_line.check_parameters(line)
        if model == _COUNTING:
            return Call(api=self.name, operation=CONTROL) if method == "rawPredict" else None
        return Call(api=self.name, operation="chat", model=model.lower(), stream=RAW_METHODS[method])

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a message body. Raises `RequestRefused` (400) naming the JSON pointer that is wrong."""
        check_stream(body, call)
        return super().parse_request(body, call)
