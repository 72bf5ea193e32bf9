"""Decisions, settlements and changes as the ledger gets them."""

from __future__ import annotations

from typing import Any

from extproc.decision import (
    Charge,
    ChargeOutcome,
    Cost,
    Decision,
    Denial,
    Effect,
    Finding,
    LimitState,
    Outcome,
    PolicyRef,
    Reason,
    Settlement,
    TokenBucket,
    Unit,
)
from extproc.ledger.base import Change
from extproc.model import AIRequest, Basis, Identity, RequestHead, Source, TokenEstimate, Trace, Usage

REF = PolicyRef("RateLimit", "team-tokens")
COUNTER = "RateLimit/team-tokens|tokens|tokenBucket|60|[demo]"
RESERVED = 600
LIMIT = LimitState(
    unit=Unit.TOKENS,
    limit=1000,
    window_s=60,
    used=100,
    requested=110,
    reserved=RESERVED,
    remaining=300,
    reset_ms=42_000,
    wait_ms=0,
    key=("demo",),
)
SECOND_NS = 1_000_000_000
TRACE = Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


def outcome(counter: str = COUNTER, reserved: int = RESERVED) -> ChargeOutcome:
    charge = Charge(
        policy=REF,
        counter=counter,
        unit=Unit.TOKENS,
        amount=reserved,
        minimum=110,
        window=TokenBucket(1000, 60_000_000, 1000),
        key=("demo",),
    )
    return ChargeOutcome(
        charge=charge,
        granted=True,
        reserved=reserved,
        used=100,
        remaining=300,
        wait_us=0,
        reset_us=42_000_000,
        limit=1000,
    )


def allowed(number: int = 1, *, at_s: int = 1000, **changes: Any) -> Decision:
    """A decision that waits for its settlement."""
    values: dict[str, Any] = {
        "id": f"decision-{number:06}",
        "effect": Effect.ALLOW,
        "enforced_effect": Effect.ALLOW,
        "reason": Reason.ALLOWED,
        "determining": None,
        "findings": (
            Finding(policy=PolicyRef("AccessRule", "chat"), outcome=Outcome.MATCHED, effect=Effect.ALLOW),
            Finding(policy=REF, outcome=Outcome.MATCHED, effect=Effect.ALLOW, limit=LIMIT),
        ),
        "revision": "5f2a",
        "started_at_ns": at_s * SECOND_NS - 1_000_000,
        "decided_at_ns": at_s * SECOND_NS,
        "trace": TRACE,
        "head": RequestHead(
            method="POST",
            host="api.example.com",
            path="/v1/chat/completions",
            source=Source(address="10.0.0.1", route="chat"),
        ),
        "identity": Identity(
            id="demo", user="ada", team="demo", key="demo-key", groups=("a",), authenticated=True
        ),
        "request": AIRequest(
            api="openai_chat",
            provider="openai",
            operation="chat",
            model="gpt-4o-mini",
            models=("gpt-4o-mini",),
            max_output_tokens=500,
            body_bytes=300,
        ),
        "tokens": TokenEstimate(input=100, max_output=500, exact=True, estimator="tiktoken:o200k_base"),
        "outcomes": (outcome(),),
    }
    return Decision(**(values | changes))


def denied(number: int = 1, **changes: Any) -> Decision:
    """A decision that is over with its verdict."""
    finding = Finding(
        policy=REF, outcome=Outcome.MATCHED, effect=Effect.DENY, reason=Reason.RATE_LIMITED,
        limit=LIMIT, determining=True,
    )  # fmt: skip
    decision = allowed(number)
    denial = Denial(
        status=429,
        reason=Reason.RATE_LIMITED,
        message="RateLimit/team-tokens has 300 of 1,000 tokens left.",
        decision_id=decision.id,
        policy=REF,
        retry_after_ms=6000,
        limit=LIMIT,
        at_ns=decision.decided_at_ns,
    )
    values: dict[str, Any] = {
        "effect": Effect.DENY,
        "enforced_effect": Effect.DENY,
        "reason": Reason.RATE_LIMITED,
        "determining": REF,
        "findings": (finding,),
        "outcomes": (),
        "denial": denial,
    }
    return allowed(number, **(values | changes))


def settlement(number: int = 1, *, at_s: int = 1010, **changes: Any) -> Settlement:
    values: dict[str, Any] = {
        "decision_id": f"decision-{number:06}",
        "basis": Basis.PROVIDER,
        "usage": Usage(input_tokens=90, output_tokens=0),
        "amounts": {COUNTER: 90},
        "cost": Cost(1200, "prices-7"),
        "status": 200,
        "model": "gpt-4o-mini-2024-07-18",
        "finish_reasons": ("stop",),
        "first_byte_at_ns": (at_s - 5) * SECOND_NS,
        "ended_at_ns": at_s * SECOND_NS,
    }
    return Settlement(**(values | changes))


def reset(number: int = 1) -> Change:
    return Change(
        change_id=f"change-{number:06}",
        at_ns=1_000 * SECOND_NS,
        action="counter_reset",
        subject=str(REF),
        key=("demo",),
        details={"by": "ops", "used": 900},
    )
