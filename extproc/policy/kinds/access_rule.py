"""AccessRule: which requests may pass. A deny beats every allow; a failed match never grants.

Floor 1, pure. How rules combine is the engine's.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import Field

from extproc.decision import Effect, Finding, Outcome, Reason
from extproc.policy.cel import Failure
from extproc.policy.objects import Match, PolicyObject, PolicySpec, always

# Facts that are known before a byte of body was read.
_HEADER_FACTS = frozenset({"request.method", "request.host", "request.path", "request.headers", "now"})
_HEADER_VARIABLES = ("identity", "source")


class AccessRule(PolicySpec):
    """Allow or deny what `match` says; `message` is told to who is denied."""

    effect: Effect
    """What becomes of the requests that match; a deny beats every allow."""
    match: Match = Field(default_factory=always)
    """CEL, true or false, asked for every model that the body names; left out: every AI request."""
    message: str = Field(default="", max_length=500)
    """What the caller is told who is denied."""
    on_error: Effect = Effect.DENY
    """What a failing match means: deny denies, allow leaves the rule out; neither grants."""

    @cached_property
    def needs_only_headers(self) -> bool:
        """Whether the answer is known before the body."""
        return all(
            fact in _HEADER_FACTS or fact.partition(".")[0] in _HEADER_VARIABLES for fact in self.match.reads
        )


def ask(rule: PolicyObject[AccessRule], facts: Any, *, model: str = "") -> Finding | None:
    """What one rule says about the activated facts; None where it does not match.

    `model` is the name it was asked about.
    """
    spec = rule.spec
    result = spec.match.evaluate(facts)
    if isinstance(result, Failure):
        return Finding(
            policy=rule.ref,
            outcome=Outcome.ERRORED,
            mode=rule.mode,
            effect=Effect.DENY if spec.on_error is Effect.DENY else None,
            reason=Reason.POLICY_ERROR,
            message=f"The match of {rule.ref} failed: {result.code}.",
            evaluated_model=model,
        )
    if not result:
        return None
    is_deny = spec.effect is Effect.DENY
    return Finding(
        policy=rule.ref,
        outcome=Outcome.MATCHED,
        mode=rule.mode,
        effect=spec.effect,
        reason=Reason.ACCESS_DENIED if is_deny else Reason.ALLOWED,
        message=spec.message,
        evaluated_model=model,
    )
