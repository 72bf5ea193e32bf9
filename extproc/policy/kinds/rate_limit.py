"""RateLimit: how much of one unit may pass in a window, for each distinct key.

Floor 1, pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, PlainValidator, ValidationInfo, WithJsonSchema, model_validator

from extproc.decision import Reason, SlidingWindow, TokenBucket, Unit, Window
from extproc.policy import money
from extproc.policy.denials import duration
from extproc.policy.limited import DAY_US, MAX_AMOUNT, ONE_UNIT, SECOND_US, LimitSpec, Quantity, nano_usd
from extproc.policy.objects import DurationUs, rejected
from extproc.policy.spending import Reserve


def _burst(value: Any, info: ValidationInfo) -> int:
    """The burst in the unit of the amount, which was read before."""
    if info.data.get("cost_usd") is not None:
        return nano_usd(value)
    if type(value) is not int or not 1 <= value <= MAX_AMOUNT:
        raise rejected(f"burst must be a whole number between 1 and {MAX_AMOUNT}")
    return value


class RateLimitAmount(Quantity):
    """One amount of one unit, the window it refills in, and how much may come at once."""

    model_config = ConfigDict(
        json_schema_extra={
            **ONE_UNIT,
            "if": {"not": {"required": ["costUsd"]}},
            "then": {"properties": {"burst": {"type": "integer"}}},
        }
    )

    per: DurationUs
    """The window, between 1s and 31d: how long a bucket takes to refill."""
    burst: Annotated[
        int | None,
        PlainValidator(_burst),
        WithJsonSchema({**money.AMOUNT_SCHEMA, "exclusiveMinimum": 0, "maximum": MAX_AMOUNT}),
    ] = None
    """The most that may come at once, in the unit of the amount; left out: the amount."""

    @model_validator(mode="after")
    def _window(self) -> RateLimitAmount:
        if not SECOND_US <= self.per <= 31 * DAY_US:
            raise rejected("per must be between 1s and 31d", at=("per",))
        return self

    @cached_property
    def size(self) -> int:
        """The most that is ever there at once."""
        return self.burst or self.amount


class RateLimit(LimitSpec):
    """A rate for each distinct `key` among the requests that `match`."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"algorithm": {"const": "slidingWindow"}}, "required": ["algorithm"]},
            "then": {"properties": {"limit": {"not": {"required": ["burst"]}}}},
        }
    )

    limit: RateLimitAmount
    """How much of one unit may pass in a window."""
    # A bucket refills evenly and allows bursts; a sliding window never passes more in any stretch of `per`.
    algorithm: Literal["tokenBucket", "slidingWindow"] = "tokenBucket"
    """A bucket refills evenly and allows bursts; a sliding window never passes more in any stretch of per."""
    reserve: Reserve | None = None
    """How much output to set aside: the declared ceiling, or what is expected. Left out: Defaults."""

    full: ClassVar[Reason] = Reason.RATE_LIMITED

    @model_validator(mode="after")
    def _burst_of_a_bucket(self) -> RateLimit:
        if self.limit.burst is not None and self.algorithm != "tokenBucket":
            raise rejected("burst goes with algorithm: tokenBucket alone", at=("limit", "burst"))
        return self

    @property
    def unit(self) -> Unit:
        """What is counted."""
        return self.limit.unit

    @property
    def counted(self) -> str:
        """The algorithm and its window."""
        return f"{self.algorithm}|{self.limit.per}"

    @property
    def per(self) -> str:
        """The window in a message."""
        return f"per {duration(self.limit.per)}"

    def window(self, _at_us: int) -> Window:
        """The same at any time."""
        return self._window

    @cached_property
    def _window(self) -> Window:
        return _WINDOWS[self.algorithm](self.limit)

    def reserves(self, default: Reserve | None) -> Reserve:
        """What answers usually need: a rate that is passed a little comes back soon."""
        return self.reserve or default or "expected"


_WINDOWS: Mapping[str, Callable[[RateLimitAmount], Window]] = MappingProxyType(
    {
        "tokenBucket": lambda limit: TokenBucket(limit.amount, limit.per, limit.size),
        "slidingWindow": lambda limit: SlidingWindow(limit.amount, limit.per),
    }
)
