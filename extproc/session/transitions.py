"""The protocol as a table: in which state which event may come, who handles it, where it leads.

Floor 2. Reading this table is reading the protocol; the diagram in the README is generated from it.
What is not in it is a `ProtocolViolation`, and the stream is aborted: never returned, because a
clean return is fail-open on every Envoy.
"""

from __future__ import annotations

from enum import StrEnum

from extproc.session.events import (
    BytesSent,
    ChargesReserved,
    ChunkToRead,
    DeadlinePassed,
    Event,
    OutputCounted,
    Recorded,
    RecordFailed,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    Rewritten,
    StoreFailed,
    StreamClosed,
    Told,
    Understood,
)


class State(StrEnum):
    """Where one exchange is."""

    START = "start"
    ASKING = "asking"  # a caller asks about itself: the ledger is being read
    AWAITING_BODY = "awaiting_body"
    UNDERSTANDING = "understanding"  # the body is being decoded, classified, counted
    REWRITING = "rewriting"  # the body is being changed: a smaller ceiling, or another model
    RESERVING = "reserving"  # the store has been asked
    RECORDING = "recording"  # the decision is being put on disk, where that is required
    FORWARDED = "forwarded"  # allowed; the provider is working
    ANSWERING = "answering"  # the answer's headers have passed
    COUNTING = "counting"  # the answer is over and had no usage; its text is being counted
    AWAITING_BYTES = "awaiting_bytes"  # Envoy read no usage in it; its access log says how long it was
    SETTLED = "settled"
    DENIED = "denied"  # answered by us, or by Envoy before anything was decided
    ABANDONED = "abandoned"  # the client left before the verdict


(
    START,
    ASKING,
    AWAITING_BODY,
    UNDERSTANDING,
    REWRITING,
    RESERVING,
    RECORDING,
    FORWARDED,
    ANSWERING,
    COUNTING,
    AWAITING_BYTES,
    SETTLED,
    DENIED,
    ABANDONED,
) = State

Handler = str  # a method of Session, there with a leading underscore
Transition = tuple[Handler, tuple[State, ...]]

_ALLOWED = (RECORDING, FORWARDED)
_VERDICT = (REWRITING, RESERVING, *_ALLOWED, DENIED)

TRANSITIONS: dict[tuple[State, type[Event]], Transition] = {
    (START, RequestHeaders): ("on_request_headers", (ASKING, AWAITING_BODY, *_VERDICT)),
    # A filter before ours answered; Envoy shows every answer to every filter.
    (START, ResponseHeaders): ("on_reply_before_request", (ABANDONED,)),
    (START, StreamClosed): ("on_nothing", (ABANDONED,)),
    (ASKING, Told): ("on_told", (DENIED,)),
    (ASKING, DeadlinePassed): ("on_not_told", (DENIED,)),
    (ASKING, ResponseHeaders): ("on_reply_before_verdict", (ABANDONED,)),
    (ASKING, StreamClosed): ("on_nothing", (ABANDONED,)),
    # Envoy buffers the whole body before it sends one message.
    (AWAITING_BODY, RequestBody): ("on_request_body", (UNDERSTANDING, *_VERDICT)),
    # Over the buffer limit, or too slow: Envoy answers by itself and shows us that answer.
    (AWAITING_BODY, ResponseHeaders): ("on_reply_before_body", (DENIED,)),
    (AWAITING_BODY, StreamClosed): ("on_nothing", (ABANDONED,)),
    (UNDERSTANDING, Understood): ("on_understood", _VERDICT),
    (UNDERSTANDING, DeadlinePassed): ("on_deadline", (DENIED,)),
    (UNDERSTANDING, RequestTrailers): ("on_trailers_early", (UNDERSTANDING,)),
    # A request time-out while we count: Envoy's own answer overtakes ours.
    (UNDERSTANDING, ResponseHeaders): ("on_reply_before_verdict", (ABANDONED,)),
    (UNDERSTANDING, StreamClosed): ("on_nothing", (ABANDONED,)),
    (REWRITING, Rewritten): ("on_rewritten", (RESERVING, *_ALLOWED, DENIED)),
    (REWRITING, DeadlinePassed): ("on_deadline", (DENIED,)),
    (REWRITING, RequestTrailers): ("on_trailers_early", (REWRITING,)),
    (REWRITING, ResponseHeaders): ("on_reply_before_verdict", (ABANDONED,)),
    (REWRITING, StreamClosed): ("on_nothing", (ABANDONED,)),
    # A cap that is reached may leave another model: the body is changed, and the limits asked again.
    (RESERVING, ChargesReserved): ("on_charges_reserved", (REWRITING, *_ALLOWED, DENIED)),
    (RESERVING, StoreFailed): ("on_store_failed", (*_ALLOWED, DENIED)),
    (RESERVING, DeadlinePassed): ("on_store_failed", (*_ALLOWED, DENIED)),
    (RESERVING, RequestTrailers): ("on_trailers_early", (RESERVING,)),
    (RESERVING, ResponseHeaders): ("on_reply_before_verdict", (ABANDONED,)),
    (RESERVING, StreamClosed): ("on_nothing", (ABANDONED,)),
    (RECORDING, Recorded): ("on_recorded", (FORWARDED,)),
    (RECORDING, RecordFailed): ("on_record_failed", (DENIED,)),
    (RECORDING, DeadlinePassed): ("on_record_failed", (DENIED,)),
    (RECORDING, RequestTrailers): ("on_trailers_early", (RECORDING,)),
    # Reserved, and perhaps on record, but never sent upstream.
    (RECORDING, ResponseHeaders): ("on_reply_before_forwarding", (ABANDONED,)),
    (RECORDING, StreamClosed): ("on_left_before_forwarding", (ABANDONED,)),
    (FORWARDED, RequestTrailers): ("on_pass", (FORWARDED,)),
    (FORWARDED, ResponseHeaders): ("on_response_headers", (ANSWERING, SETTLED)),
    # The client left before the answer began; the provider may be at work all the same.
    (FORWARDED, StreamClosed): ("on_exchange_over", (SETTLED,)),
    (ANSWERING, RequestTrailers): ("on_pass", (ANSWERING,)),
    (ANSWERING, ResponseBody): ("on_response_body", (ANSWERING, COUNTING, SETTLED)),
    (ANSWERING, ChunkToRead): ("on_chunk_to_read", (ANSWERING,)),
    (ANSWERING, ResponseTrailers): ("on_response_trailers", (COUNTING, AWAITING_BYTES, SETTLED)),
    (ANSWERING, StreamClosed): ("on_exchange_over", (COUNTING, AWAITING_BYTES, SETTLED)),
    (COUNTING, OutputCounted): ("on_output_counted", (SETTLED,)),
    (COUNTING, StreamClosed): ("on_nothing", (COUNTING,)),
    # Envoy may repeat the end of a body (https://github.com/envoyproxy/envoy/issues/46237).
    (COUNTING, ResponseBody): ("on_pass", (COUNTING,)),
    (COUNTING, ResponseTrailers): ("on_pass", (COUNTING,)),
    (AWAITING_BYTES, BytesSent): ("on_bytes_sent", (SETTLED,)),
    (AWAITING_BYTES, StreamClosed): ("on_nothing", (AWAITING_BYTES,)),
    (SETTLED, ResponseBody): ("on_pass", (SETTLED,)),
    (SETTLED, ResponseTrailers): ("on_pass", (SETTLED,)),
    (SETTLED, StreamClosed): ("on_nothing", (SETTLED,)),
    # Envoy shows some versions of its own answers to the filter that caused them.
    (DENIED, ResponseHeaders): ("on_pass_with_id", (DENIED,)),
    (DENIED, ResponseBody): ("on_pass", (DENIED,)),
    (DENIED, ResponseTrailers): ("on_pass", (DENIED,)),
    (DENIED, StreamClosed): ("on_nothing", (DENIED,)),
    (ABANDONED, ResponseHeaders): ("on_pass_with_id", (ABANDONED,)),
    (ABANDONED, ResponseBody): ("on_pass", (ABANDONED,)),
    (ABANDONED, ResponseTrailers): ("on_pass", (ABANDONED,)),
    (ABANDONED, StreamClosed): ("on_nothing", (ABANDONED,)),
}

# An answer to a question that no longer matters: the client left or the deadline passed meanwhile.
# What the store took is given back, or settled with the rest, also where it failed: what was not answered
# may be done. Everything else is forgotten.
for _state in State:
    for _late in (Understood, Rewritten, Recorded, RecordFailed, Told, DeadlinePassed):
        TRANSITIONS.setdefault((_state, _late), ("on_nothing", (_state,)))
    for _reserved in (ChargesReserved, StoreFailed):
        TRANSITIONS.setdefault((_state, _reserved), ("on_late_reservation", (_state,)))


def diagram() -> str:
    """The table as a Mermaid state diagram, without what leads nowhere."""
    lines = ["stateDiagram-v2", "    [*] --> start"]
    for (state, event), (_, targets) in TRANSITIONS.items():
        lines += [
            f"    {state} --> {target}: {event.__name__}"
            for target in targets
            if target is not state or len(targets) > 1
        ]
    ends = (State.SETTLED, State.DENIED, State.ABANDONED)
    return "\n".join([*lines, *(f"    {end} --> [*]" for end in ends)])
