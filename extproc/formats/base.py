"""What a wire format must know; one file in this folder each, one line in the registry each.

Floor 1. Pure: bytes and parsed JSON in, values out. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from extproc.decision import Denial, LimitState
from extproc.model import AIRequest, Observation, Prompt, nothing

JSON = Mapping[str, Any]

# The operation of recognised calls that spend nothing: access rules apply, limits count no tokens.
CONTROL = "control"

# OpenTelemetry's gen_ai.operation.name where it has a word, else ours.
OPERATIONS = (
    "batch",
    "chat",
    CONTROL,
    "embeddings",
    "execute_tool",
    "fine_tuning",
    "generate_content",
    "image_generation",
    "invoke_agent",
    "moderation",
    "ocr",
    "prediction",
    "realtime",
    "rerank",
    "speech",
    "text_completion",
    "transcription",
)

# Nothing is generated there, so no ceiling of a model applies and no output is missing.
NO_OUTPUT = frozenset({"embeddings", "execute_tool", "fine_tuning", "moderation", "ocr", "rerank", "speech"})


class BodyKind(StrEnum):
    """What the body of a call must be; everything else is refused."""

    NONE = "none"
    JSON = "json"
    FORM = "form"  # multipart/form-data: strings, and `multipart.FilePart` for files
    OPAQUE = "opaque"  # passes unread; only for control calls, which spend nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLine:
    """A request line after `classify` made sure that it can be read in one way only.

    `path` is what follows the provider's base path, decoded once. `segments` are its parts, decoded
    one by one, never none: a part may hold an encoded slash (Bedrock's ARNs do), and `path` is then empty.
    """

    method: str
    path: str
    segments: tuple[str, ...] = ()
    query: Mapping[str, str] = field(default_factory=nothing)  # decoded; no name comes twice
    headers: Mapping[str, str] = field(default_factory=nothing)
    host: str = ""  # lower case, without port
    provider: str = ""  # whose base path or host it is; empty: nobody's in particular


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a request line claims to be, before a byte of body is read."""

    api: str
    operation: str  # CONTROL spends nothing
    provider: str = ""  # `classify` fills in whose host or base path it is; else the format's own
    model: str = ""  # lower case, where path or query name it; wins over the body's
    stream: bool | None = None  # where path or query decide; None: the body does
    body: BodyKind = BodyKind.JSON
    query: Mapping[str, str] = field(default_factory=nothing)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputCeiling:
    """Where a body says how much one choice may generate, so that it can be told to generate less.

    Paths lead from the top, `*` to each item of a list.
    """

    read: tuple[str, ...]  # every field that `parse_request` takes for a ceiling
    added: str = ""  # the one that is put where none of them is; empty: nobody knows which
    each: str = ""  # where a body holds several requests: all other paths lead on from each of these
    below: tuple[str, ...] = ()  # budgets of thinking that the provider wants below the ceiling
    least: int = 0  # a smaller number is no ceiling
    has_two_spellings: bool = False  # `maxOutputTokens` is also `max_output_tokens`


class AnswerReader(Protocol):
    """Reads one answer's body as it arrives, in chunks of any size; never raises on what it reads."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes; after `finish` they are ignored (Envoy may repeat the end)."""

    def finish(self) -> None:
        """The body ended. Idempotent."""

    def observation(self) -> Observation:
        """What was seen so far."""

    def pending_bytes(self, *, is_last: bool) -> int:
        """How much that was taken in may have to be read at once: with the next chunk, or at the end."""


class WireFormat(Protocol):
    """One dialect: how it is recognised, read, asked for usage, and answered."""

    name: str
    provider: str
    model_field: str  # of a body that names its model, where the path does not

    def claim(self, line: RequestLine) -> Call | None:
        """What this request line means in this dialect, or None.

        Raises `errors.RequestRefused` for a call of this dialect that must not pass whatever its
        body says, such as one whose query changes how the answer is written.
        """

    def parse_request(self, body: JSON, call: Call) -> ParsedRequest:
        """Read a body. Raises `errors.RequestRefused` (400) naming the JSON pointer that is wrong."""

    def ask_for_usage(self, body: JSON, call: Call) -> JSON | None:
        """The body that makes a streamed answer report usage; None where it does already."""

    def output_ceiling(self, body: JSON, call: Call) -> OutputCeiling | None:
        """Where a body that was read says how much is generated; None where it cannot say so."""

    def answer_reader(self, request: AIRequest, headers: Mapping[str, str]) -> AnswerReader:
        """A reader for one answer; its content type in `headers` says how it comes, not what was asked."""

    def is_usage_chunk(self, event_data: bytes) -> bool:
        """Whether this SSE event exists only because we asked for usage, and may be stripped."""

    def render_denial(self, denial: Denial, provider: str = "") -> Reply:
        """The body and headers that make the caller's SDK raise its own exception.

        `provider` is whose dialect of the dialect it is, where vendors differ; empty: the format's own.
        """

    def limit_headers(
        self, limits: tuple[LimitState, ...], now_s: float, provider: str = ""
    ) -> Mapping[str, str]:
        """Headers of the tightest limit of each unit, as `provider` writes them.

        `now_s` is Unix time, for absolute resets.
        """
