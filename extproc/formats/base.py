"""What a wire format must know; one file in this folder each, one line in the registry each.

Floor 1. Pure: bytes and parsed JSON in, values out. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from extproc.decision import Denial, LimitState
from extproc.model import AIRequest, Observation, Prompt, nothing

JSON = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a method and a path claim to be, before a byte of body is read."""

    api: str
    provider: str
    operation: str  # "control" spends nothing and needs no body


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRequest:
    """A body that is what its path claimed."""

    request: AIRequest
    prompt: Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A rendered answer: status, headers (lower case) and body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=nothing)
    body: bytes = b""


class AnswerReader(Protocol):
    """Reads one answer's body as it arrives, in chunks of any size; never raises on what it reads."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes; after `finish` they are ignored (Envoy may repeat the end)."""

    def finish(self) -> None:
        """The body ended. Idempotent."""

    def observation(self) -> Observation:
        """What was seen so far."""


class WireFormat(Protocol):
    """One dialect: how it is recognised, read, asked for usage, and answered."""

    name: str
    provider: str

    def claim(self, method: str, path: str, headers: Mapping[str, str]) -> Call | None:
        """What this request line means in this dialect, or None. `path` has no query."""

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body. Raises `errors.RequestRefused` (400) naming the JSON pointer that is wrong."""

    def ask_for_usage(self, body: JSON) -> JSON | None:
        """The body that makes a streamed answer report usage; None where it does already."""

    def answer_reader(self, *, stream: bool) -> AnswerReader:
        """A reader for one answer; `stream` is what its content type says, not what was asked."""

    def is_usage_chunk(self, event_data: bytes) -> bool:
        """Whether this SSE event exists only because we asked for usage, and may be stripped."""

    def render_denial(self, denial: Denial) -> Reply:
        """The body and headers that make the caller's SDK raise its own exception."""

    def limit_headers(self, limits: tuple[LimitState, ...], now_s: float) -> Mapping[str, str]:
        """Headers of the tightest limit of each unit; `now_s` is Unix time, for absolute resets."""
