"""RateLimit: how much of one unit may pass in a window, for each distinct key.

Floor 1, pure: turns a request into charges. The arithmetic of buckets is `limits`'.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from extproc.decision import Charge, Effect, Mode, TokenBucket, Unit
from extproc.model import AIRequest, TokenEstimate
from extproc.policy.cel import Expression, Failure
from extproc.policy.objects import (
    Block,
    DurationUs,
    KeyPart,
    Match,
    PolicyObject,
    PolicySpec,
    always,
    rejected,
)

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
# Far above any real limit, far below what counters in 64 bits scaled by a window could not hold.
MAX_AMOUNT = 10**11
_SHOWN_KEY_CHARACTERS = 128
_LONGEST_PLAIN_KEY = 256
_WRITE_KEY = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

Amount = int | None
_UNITS = (Unit.REQUESTS, Unit.TOKENS, Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS)


class Limit(Block):
    """One amount of one unit, the window it refills in, and how much may come at once."""

    requests: Amount = Field(default=None, ge=1, le=MAX_AMOUNT)
    tokens: Amount = Field(default=None, ge=1, le=MAX_AMOUNT)
    input_tokens: Amount = Field(default=None, ge=1, le=MAX_AMOUNT)
    output_tokens: Amount = Field(default=None, ge=1, le=MAX_AMOUNT)
    per: DurationUs
    burst: Amount = Field(default=None, ge=1, le=MAX_AMOUNT)

    @model_validator(mode="after")
    def _one_unit(self) -> Limit:
        if sum(getattr(self, unit) is not None for unit in _UNITS) != 1:
            raise rejected("exactly one of requests, tokens, inputTokens, outputTokens must be given")
        if not SECOND_US <= self.per <= 31 * DAY_US:
            raise rejected("per must be between 1s and 31d")
        return self

    @cached_property
    def unit(self) -> Unit:
        """What is counted."""
        return next(unit for unit in _UNITS if getattr(self, unit) is not None)

    @cached_property
    def amount(self) -> int:
        """What is refilled in every window."""
        amount: int = getattr(self, self.unit)
        return amount

    @cached_property
    def size(self) -> int:
        """The most that is ever there at once."""
        return self.burst or self.amount


def _counts_whoever_comes(expression: Expression, info: ValidationInfo) -> Expression:
    """Refuse what lets a caller choose not to be counted, by a header that it leaves out."""
    if expression.unguarded and info.data.get("on_error") is Effect.ALLOW:
        faults = [
            replace(fault, message=f"{fault.message}, or set onError: deny") for fault in expression.unguarded
        ]
        raise rejected("; ".join(fault.message for fault in faults), faults=faults)
    return expression


_CountsWhoeverComes = AfterValidator(_counts_whoever_comes)


class RateLimit(PolicySpec):
    """A token bucket for each distinct `key` among the requests that `match`."""

    on_error: Effect = Effect.ALLOW  # before the expressions: what they may be depends on it
    match: Annotated[Match, _CountsWhoeverComes] = Field(default_factory=always)
    key: tuple[Annotated[KeyPart, _CountsWhoeverComes], ...] = ()
    limit: Limit
    algorithm: Literal["tokenBucket"] = "tokenBucket"
    reserve: Literal["expected", "declared"] | None = None


def key_of(limit: PolicyObject[RateLimit], facts: Any) -> tuple[str, ...] | Failure:
    """The evaluated key; a part that fails makes no counter."""
    parts: list[str] = []
    for expression in limit.spec.key:
        value = expression.evaluate(facts)
        if isinstance(value, Failure):
            return value
        parts.append(str(value))
    return tuple(parts)


def charge(
    limit: PolicyObject[RateLimit],
    key: tuple[str, ...],
    request: AIRequest | None,
    tokens: TokenEstimate,
    *,
    reserve: str,
    expected_output_tokens: int | None,
) -> Charge | None:
    """What this limit takes for this request; None where the request spends nothing of its unit.

    `reserve` "declared" takes the whole output ceiling; "expected" takes at most
    `expected_output_tokens` a choice, where that was learned.
    """
    spec = limit.spec.limit
    amount, minimum = _amounts(
        spec.unit, request, tokens, expected_output_tokens if reserve == "expected" else None
    )
    if amount == 0:
        return None
    return Charge(
        policy=limit.ref,
        counter=_counter(limit, key),
        unit=spec.unit,
        amount=amount,
        minimum=minimum,
        window=TokenBucket(spec.amount, spec.per, spec.size),
        enforced=limit.mode is Mode.ENFORCE,
        must_count=limit.spec.on_error is Effect.DENY,
        key=tuple(part[:_SHOWN_KEY_CHARACTERS] for part in key),
    )


def _amounts(
    unit: Unit, request: AIRequest | None, tokens: TokenEstimate, expected: int | None
) -> tuple[int, int]:
    """What to take, and the least that will do."""
    if unit is Unit.REQUESTS:
        return 1, 1
    if request is None or request.operation == "control":
        return 0, 0
    if unit is Unit.INPUT_TOKENS:
        return tokens.input, tokens.input
    one_choice = tokens.max_output if expected is None else min(tokens.max_output, expected)
    output = one_choice * request.choices
    given = tokens.input if unit is Unit.TOKENS else 0
    # Without a declared ceiling a small limit stays usable: whatever it has left will do.
    least = output if request.max_output_tokens is not None else min(output, 1)
    return given + output, given + least


def _counter(limit: PolicyObject[RateLimit], key: tuple[str, ...]) -> str:
    """The counter's identity: the amount is no part of it, so that editing it keeps what was used."""
    spec = limit.spec
    written = _WRITE_KEY(key)
    if len(written) > _LONGEST_PLAIN_KEY:
        written = hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{limit.ref}|{spec.limit.unit}|{spec.algorithm}|{spec.limit.per}|{written}"
