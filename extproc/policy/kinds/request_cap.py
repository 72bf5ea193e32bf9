"""RequestCap: how large one request may be. Its input is counted, its output is what it may become.

Floor 1, pure. How several caps combine is `sizes`'; how a body is told to ask for less, `formats.rewrite`'s.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from extproc.decision import Effect, Finding, Outcome, PolicyRef, Reason
from extproc.formats.base import CONTROL
from extproc.formats.fields import MAX_COUNT
from extproc.model import AIRequest, TokenEstimate
from extproc.policy.cel import Failure
from extproc.policy.objects import Match, PolicyObject, PolicySpec, always, one_or_more, rejected, unguarded


class RequestCap(PolicySpec):
    """The most input, and the most output of all choices together, of one request that `match` says.

    A request that declares no output limit may generate whatever its model can, so that is what counts:
    else a cap would be left by leaving a field out. `deny` tells such a caller which limit to declare;
    `clamp` declares it in its place, and lowers one that is larger. Input cannot be clamped.
    """

    model_config = ConfigDict(
        json_schema_extra={
            **one_or_more("inputTokens", "outputTokens"),
            "if": {"properties": {"onExceed": {"const": "clamp"}}, "required": ["onExceed"]},
            "then": {"required": ["outputTokens"]},
        }
    )

    match: Match = Field(default_factory=always)
    """CEL, true or false: which requests are capped; left out: every AI request."""
    input_tokens: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    """The most input tokens of one request."""
    output_tokens: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    """The most output tokens of one request, of all its choices together."""
    on_exceed: Literal["deny", "clamp"] = "deny"
    """deny answers 413; clamp lowers the output limit of the request, or declares one."""
    on_error: Effect = Effect.DENY
    """What a failing match means: deny denies, allow leaves the cap out."""

    @model_validator(mode="after")
    def _says_enough(self) -> RequestCap:
        if self.input_tokens is None and self.output_tokens is None:
            raise rejected("inputTokens or outputTokens must be given")
        if self.on_exceed == "clamp" and self.output_tokens is None:
            raise rejected("onExceed: clamp lowers the output, and needs outputTokens", at=("onExceed",))
        if self.on_error is Effect.ALLOW and self.match.unguarded:
            raise unguarded(self.match, at=("match",))
        return self

    @property
    def needs_token_counts(self) -> bool:
        """Whether it asks how many tokens the input has."""
        return self.input_tokens is not None


def ask(
    cap: PolicyObject[RequestCap], activated: Any, request: AIRequest | None, tokens: TokenEstimate
) -> tuple[Finding, int | None]:
    """What one cap says, and the ceiling of one choice that it lowers the output to; None: as it is."""
    result = cap.spec.match.evaluate(activated)
    if isinstance(result, Failure):
        return _failed(cap, result), None
    if not result:
        return Finding(policy=cap.ref, outcome=Outcome.NOT_MATCHED, mode=cap.mode), None
    if request is None or request.operation == CONTROL:
        return _found(cap, Reason.ALLOWED), None
    return _measured(cap, request, tokens)


def _measured(
    cap: PolicyObject[RequestCap], request: AIRequest, tokens: TokenEstimate
) -> tuple[Finding, int | None]:
    spec = cap.spec
    if spec.input_tokens is not None and tokens.input > spec.input_tokens:
        return _found(cap, Reason.REQUEST_EXCEEDS_LIMIT, _too_much_input(cap, tokens)), None
    if spec.output_tokens is None or tokens.max_output * request.choices <= spec.output_tokens:
        return _found(cap, Reason.ALLOWED), None
    ceiling = spec.output_tokens // request.choices
    # Less than one token a choice is no answer: then there are too many choices.
    if spec.on_exceed == "clamp" and ceiling > 0:
        return _found(cap, Reason.CLAMPED, _lowered(cap.ref, tokens.max_output, ceiling)), ceiling
    message = _too_much_output(cap.ref, spec.output_tokens, request, tokens)
    return _found(cap, Reason.REQUEST_EXCEEDS_LIMIT, message), None


def _found(cap: PolicyObject[RequestCap], reason: Reason, message: str = "") -> Finding:
    return Finding(
        policy=cap.ref,
        outcome=Outcome.MATCHED,
        mode=cap.mode,
        effect=Effect.DENY if reason is Reason.REQUEST_EXCEEDS_LIMIT else Effect.ALLOW,
        reason=reason,
        message=message,
    )


def _failed(cap: PolicyObject[RequestCap], failure: Failure) -> Finding:
    return Finding(
        policy=cap.ref,
        outcome=Outcome.ERRORED,
        mode=cap.mode,
        effect=Effect.DENY if cap.spec.on_error is Effect.DENY else None,
        reason=Reason.POLICY_ERROR,
        message=f"The match of {cap.ref} failed: {failure.code}.",
    )


def _too_much_input(cap: PolicyObject[RequestCap], tokens: TokenEstimate) -> str:
    counted = tokens.input if tokens.exact else f"about {tokens.input}"
    return (
        f"{cap.ref} accepts at most {cap.spec.input_tokens} input tokens in one request, and this one has "
        f"{counted}. Trying again does not help; a shorter input would."
    )


def _too_much_output(policy: PolicyRef, most: int, request: AIRequest, tokens: TokenEstimate) -> str:
    output = tokens.max_output * request.choices
    asks = (
        f"asks for up to {output}"
        if request.max_output_tokens is not None
        else f"declares no output limit, so that its model may generate up to {output}"
    )
    ceiling = most // request.choices
    remedy = f"an output limit (max_tokens) of at most {ceiling}" if ceiling > 0 else "fewer choices"
    return (
        f"{policy} accepts at most {most} output tokens in one request, and this one {asks}. "
        f"Trying again does not help; {remedy} would."
    )


def _lowered(policy: PolicyRef, before: int, after: int) -> str:
    return f"{policy} lowers the output limit of this request from {before} to {after} tokens a choice."
