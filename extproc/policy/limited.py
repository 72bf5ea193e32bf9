"""What kinds that count have in common: for whom they count, what, and which counter that is.

Floor 1, pure. A kind is a `LimitSpec` in `kinds/`; the arithmetic of counters is elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from datetime import UTC, tzinfo
from decimal import Decimal
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from extproc.decision import Charge, Effect, Mode, Reason, Unit, Window
from extproc.policy import money
from extproc.policy.cel import Expression, Failure
from extproc.policy.objects import (
    Block,
    KeyPart,
    Match,
    PolicyObject,
    PolicySpec,
    always,
    one_of,
    rejected,
    unguarded,
)
from extproc.policy.spending import NOTHING, Reserve, Taken

SECOND_US: Final = 1_000_000
DAY_US: Final = 86_400 * SECOND_US
# Far above any real limit, far below what counters in 64 bits scaled by a window could not hold.
MAX_AMOUNT: Final = 10**11
_MAX_USD: Final = 4_000_000
_SHOWN_KEY_CHARACTERS = 128
_LONGEST_PLAIN_KEY = 256
_WRITE_KEY = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
# Nothing here depends on how many tokens the input has; output has its ceiling.
_UNCOUNTED: Final = frozenset({Unit.REQUESTS, Unit.OUTPUT_TOKENS, Unit.CONCURRENT_REQUESTS})

Amount = int | None
_FIELDS: Mapping[Unit, str] = MappingProxyType(
    {
        Unit.REQUESTS: "requests",
        Unit.TOKENS: "tokens",
        Unit.INPUT_TOKENS: "inputTokens",
        Unit.OUTPUT_TOKENS: "outputTokens",
        Unit.COST_USD: "costUsd",
    }
)


# How JSON Schema says it.
ONE_UNIT: Final = one_of(*_FIELDS.values())


def nano_usd(value: Any) -> int:
    """The dollars of a policy file in nano-dollars. Raises what validators raise."""
    dollars = money.decimal(value)
    if not 0 < dollars <= _MAX_USD:
        raise rejected(f"dollars must be more than 0 and at most {_MAX_USD}")
    return money.nano_usd(dollars)


class Quantity(Block):
    """An amount of exactly one unit."""

    model_config = ConfigDict(json_schema_extra=ONE_UNIT)

    requests: Amount = Field(default=None, ge=1, le=MAX_AMOUNT)
    """How many requests."""
    tokens: Amount = Field(default=None, ge=1, le=MAX_AMOUNT)
    """How many tokens, input and output together."""
    input_tokens: Amount = Field(default=None, ge=1, le=MAX_AMOUNT)
    """How many input tokens."""
    output_tokens: Amount = Field(default=None, ge=1, le=MAX_AMOUNT)
    """How many output tokens."""
    # Nano-dollars once loaded.
    cost_usd: Annotated[
        Amount,
        PlainValidator(nano_usd),
        WithJsonSchema({**money.AMOUNT_SCHEMA, "exclusiveMinimum": 0, "maximum": _MAX_USD}),
    ] = None
    """How many US dollars."""

    @model_validator(mode="after")
    def _one_unit(self) -> Quantity:
        if sum(getattr(self, unit) is not None for unit in _FIELDS) != 1:
            raise rejected(f"exactly one of {', '.join(_FIELDS.values())} must be given")
        return self

    @cached_property
    def unit(self) -> Unit:
        """What is counted."""
        return next(unit for unit in _FIELDS if getattr(self, unit) is not None)

    @cached_property
    def amount(self) -> int:
        """How much of it; nano-dollars where it is money."""
        amount: int = getattr(self, self.unit)
        return amount


def _counts_whoever_comes(expression: Expression, info: ValidationInfo) -> Expression:
    """Refuse what lets a caller choose not to be counted, by a header that it leaves out."""
    if expression.unguarded and info.data.get("on_error") is Effect.ALLOW:
        raise unguarded(expression)
    return expression


_CountsWhoeverComes = AfterValidator(_counts_whoever_comes)


class LimitSpec(PolicySpec):
    """The `spec` of a kind that counts: one counter for each distinct `key` among requests that `match`."""

    on_error: Effect = Effect.ALLOW  # before the expressions: what they may be depends on it
    """What an unreachable store or a failing expression means: deny denies, allow lets pass."""
    match: Annotated[Match, _CountsWhoeverComes] = Field(default_factory=always)
    """CEL, true or false: which requests are counted; left out: every AI request."""
    key: tuple[Annotated[KeyPart, _CountsWhoeverComes], ...] = ()
    """CEL, texts: one counter for each distinct combination; left out: one for all."""

    full: ClassVar[Reason]  # why a request is denied that may come later

    @property
    @abstractmethod
    def unit(self) -> Unit:
        """What is counted."""

    @property
    @abstractmethod
    def counted(self) -> str:
        """The algorithm and its window, as the identity of a counter has them: a change starts it anew."""

    @property
    @abstractmethod
    def per(self) -> str:
        """The window in a message, after the amount: `per 1m`."""

    @abstractmethod
    def window(self, at_us: int) -> Window:
        """The window as it is at this Unix time."""

    def reserves(self, _default: Reserve | None) -> Reserve:
        """How much output is set aside, given what Defaults says."""
        return "declared"

    @property
    def zone(self) -> tzinfo:
        """Whose clock messages show."""
        return UTC

    @property
    def warning_shares(self) -> tuple[Decimal, ...]:
        """The shares of the limit from which on callers are warned."""
        return ()

    @property
    def substitute(self) -> str:
        """The model that is offered where the limit is reached; empty: none, requests are denied."""
        return ""

    @property
    def needs_token_counts(self) -> bool:
        """Whether it must be known how many tokens the input has."""
        return self.unit not in _UNCOUNTED


Limit = PolicyObject[LimitSpec]


def key_of(limit: Limit, facts: Any) -> tuple[str, ...] | Failure:
    """The evaluated key; a part that fails makes no counter."""
    parts: list[str] = []
    for expression in limit.spec.key:
        value = expression.evaluate(facts)
        if isinstance(value, Failure):
            return value
        parts.append(str(value))
    return tuple(parts)


def charge(
    limit: Limit, key: tuple[str, ...], taken: Taken, at_us: int, *, is_spared: bool = False
) -> Charge:
    """What this limit takes from the counter of `key`.

    A request that `is_spared` is counted while there is room, and never denied.
    """
    spec = limit.spec
    return Charge(
        policy=limit.ref,
        counter=_counter(limit, key),
        unit=spec.unit,
        amount=taken.amount,
        minimum=taken.minimum,
        window=spec.window(at_us),
        enforced=limit.mode is Mode.ENFORCE and not is_spared,
        must_count=spec.on_error is Effect.DENY,
        key=tuple(part[:_SHOWN_KEY_CHARACTERS] for part in key),
    )


def probe(limit: Limit, key: tuple[str, ...], at_ns: int) -> Charge:
    """A charge that takes nothing: what reads, resets or overrides the counter of `key`.

    `key` has a value for each expression of the limit's key, in order.
    """
    return charge(limit, key, NOTHING, at_ns // 1_000)


def _counter(limit: Limit, key: tuple[str, ...]) -> str:
    """The counter's identity: the amount is no part of it, so that editing it keeps what was used."""
    written = _WRITE_KEY(key)
    if len(written) > _LONGEST_PLAIN_KEY:
        written = hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{limit.ref}|{limit.spec.unit}|{limit.spec.counted}|{written}"
