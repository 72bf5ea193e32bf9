"""The nouns of one AI request and its answer: what formats read, policies see and spans show.

Floor 0: frozen values, no behaviour beyond arithmetic on themselves. Only `Prompt` and
`Observation.output_text` hold what people wrote; they live for one function call and are never
logged, stored or sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

NOTHING: Mapping[str, str] = MappingProxyType({})


def nothing() -> Mapping[str, str]:
    """No entries; the default of mapping fields, which dataclasses want from a factory."""
    return NOTHING


class Basis(StrEnum):
    """What a settled figure rests on, best first; the settlement table of the README."""

    PROVIDER = "provider"
    PARTIAL = "partial"
    TOKENIZER = "tokenizer"
    BYTES = "bytes"
    RESERVED = "reserved"
    UPSTREAM_ERROR = "upstream_error"
    LOCAL_REPLY = "local_reply"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a request came from, as Envoy's attributes and filters say; never as its headers say."""

    address: str = ""  # without port
    principal: str = ""  # URI SAN of the client certificate
    route: str = ""  # Envoy's route name
    jwt_payloads: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of verified tokens


@dataclass(frozen=True, slots=True)
class Trace:
    """Where a decision hangs in a trace, hexadecimal; empty: nobody traces, or it is the first span."""

    trace_id: str = ""
    span_id: str = ""  # the parent


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """The request line and headers, lower-case names; repeated headers are joined by a comma."""

    method: str
    host: str
    path: str  # as sent, query included
    headers: Mapping[str, str] = field(default_factory=nothing)
    source: Source = field(default_factory=Source)
    has_body: bool = True

    @property
    def path_only(self) -> str:
        """The path without its query."""
        return self.path.partition("?")[0]

    @property
    def is_upgrade(self) -> bool:
        """Whether it asks to become another protocol, as a WebSocket does."""
        return "upgrade" in self.headers

    @property
    def query(self) -> str:
        """The raw query, without the question mark."""
        return self.path.partition("?")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who is calling, as an Identity policy established it."""

    id: str = ""
    user: str = ""
    team: str = ""
    org: str = ""
    groups: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=nothing)
    claims: Mapping[str, str] = field(default_factory=nothing)
    key: str = ""  # name of the ApiKey object, never the key
    authenticated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AIRequest:
    """What one AI request asks for, in the words policies use; no prompt text."""

    api: str  # wire format: openai_chat, anthropic_messages, ...
    provider: str  # OpenTelemetry gen_ai.provider.name
    operation: str  # OpenTelemetry gen_ai.operation.name, or "control" for calls that spend nothing
    model: str = ""  # lower case
    models: tuple[str, ...] = ()  # every model the body names, lower case
    stream: bool = False
    choices: int = 1
    message_count: int = 0  # inputs, documents or requests where there are no messages
    tools: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()  # of the input, sorted: "image", "text", ...
    end_user: str = ""
    temperature: float | None = None
    has_state: bool = False  # previous_response_id and the like
    max_output_tokens: int | None = None  # as declared, of one choice; None where the body says nothing
    wants_usage_chunk: bool = True  # False: the client did not ask for the extra chunk that we ask for
    body_bytes: int = 0  # decoded


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEstimate:
    """What the request will cost before anyone answered."""

    input: int = 0
    input_upper_bound: int = 0
    max_output: int = 0  # effective ceiling of one choice: declared, else the model's
    exact: bool = False
    estimator: str = "none"  # "tiktoken:o200k_base", "bytes", "none"; "+learned" where corrected
    uncalibrated: int = 0  # `input` before what was learned of the model corrected it


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptMessage:
    """One message as the token formula sees it; `text` joins all its text parts."""

    role: str
    text: str
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptImage:
    """One image of the input; sizes are None where the body does not carry the pixels."""

    width_px: int | None
    height_px: int | None
    detail: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptMedia:
    """Input that is neither text nor image; `size_bytes` is None where only a reference is there."""

    modality: str  # "audio", "video", "file"
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The text of a request, for the tokenizer alone."""

    messages: tuple[PromptMessage, ...] = ()
    tools: tuple[str, ...] = ()  # each tool definition as compact JSON
    images: tuple[PromptImage, ...] = ()
    media: tuple[PromptMedia, ...] = ()
    tokens: int = 0  # input that came as token ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens in OpenTelemetry's inclusive sense: sub-counts are subsets; None is absent, 0 is zero."""

    input_tokens: int | None = None  # cache reads and writes included
    output_tokens: int | None = None  # reasoning included
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_creation_1h_input_tokens: int | None = None  # of cache_creation_input_tokens
    audio_input_tokens: int | None = None
    image_input_tokens: int | None = None
    tool_input_tokens: int | None = None  # what the provider's own tools read
    reasoning_output_tokens: int | None = None
    audio_output_tokens: int | None = None
    image_output_tokens: int | None = None
    input_audio_ms: int | None = None  # where that is billed, tokens are 0

    @property
    def is_complete(self) -> bool:
        """Whether both totals are there."""
        return self.input_tokens is not None and self.output_tokens is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was seen of an answer's body."""

    usage: Usage | None = None
    finished: bool = False  # the format's terminal event, or a whole JSON body, was read
    is_legible: bool = False  # any of it could be read: a whole JSON body, or one event
    is_incomplete: bool = False  # some of it could not: corrupt, or larger than a reader holds
    error: str = ""  # the provider's error type, if the body carries an error
    model: str = ""  # as answered
    response_id: str = ""
    finish_reasons: tuple[str, ...] = ()
    output_text: str = ""  # everything generated that is visible, reasoning and tool arguments too
