"""What can happen to one HTTP request, in nouns; what the session wants done then is in `actions`.

Floor 2. Every event carries `at_ns`, Unix time in nanoseconds: the session owns no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from extproc.decision import ChargeOutcome
from extproc.errors import RequestRefused
from extproc.formats.base import Reply
from extproc.model import AIRequest, RequestHead, TokenEstimate, Usage, nothing

# --- from Envoy


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHeaders:
    """The request line and headers came; `head.has_body` is false when they end the request."""

    at_ns: int
    head: RequestHead


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBody:
    """The whole buffered body."""

    at_ns: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestTrailers:
    """Trailers after the request body; no policy reads them."""

    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHeaders:
    """The answer's status and headers, from the provider or made by Envoy itself."""

    at_ns: int
    status: int
    headers: Mapping[str, str] = field(default_factory=nothing)
    end_of_stream: bool = False
    is_local_reply: bool = False  # Envoy made it
    reached_upstream: bool = True  # an upstream host was picked and sent the request
    timed_out: bool = False  # Envoy gave up waiting for the upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseBody:
    """One chunk of the answer, or all of it."""

    at_ns: int
    body: bytes
    end_of_stream: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkToRead:
    """A chunk that was answered before it was read; the session's own, see `Defer`."""

    at_ns: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseTrailers:
    """The answer's trailers; with native usage they carry what Envoy read."""

    at_ns: int
    usage: Usage | None = None
    model: str = ""
    usage_is_partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamClosed:
    """Envoy ended the stream: the exchange is over, or its client left."""

    at_ns: int


# --- answers to what the session asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Understood:
    """The body was decoded, classified and counted; or `refused` says why not."""

    at_ns: int
    request: AIRequest | None = None
    tokens: TokenEstimate = field(default_factory=TokenEstimate)
    body_with_usage: bytes | None = None  # rewritten so that a streamed answer reports usage
    content_type: str = ""  # what the body must go upstream as; empty: as it came
    refused: RequestRefused | None = None
    expected_output_tokens: int | None = None  # learned 95th percentile of (provider, model)
    usual_reasoning_tokens: int = 0  # the same of what its answers thought unseen


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargesReserved:
    """The store answered, with one outcome a charge, in order."""

    at_ns: int
    outcomes: tuple[ChargeOutcome, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFailed:
    """The store did not answer; whether it took the charges is unknown."""

    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """The body says what `Rewrite` asked for; or `refused` says why it cannot."""

    at_ns: int
    body: bytes = b""
    refused: RequestRefused | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The decision is on disk."""

    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFailed:
    """The decision is not known to be on disk."""

    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BytesSent:
    """How much of an answer without usage Envoy sent to its client; None: nobody said in time."""

    at_ns: int
    body_bytes: int | None
    output_tokens: int | None = None  # that many bytes hold, as far as can be seen; None: they do not say


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputCounted:
    """The visible output of an answer without usage was counted."""

    at_ns: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The ledger's answer to a caller who asks about itself."""

    at_ns: int
    reply: Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed:
    """Our own deadline, below Envoy's `message_timeout`, passed while we were working."""

    at_ns: int


Event = (
    RequestHeaders
    | RequestBody
    | RequestTrailers
    | ResponseHeaders
    | ResponseBody
    | ChunkToRead
    | ResponseTrailers
    | StreamClosed
    | Understood
    | ChargesReserved
    | StoreFailed
    | OutputCounted
    | Rewritten
    | Recorded
    | RecordFailed
    | BytesSent
    | Told
    | DeadlinePassed
)
