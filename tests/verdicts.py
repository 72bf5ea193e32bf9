"""Decisions and settlements as telemetry is told of them."""

from __future__ import annotations

from typing import Any

from extproc.decision import (
    Decision,
    Denial,
    Effect,
    Finding,
    LimitState,
    Mode,
    Outcome,
    PolicyRef,
    Reason,
    Settlement,
    Unit,
)
from extproc.model import AIRequest, Basis, Identity, RequestHead, TokenEstimate, Usage

LIMIT = LimitState(
    unit=Unit.TOKENS,
    limit=1000,
    window_s=60,
    used=900,
    requested=200,
    reserved=0,
    remaining=100,
    reset_ms=54_000,
    wait_ms=6_000,
)


def decision(**changes: Any) -> Decision:
    """An allowed one."""
    values: dict[str, Any] = {
        "id": "d-1",
        "effect": Effect.ALLOW,
        "enforced_effect": Effect.ALLOW,
        "reason": Reason.ALLOWED,
        "determining": None,
        "findings": (),
        "revision": "abc",
        "started_at_ns": 1_000_000,
        "decided_at_ns": 2_000_000,
        "head": RequestHead(method="POST", host="h", path="/v1/chat/completions?key=secret"),
        "identity": Identity(id="demo", team="demo"),
        "request": AIRequest(api="openai_chat", provider="openai", operation="chat", model="gpt-4o-mini"),
        "tokens": TokenEstimate(input=8, estimator="tiktoken:o200k_base"),
    }
    return Decision(**(values | changes))


def denied(**changes: Any) -> Decision:
    """One that a limit denied."""
    ref = PolicyRef("RateLimit", "team-tokens")
    finding = Finding(
        policy=ref,
        outcome=Outcome.MATCHED,
        effect=Effect.DENY,
        reason=Reason.RATE_LIMITED,
        limit=LIMIT,
        determining=True,
    )
    values: dict[str, Any] = {
        "effect": Effect.DENY,
        "enforced_effect": Effect.DENY,
        "reason": Reason.RATE_LIMITED,
        "determining": ref,
        "findings": (finding,),
        "denial": Denial(status=429, reason=Reason.RATE_LIMITED, message="m", decision_id="d-1"),
    }
    return decision(**(values | changes))


def shadow_denied(**changes: Any) -> Decision:
    """One that a policy on trial would have denied."""
    finding = Finding(
        policy=PolicyRef("AccessRule", "new"), outcome=Outcome.MATCHED, mode=Mode.SHADOW, effect=Effect.DENY
    )
    return decision(findings=(finding,), **changes)


def settlement(**changes: Any) -> Settlement:
    """What an allowed one came to."""
    values: dict[str, Any] = {
        "decision_id": "d-1",
        "basis": Basis.PROVIDER,
        "usage": Usage(input_tokens=8, output_tokens=3),
        "amounts": {},
        "status": 200,
        "ended_at_ns": 3_000_000,
    }
    return Settlement(**(values | changes))
