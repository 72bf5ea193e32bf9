"""What the session wants done, in imperatives; what may happen to a request is in `events`.

Floor 2. Whoever runs a session does every action, in the order it was told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from extproc.decision import Charge, Decision, Settlement
from extproc.formats.base import Call
from extproc.measure.bytes_per_token import AnswerForm
from extproc.model import Identity, RequestHead, nothing
from extproc.session.events import ChunkToRead
from extproc.session.inquiry import Inquiry

# --- answers to Envoy: exactly one for each of its messages, in order.


@dataclass(frozen=True, slots=True, kw_only=True)
class Continue:
    """Let the message of `phase` pass, changed as said; `set_headers` overwrite."""

    phase: type  # the event class this answers
    set_headers: Mapping[str, str] = field(default_factory=nothing)
    remove_headers: tuple[str, ...] = ()
    body: bytes | None = None  # None: byte for byte as it came
    read_response_body: str = ""  # "", "BUFFERED" or "STREAMED": a mode_override
    skip_request_body: bool = False  # a mode_override: an upgraded connection has no end to wait for
    metadata: Mapping[str, str | int] = field(default_factory=dict)  # dynamic metadata, namespace ai_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class RespondImmediately:
    """Answer the client now; nothing goes upstream."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    details: str  # Envoy's RESPONSE_CODE_DETAILS
    metadata: Mapping[str, str | int] = field(default_factory=dict)


# --- outward


@dataclass(frozen=True, slots=True, kw_only=True)
class Understand:
    """Decode, classify and count this body; answer with `Understood`."""

    head: RequestHead
    call: Call
    body: bytes
    max_body_bytes: int
    asks_for_usage: bool
    counts_large: bool = True  # whether anybody asks how many tokens a large body has


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """Take these charges, all or nothing; answer with `ChargesReserved` or `StoreFailed`."""

    decision_id: str  # or, where a request is tried again with another model, one made of it
    charges: tuple[Charge, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """Change what the body asks for; answer with `Rewritten`. None leaves a field as it is."""

    head: RequestHead
    call: Call
    body: bytes  # as it goes upstream but for this: decoded, or still as it came
    is_decoded: bool
    max_body_bytes: int
    model: str | None = None
    max_output_tokens: int | None = None  # of one choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Ask the ledger what this caller wants to know of itself; answer with `Told`."""

    inquiry: Inquiry
    caller: Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Put this decision into the ledger, before Envoy is answered: a commit holds it with what it reserved.

    Where it `waits`, answer `Recorded` once it is on disk, or `RecordFailed`.
    """

    decision: Decision
    waits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AwaitBytes:
    """Envoy read this answer and told no usage: wait for its access log; answer with `BytesSent`."""

    decision_id: str
    answer: AnswerForm


@dataclass(frozen=True, slots=True, kw_only=True)
class CountOutput:
    """Count this text with the model's tokenizer; answer with `OutputCounted`."""

    provider: str
    model: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Defer:
    """Hand `event` back once everything before this action is done: the client does not wait for it."""

    event: ChunkToRead


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """Replace what was reserved by what was spent; idempotent by reservation id."""

    settlement: Settlement
    reservation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Tell telemetry, and the ledger of settlements. Once with the decision, once with its settlement."""

    decision: Decision
    settlement: Settlement | None = None


Action = (
    Continue
    | RespondImmediately
    | Understand
    | Reserve
    | Rewrite
    | Ask
    | Record
    | AwaitBytes
    | CountOutput
    | Defer
    | Settle
    | Report
)
