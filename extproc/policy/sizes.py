"""How request caps combine, and what a request may ask for once it is changed.

Floor 1, pure. A denial beats every clamp, and the smallest clamp wins. What one cap says is
`kinds.request_cap`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from extproc.decision import Effect, Finding, Mode, PolicyRef, Reason
from extproc.errors import RequestRefused
from extproc.measure.ceilings import call_ceiling
from extproc.model import AIRequest, TokenEstimate
from extproc.policy.findings import first_enforced_deny
from extproc.policy.kinds.request_cap import RequestCap, ask
from extproc.policy.objects import PolicyObject

Caps = tuple[PolicyObject[RequestCap], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What the caps say together; without `deny` the request may pass with the ceiling that is left."""

    findings: tuple[Finding, ...] = ()
    deny: Finding | None = None  # errored, or with a message that its caller may be told
    clamp: Finding | None = None  # of the cap that sets `max_output_tokens`
    max_output_tokens: int | None = None  # of one choice; None: as it is


def assess(caps: Caps, activated: object, request: AIRequest | None, tokens: TokenEstimate) -> Assessment:
    """Ask active caps about the request as it came; `activated` is the facts, ready for CEL.

    What one cap lowers another still denies: the caller asked for it.
    """
    answers = [ask(cap, activated, request, tokens) for cap in caps]
    findings = tuple(finding for finding, _ in answers)
    clamps = [
        (ceiling, finding.policy, finding)
        for finding, ceiling in answers
        if ceiling is not None and finding.mode is Mode.ENFORCE
    ]
    smallest = min(clamps, key=_precedence, default=None)
    return Assessment(
        findings=findings,
        deny=first_enforced_deny(findings),
        clamp=smallest[2] if smallest else None,
        max_output_tokens=smallest[0] if smallest else None,
    )


def clamped(
    request: AIRequest, tokens: TokenEstimate, max_output_tokens: int
) -> tuple[AIRequest, TokenEstimate]:
    """The request and its estimate as they are with a lower ceiling: what limits are to reserve."""
    return (
        replace(request, max_output_tokens=max_output_tokens),
        replace(tokens, max_output=max_output_tokens),
    )


def with_model(request: AIRequest, tokens: TokenEstimate, model: str) -> tuple[AIRequest, TokenEstimate]:
    """The request and its estimate as they are with another model: what limits are to reserve."""
    if request.max_output_tokens is None:
        # Nothing in its body keeps the other model from generating more than the first one could.
        tokens = replace(tokens, max_output=call_ceiling(request.provider, model, request.operation))
    return replace(request, model=model, models=(model,)), tokens


def not_clamped(clamp: Finding, refused: RequestRefused) -> Finding:
    """What a cap says of a request that cannot be told to ask for less: it must not pass as it is."""
    return replace(
        clamp,
        effect=Effect.DENY,
        reason=Reason.REQUEST_EXCEEDS_LIMIT,
        message=f"{clamp.policy} limits this request. {refused.message}",
    )


def _precedence(clamp: tuple[int, PolicyRef, Finding]) -> tuple[int, PolicyRef]:
    return clamp[:2]
