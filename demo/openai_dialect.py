"""What OpenAI's endpoints have in common, from the provider's side. Source: recorded answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from demo import asked as asking
from demo.asked import Refused
from demo.ids import hexadecimal

PROVIDER = "openai"

_ERRORS: Mapping[int, tuple[str, str | None]] = {  # status -> type, code
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("tokens", "rate_limit_exceeded"),
}
_HEADERS = {
    "openai-version": "2020-10-01",
    "openai-processing-ms": "12",
    "x-ratelimit-limit-requests": "30000",
    "x-ratelimit-limit-tokens": "150000000",
    "x-ratelimit-remaining-requests": "29999",
    "x-ratelimit-remaining-tokens": "149999000",
    "x-ratelimit-reset-requests": "2ms",
    "x-ratelimit-reset-tokens": "0s",
}


def request_id() -> str:
    """An id as this dialect writes it."""
    return "req_" + hexadecimal(32)


def headers(request_id: str) -> dict[str, str]:
    """What every answer carries."""
    return {"x-request-id": request_id, **_HEADERS}


def credential(headers: Mapping[str, str]) -> str:
    """The key a caller presents; empty where there is none."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key if scheme == "Bearer" else ""


def error(status: int, message: str, *, param: str | None, request_id: str) -> dict[str, Any]:  # noqa: ARG001 - another dialect's body names it
    """An error's body."""
    kind, code = _ERRORS.get(status, ("server_error" if status >= 500 else "invalid_request_error", None))  # noqa: PLR2004 - HTTP's error class
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def error_headers(status: int) -> dict[str, str]:  # noqa: ARG001 - another dialect's say it
    """What an answer with an error carries besides."""
    return {}


def error_event(request_id: str) -> bytes:
    """An error in the middle of a stream."""
    return event(json.dumps(error(500, "The server had an error.", param=None, request_id=request_id)))


def event(data: str) -> bytes:
    """One event of a stream that has no names for them."""
    return f"data: {data}\n\n".encode()


def asks_for_stream(body: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether a stream is wanted, and whether the answer is to say what it cost.

    Raises `Refused` (400) on options without a stream.
    """
    stream: bool = asking.field(body, "stream", bool, default=False)
    options: Mapping[str, Any] = asking.field(body, "stream_options", dict, {})
    if options and not stream:
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise Refused(400, message, param="stream_options")
    return stream, not stream or asking.field(options, "include_usage", bool, default=False)


def usage(mode: str, input_tokens: int, output_tokens: int) -> dict[str, Any] | None:
    """The usage object of chats and completions; `mode` is `true`, `zero` or `null`."""
    if mode == "null":
        return None
    given, made = (0, 0) if mode == "zero" else (input_tokens, output_tokens)
    return {
        "prompt_tokens": given,
        "completion_tokens": made,
        "total_tokens": given + made,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


class Chunks:
    """Writes the chunks of a stream; what they share is rendered once, for there are many."""

    def __init__(self, shared: Mapping[str, Any], *, tells_usage: bool) -> None:
        self._start = json.dumps(shared, separators=(",", ":"))[:-1] + ',"choices":['
        self._end = '],"usage":null}' if tells_usage else "]}"

    def choice(self, choice: Mapping[str, Any]) -> bytes:
        """A chunk with one choice."""
        return event(self._start + json.dumps(choice, separators=(",", ":")) + self._end)

    def usage(self, usage: dict[str, Any] | None) -> bytes:
        """The chunk that has no choice."""
        return event(self._start + '],"usage":' + json.dumps(usage, separators=(",", ":")) + "}")
