"""UsageCap: how much of one unit may be used in a calendar period or any stretch of days, for each key.

Floor 1, pure.
"""

from __future__ import annotations

import re
from datetime import UTC, tzinfo
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any, ClassVar, Final, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import ConfigDict, PlainValidator, WithJsonSchema, model_validator

from extproc.decision import CalendarWindow, Effect, Reason, SlidingWindow, Unit, Window
from extproc.policy import calendar, money
from extproc.policy.calendar import Calendar
from extproc.policy.denials import duration
from extproc.policy.limited import DAY_US, LimitSpec, Quantity
from extproc.policy.objects import Block, DurationUs, one_of, rejected, whole
from extproc.policy.spending import Reserve
from extproc.policy.suggest import did_you_mean

_MINUTE_US: Final = 60_000_000
_MODEL: Final = re.compile(r"[^\s\x00-\x1f\x7f]{1,256}")


def _zone(value: Any) -> ZoneInfo:
    zone = calendar.zone(value) if isinstance(value, str) else None
    if zone is None:
        hint = did_you_mean(value, available_timezones())
        raise rejected(f"there is no such time zone; write its IANA name, such as Europe/Berlin{hint}")
    return zone


def _share(value: Any) -> Decimal:
    share = money.decimal(value)
    if not 0 < share < 1:
        raise rejected("a share is more than 0 and less than 1, such as 0.8")
    return share


class Substitute(Block):
    """Another model instead of a denial."""

    use_model: str
    """The model to send requests to where the cap is reached."""


def _on_exceed(value: Any) -> Literal["deny"] | Substitute:
    if value == "deny":
        return "deny"
    if isinstance(value, dict) and value.keys() == {"useModel"}:
        name = value["useModel"]
        if isinstance(name, str) and _MODEL.fullmatch(name):
            return Substitute.model_validate(value)
        raise rejected("useModel is the name of a model, as requests write it")
    raise rejected("onExceed is deny, or {useModel: NAME}")


class UsageCap(LimitSpec):
    """A budget for each distinct `key` among the requests that `match`; what it cannot count it denies.

    Where it is reached, `onExceed: {useModel: NAME}` sends requests to that model instead. Those that
    ask for NAME are counted while there is room, and never denied by this cap.
    """

    model_config = ConfigDict(
        json_schema_extra={**one_of("period", "rolling"), "dependentRequired": {"timezone": ["period"]}}
    )

    on_error: Effect = Effect.DENY
    """What an unreachable store, a failing expression or an unknown price means."""
    limit: Quantity
    """How much of one unit may be used."""
    period: Literal["hour", "day", "week", "month", "year"] | None = None
    """A calendar period; weeks begin on Monday."""
    timezone: Annotated[
        ZoneInfo | None,
        PlainValidator(_zone),
        WithJsonSchema({"type": "string", "examples": ["Europe/Berlin"]}),
    ] = None
    """Whose calendar, by its IANA name; left out: UTC."""
    rolling: DurationUs | None = None
    """Any stretch of this length instead of a calendar period, between 1m and 366d."""
    warn_at: tuple[
        Annotated[
            Decimal,
            PlainValidator(_share),
            WithJsonSchema({**money.AMOUNT_SCHEMA, "exclusiveMinimum": 0, "exclusiveMaximum": 1}),
        ],
        ...,
    ] = ()
    """Shares of the limit from which on answers carry x-ai-policy-warning."""
    on_exceed: Annotated[
        Literal["deny"] | Substitute,
        PlainValidator(_on_exceed),
        WithJsonSchema(
            {
                "oneOf": [
                    {"const": "deny"},
                    {
                        "type": "object",
                        "required": ["useModel"],
                        "additionalProperties": False,
                        "properties": {"useModel": {"type": "string", "pattern": whole(_MODEL)}},
                    },
                ]
            }
        ),
    ] = "deny"
    """deny, or {useModel: NAME}: send requests to another model."""
    reserve: Reserve | None = None
    """How much output to set aside: the declared ceiling, or what is expected. Left out: Defaults."""

    full: ClassVar[Reason] = Reason.CAP_REACHED

    @model_validator(mode="after")
    def _one_window(self) -> UsageCap:
        if (self.period is None) == (self.rolling is None):
            raise rejected("exactly one of period, rolling must be given")
        if self.timezone is not None and self.period is None:
            raise rejected("timezone goes with period: rolling looks at no calendar", at=("timezone",))
        if self.rolling is not None and not _MINUTE_US <= self.rolling <= 366 * DAY_US:
            raise rejected("rolling must be between 1m and 366d", at=("rolling",))
        return self

    @property
    def unit(self) -> Unit:
        """What is counted."""
        return self.limit.unit

    @cached_property
    def zone(self) -> tzinfo:
        """Whose calendar it is."""
        return self.timezone or UTC

    @cached_property
    def counted(self) -> str:
        """The algorithm and its window."""
        return f"slidingWindow|{self.rolling}" if self.rolling else f"calendar|{self.period} {self.zone}"

    @cached_property
    def per(self) -> str:
        """The window in a message."""
        if self.rolling:
            return f"in any {duration(self.rolling)}"
        return f"per {self.period} ({self.zone})"

    def window(self, at_us: int) -> Window:
        """The period of this time, with those around it."""
        if self.rolling:
            return SlidingWindow(self.limit.amount, self.rolling)
        return CalendarWindow(self.limit.amount, self.period or "", self._calendar.edges_us(at_us))

    @cached_property
    def _calendar(self) -> Calendar:
        return Calendar(self.period or "", self.zone)

    def reserves(self, default: Reserve | None) -> Reserve:
        """All that was declared: a cap is never exceeded while requests declare their output."""
        return self.reserve or default or "declared"

    @property
    def warning_shares(self) -> tuple[Decimal, ...]:
        """The shares of the limit from which on callers are warned."""
        return self.warn_at

    @property
    def substitute(self) -> str:
        """The model that is offered where the cap is reached."""
        return "" if self.on_exceed == "deny" else self.on_exceed.use_model
