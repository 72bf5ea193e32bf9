"""One decision and everything that explains it; answers, spans, metrics and records are projections.

Floor 0. `effect` is what policy says, `enforced_effect` is what was done: they differ in shadow
mode and where `onError` decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from extproc.model import AIRequest, Basis, Identity, RequestHead, TokenEstimate, Trace, Usage, nothing


class Effect(StrEnum):
    """Allow or deny; nothing between."""

    ALLOW = "allow"
    DENY = "deny"


class Mode(StrEnum):
    """How much a policy object matters; Envoy's rate limit service and Gateway API use the words."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    DISABLED = "disabled"


class Outcome(StrEnum):
    """What became of one policy in one decision."""

    MATCHED = "matched"
    NOT_MATCHED = "not_matched"
    ERRORED = "errored"
    NOT_RUN = "not_run"


SPOKEN = frozenset({Outcome.MATCHED, Outcome.ERRORED})  # the outcomes that say something


class Reason(StrEnum):
    """Stable codes: what clients, metrics and alerts may hold on to. Never rename one."""

    ALLOWED = "allowed"
    # identity
    CREDENTIAL_MISSING = "credential_missing"
    CREDENTIAL_INVALID = "credential_invalid"
    CREDENTIAL_EXPIRED = "credential_expired"
    CREDENTIAL_DISABLED = "credential_disabled"
    # access
    ACCESS_DENIED = "access_denied"
    ACCESS_NOT_GRANTED = "access_not_granted"
    UNCLASSIFIED = "unclassified"
    # size and shape
    BODY_TOO_LARGE = "body_too_large"
    BODY_MISSING = "body_missing"
    BODY_MALFORMED = "body_malformed"
    ENCODING_UNSUPPORTED = "encoding_unsupported"
    HEADER_MISMATCH = "header_mismatch"
    # limits
    RATE_LIMITED = "rate_limited"
    CAP_REACHED = "cap_reached"
    CONCURRENCY_LIMITED = "concurrency_limited"
    MODEL_SUBSTITUTED = "model_substituted"  # allowed, with the model that a reached cap leaves
    CLAMPED = "clamped"  # allowed, with a smaller output ceiling
    REQUEST_EXCEEDS_LIMIT = "request_exceeds_limit"
    # ours
    POLICY_ERROR = "policy_error"
    STORE_UNAVAILABLE = "store_unavailable"
    AUDIT_UNAVAILABLE = "audit_unavailable"
    DEADLINE_EXCEEDED = "deadline_exceeded"


class Unit(StrEnum):
    """What a limit counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    COST_USD = "cost_usd"  # amounts are nano-dollars
    CONCURRENT_REQUESTS = "concurrent_requests"  # in flight at once; only leases count these


@dataclass(frozen=True, slots=True, order=True)
class PolicyRef:
    """A policy object's name as users see it everywhere: `Kind/name`."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitState:
    """A limit as one decision found it; amounts in `unit`."""

    unit: Unit
    limit: int  # what the window or bucket is refilled to
    window_s: float
    used: int  # before this request
    requested: int  # the least this request needed
    reserved: int  # what it took; 0 where it was denied
    remaining: int  # after this request
    reset_ms: int  # until the limit is whole again
    wait_ms: int | None = None  # until this request would fit; None: it never will
    key: tuple[str, ...] = ()  # the evaluated key expressions


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one policy said, and why; every policy of a decision has at least one."""

    policy: PolicyRef
    outcome: Outcome
    mode: Mode = Mode.ENFORCE
    effect: Effect | None = None  # None: it did not speak
    reason: Reason | None = None
    message: str = ""  # client-safe
    limit: LimitState | None = None
    determining: bool = False
    evaluated_model: str = ""  # which of request.models an access rule was asked about
    warning: str = ""  # for the caller, although the request passes

    @property
    def would_deny(self) -> bool:
        """A shadow policy that says deny."""
        return self.mode is Mode.SHADOW and self.effect is Effect.DENY


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """Refills `amount` every `per_us`, evenly, and never holds more than `burst`."""

    amount: int
    per_us: int
    burst: int

    @property
    def size(self) -> int:
        """The most that is ever there at once."""
        return self.burst


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """No more than `size` in any stretch of `per_us`; what was used comes back in steps of a sixtieth."""

    size: int
    per_us: int


@dataclass(frozen=True, slots=True)
class CalendarWindow:
    """No more than `size` in each calendar period; nothing comes back before the next one.

    `edges_us` are the beginnings of the period before, of this one, of the next and of the one after:
    the store whose clock differs a little finds its own period among them.
    """

    size: int
    period: str  # hour, day, week, month, year
    edges_us: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Leases:
    """No more than `size` reservations open at once; one that is not renewed for `ttl_us` is over."""

    size: int
    ttl_us: int


Window = TokenBucket | SlidingWindow | CalendarWindow | Leases


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What one limit takes from one counter; stores know charges, never kinds.

    `minimum` is less than `amount` where the request declared no output ceiling: it takes what is
    left, down to that.
    """

    policy: PolicyRef
    counter: str  # identity: kind, name, unit, algorithm, window, key
    unit: Unit
    amount: int
    minimum: int
    window: Window
    enforced: bool = True  # False: shadow, outside the all-or-nothing step
    must_count: bool = False  # unless it can be counted, no charge of its reservation is taken
    key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeOutcome:
    """What a store did with a charge."""

    charge: Charge
    granted: bool
    reserved: int  # 0 where the request was denied by any enforced charge
    used: int  # before
    remaining: int  # after
    wait_us: int | None  # until `minimum` would fit; 0 if it does, None if it never will
    reset_us: int
    limit: int  # the window's size, with what an override adds to it
    unavailable: bool = False  # nobody knows: neither granted nor denied, nothing reserved or settled


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """What a denied client must be told; each format renders it in its own dialect."""

    status: int
    reason: Reason
    message: str  # client-safe, complete sentences, names policy, limit, used and when to retry
    decision_id: str
    policy: PolicyRef | None = None  # None: no policy says so, we could not do our part
    retry_after_ms: int | None = None  # None: waiting does not help
    limit: LimitState | None = None
    at_ns: int = 0  # when it was decided, Unix time; dialects with absolute resets need it


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The verdict on one request with all that led to it."""

    id: str
    effect: Effect
    enforced_effect: Effect
    reason: Reason
    determining: PolicyRef | None
    findings: tuple[Finding, ...]
    revision: str
    started_at_ns: int  # Unix time
    decided_at_ns: int
    head: RequestHead  # without credentials and query
    trace: Trace = Trace()  # noqa: RUF009  a frozen value
    spoken: tuple[Finding, ...] = ()  # those of `findings` that say something; found where nobody gives them
    identity: Identity = field(default_factory=Identity)
    request: AIRequest | None = None  # None where it was denied before, or could not be, classified
    target_model: str = ""  # where the request goes upstream with another model than it asked for
    tokens: TokenEstimate = field(default_factory=TokenEstimate)
    outcomes: tuple[ChargeOutcome, ...] = ()
    uncounted: tuple[Charge, ...] = ()  # what the store did not answer for: it may have taken them
    denial: Denial | None = None
    error_type: str = ""  # telemetry error.type where we failed to decide properly
    attributes: Mapping[str, str] = field(default_factory=nothing)

    def __post_init__(self) -> None:
        if not self.spoken:
            spoken = tuple(finding for finding in self.findings if finding.outcome in SPOKEN)
            object.__setattr__(self, "spoken", spoken)

    @property
    def would_deny(self) -> bool:
        """Whether a shadow policy would have denied what was allowed."""
        return self.enforced_effect is Effect.ALLOW and any(f.would_deny for f in self.spoken)

    @property
    def is_clamped(self) -> bool:
        """Whether a cap lowered the output limit; one in shadow changes nothing."""
        return any(f.reason is Reason.CLAMPED and f.mode is Mode.ENFORCE for f in self.spoken)

    @property
    def upstream_model(self) -> str:
        """The model that works for this request; empty where no format knows it."""
        return self.target_model or (self.request.model if self.request else "")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the caller is told although the request passes."""
        return tuple(finding.warning for finding in self.spoken if finding.warning)


@dataclass(frozen=True, slots=True)
class Cost:
    """Money at published prices, or those of a policy folder."""

    nano_usd: int
    revision: str  # of the prices, so that it can be computed again


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What a decision came to in the end; exactly one a decision that was allowed."""

    decision_id: str
    basis: Basis
    usage: Usage
    amounts: Mapping[str, int]  # counter -> what it is charged in the end
    cost: Cost | None = None  # of `usage`; what is charged as reserved costs that; None: nobody knows
    status: int = 0  # HTTP status of the answer; 0: none was seen
    model: str = ""  # as answered
    response_id: str = ""
    finish_reasons: tuple[str, ...] = ()
    error_type: str = ""
    body_bytes: int = 0  # of an answer that was read here, decoded
    first_byte_at_ns: int = 0
    ended_at_ns: int = 0
