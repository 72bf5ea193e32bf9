"""Where a decision hangs in a trace, from W3C trace context; and the ids of spans that are the first.

Floor 3. Envoy sends its own span in the metadata of the call, and the client's header as it came: the
metadata is believed, the header is the client's word. Source: W3C Trace Context, sections 3.2 and 3.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from extproc.model import Trace

# Version 00 ends after the flags; later ones may go on. All zeros are no id.
_TRACEPARENT = re.compile(
    r"[ \t]*(?!ff)(?!00-.{52}-)[0-9a-f]{2}"
    r"-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?[ \t]*"
)


@dataclass(frozen=True, slots=True)
class Remote:
    """A span of somebody else, hexadecimal; `state` is its tracestate, unread."""

    trace_id: str
    span_id: str
    flags: int
    state: str = ""

    @property
    def is_sampled(self) -> bool:
        """Whether whoever made it exports it."""
        return bool(self.flags & TraceFlags.SAMPLED)

    @property
    def context(self) -> SpanContext:
        """The same for the SDK."""
        return SpanContext(
            trace_id=int(self.trace_id, 16),
            span_id=int(self.span_id, 16),
            is_remote=True,
            trace_flags=TraceFlags(self.flags),
            trace_state=TraceState.from_header([self.state]) if self.state else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The span above a decision, and the client's own where that is in another trace."""

    above: Remote | None = None
    is_envoys: bool = False  # only then its sampled flag counts
    client: Remote | None = None

    @property
    def trace(self) -> Trace:
        """The trace and the span that the decision hangs under."""
        return Trace() if self.above is None else Trace(self.above.trace_id, self.above.span_id)


def parent_of(metadata: Mapping[str, str], headers: Mapping[str, str]) -> Parent:
    """Find the parent: Envoy's span from the gRPC metadata first, the client's header only without it.

    The header is the client's word: it may name a trace, it may not force that trace to be exported.
    """
    envoy, client = _remote(metadata), _remote(headers)
    if envoy is None:
        return Parent(above=client)
    mismatched = client is not None and client.trace_id != envoy.trace_id
    return Parent(above=envoy, is_envoys=True, client=client if mismatched else None)


def trace_id_of(decision_id: str) -> str:
    """The trace of a decision that hangs under nothing: whoever has the one id has the other."""
    return _digest(decision_id)[:32]


def span_id_of(decision_id: str) -> str:
    """The id of a decision's own span: logs name it without having seen the span."""
    return _digest(decision_id)[32:]


def _digest(decision_id: str) -> str:
    # Samplers want ids whose every bit is random; of a UUID's some are not.
    return blake2b(decision_id.encode(), digest_size=24).hexdigest()


def _remote(carrier: Mapping[str, str]) -> Remote | None:
    traceparent = carrier.get("traceparent")
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if match is None:
        return None
    trace_id, span_id, flags = match.groups()
    return Remote(trace_id, span_id, int(flags, 16), carrier.get("tracestate", ""))
