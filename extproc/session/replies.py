"""What we say to Envoy: header changes, dynamic metadata and immediate responses.

Floor 2, values in, values out.
"""

from __future__ import annotations

from extproc.decision import Cost, Decision, LimitState, Mode
from extproc.formats.advice import ascii_only
from extproc.formats.base import Reply, WireFormat
from extproc.model import Usage
from extproc.session.actions import Continue, RespondImmediately
from extproc.session.events import ResponseHeaders

CONTENT_TOO_LARGE = 413
DECISION_ID = "x-ai-policy-decision-id"
WARNING = "x-ai-policy-warning"
OUR_PREFIX = "x-ai-policy-"

_LONGEST_WARNING = 1024


def forward(
    decision: Decision,
    *,
    phase: type,
    consumed_headers: tuple[str, ...],
    path: str | None,
    body: bytes | None,
    content_type: str = "",
    skip_request_body: bool = False,
) -> Continue:
    """Let the request through: without its gateway credential and whatever pretends to be ours."""
    spoofed = tuple(name for name in decision.head.headers if name.startswith(OUR_PREFIX))
    # Envoy reads usage, and we read bodies, only where the provider does not compress them.
    remove = (*consumed_headers, *spoofed, "accept-encoding")
    headers = {DECISION_ID: decision.id}
    if path is not None:
        headers[":path"] = path
    if content_type:
        headers["content-type"] = content_type
    if body is not None:
        # Envoy refuses a changed body whose content-length does not fit.
        headers["content-length"] = str(len(body))
        remove = (*remove, "content-encoding")
    return Continue(
        phase=phase,
        set_headers=headers,
        remove_headers=tuple(name for name in dict.fromkeys(remove) if name != DECISION_ID),
        body=body,
        skip_request_body=skip_request_body,
        metadata=decision_metadata(decision),
    )


def refuse(decision: Decision, reply: Reply) -> RespondImmediately:
    """Answer in the caller's dialect; `details` names the policy in Envoy's access log."""
    return RespondImmediately(
        status=reply.status,
        headers={**reply.headers, DECISION_ID: decision.id},
        body=reply.body,
        details=f"ai_policy_denied[{decision.determining or decision.reason}]",
        metadata=decision_metadata(decision),
    )


def tell(reply: Reply) -> RespondImmediately:
    """Answer a caller who asked about itself; no decision was made."""
    return RespondImmediately(
        status=reply.status,
        headers={"content-type": "application/json", "cache-control": "no-store", **reply.headers},
        body=reply.body,
        details="ai_policy_told",
    )


NOT_TOLD = Reply(
    status=503,
    headers={"retry-after": "1"},
    body=b'{"error":{"message":"The ledger did not answer in time. Please try again.",'
    b'"type":"api_error","code":"ledger_unavailable"}}',
)


def pass_with_id(decision_id: str) -> Continue:
    """Let an answer that Envoy made itself pass, with the id that every answer carries."""
    return Continue(phase=ResponseHeaders, set_headers={DECISION_ID: decision_id})


def response_headers(
    decision: Decision,
    wire_format: WireFormat,
    *,
    now_s: float,
    with_limits: bool,
    reads_body: bool,
    changes_body: bool,
) -> Continue:
    """Name the decision and the tightest limits; ask for the body where it must be read.

    The body is asked for STREAMED whatever its type: BUFFERED turns an answer over the route's buffer
    limit into a 500 (12 MB at 8 MiB, on 1.38 and 1.40). Asking by override keeps the answer's
    content-length; a changed body loses it.
    """
    headers = {DECISION_ID: decision.id}
    if decision.warnings:
        headers[WARNING] = ascii_only("; ".join(decision.warnings))[:_LONGEST_WARNING]
    if with_limits:
        provider = decision.request.provider if decision.request else ""
        headers |= wire_format.limit_headers(limits(decision), now_s, provider)
    return Continue(
        phase=ResponseHeaders,
        set_headers=headers,
        remove_headers=("content-length",) if changes_body else (),
        read_response_body="STREAMED" if reads_body else "",
    )


def limits(decision: Decision) -> tuple[LimitState, ...]:
    """Every enforced limit that this decision took from; a shadow limit is nobody's business yet."""
    return tuple(
        finding.limit
        for finding in decision.spoken
        if finding.limit is not None and finding.mode is Mode.ENFORCE and finding.limit.reserved > 0
    )


def decision_metadata(decision: Decision) -> dict[str, str | int]:
    """For Envoy's access log, its ingress span and its rate limit filter."""
    request = decision.request
    metadata: dict[str, str | int] = {
        "decision_id": decision.id,
        "effect": decision.effect,
        "enforced_effect": decision.enforced_effect,
        "reason": decision.reason,
        "policy": str(decision.determining or ""),
        "revision": decision.revision,
        "team": decision.identity.team,
        "model": decision.upstream_model,
        "provider": request.provider if request else "",
        "api": request.api if request else "",
        "stream": int(request.stream) if request else 0,
        "input_tokens": decision.tokens.input,
        # Present from the start, so that a rate limit descriptor that adds it is never dropped.
        "output_tokens": 0,
    }
    return metadata


def usage_metadata(usage: Usage | None, cost: Cost | None) -> dict[str, str | int]:
    """What the answer reported, in place of the estimate, and what it cost."""
    metadata: dict[str, str | int] = {}
    if usage is not None:
        counts = {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "reasoning_output_tokens": usage.reasoning_output_tokens,
        }
        metadata |= {name: count for name, count in counts.items() if count is not None}
    if cost is not None:
        metadata |= {"cost_nano_usd": cost.nano_usd, "cost_revision": cost.revision}
    return metadata
