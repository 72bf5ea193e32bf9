"""A limit's sum as a person does it: used, requested, left, and when there is room again.

Floor 3, but pure.
"""

from __future__ import annotations

from extproc.decision import (
    CalendarWindow,
    Charge,
    Effect,
    Finding,
    Leases,
    LimitState,
    SlidingWindow,
    TokenBucket,
    Unit,
)
from extproc.policy.denials import duration
from extproc.questions import figures
from extproc.questions.explained import Arithmetic, KeyPart
from extproc.questions.known import Source, zone_name, zone_of


def arithmetic(state: LimitState, finding: Finding, known: Source) -> Arithmetic:
    """The sum of one limit, as the policy of this finding met it."""
    left = state.remaining + state.reserved
    charge = known.charges.get(finding.policy)
    is_full = finding.effect is Effect.DENY
    # What is in flight ends when it does: how long to wait then is a guess, and no time is promised.
    waits = is_full and state.wait_ms is not None and state.unit is not Unit.CONCURRENT_REQUESTS
    room_at_us = known.decided_at_us + (state.wait_ms or 0) * 1_000 if waits else None
    too_many = max(0, state.requested - left)
    return Arithmetic(
        line=_sum(state, charge, left, too_many, room_at_us, is_full=is_full),
        unit=state.unit,
        limit=state.limit,
        window=window(charge, state.window_s),
        window_s=state.window_s,
        used=state.used,
        requested=state.requested,
        reserved=state.reserved,
        left=left,
        too_many=too_many,
        remaining=state.remaining,
        reset_ms=state.reset_ms,
        wait_ms=state.wait_ms,
        room_at_us=room_at_us,
        key=_key(known.spec(finding.policy).keys, state.key),
    )


def _sum(
    state: LimitState,
    charge: Charge | None,
    left: int,
    too_many: int,
    room_at_us: int | None,
    *,
    is_full: bool,
) -> str:
    """The sum as a person does it."""
    unit = state.unit

    def number(amount: int) -> str:
        return figures.number(unit, amount)

    per = window(charge, state.window_s)
    said = f"used {number(state.used)} of {figures.quantity(unit, state.limit)}{f' {per}' if per else ''}"
    if not is_full:
        takes = (
            f"this request set {number(state.reserved)} aside, {number(state.remaining)} left"
            if state.reserved
            else f"requested {number(state.requested)}, {number(left)} left: nothing was taken"
        )
        return f"{said}, {takes}"
    many = "much" if unit is Unit.COST_USD else "many"
    said += f", requested {number(state.requested)}, {number(left)} left: {number(too_many)} too {many}"
    if state.wait_ms is None:
        return f"{said}; more than it ever holds, so waiting does not help"
    if room_at_us is None:
        return f"{said}; room again once one of them ends"
    when = figures.time(room_at_us, zone_of(charge))
    return f"{said}; room again in {figures.span(state.wait_ms)}, at {when}"


def window(charge: Charge | None, window_s: float) -> str:
    """How the amount comes back, in words."""
    if charge is None:
        return f"per {duration(int(window_s * 1_000_000))}" if window_s else ""
    match charge.window:
        case TokenBucket(amount=amount, per_us=per_us, burst=burst):
            refill = f"refilled by {figures.number(charge.unit, amount)} per {duration(per_us)}"
            return f"per {duration(per_us)}" if amount == burst else f"at once ({refill})"
        case SlidingWindow(per_us=per_us):
            return f"in any {duration(per_us)}"
        case CalendarWindow(period=period):
            return f"per {period} ({zone_name(charge)})"
        case Leases():
            return ""


def _key(names: tuple[str, ...], values: tuple[str, ...]) -> tuple[KeyPart, ...]:
    if len(names) != len(values):
        names = ("",) * len(values)
    return tuple(KeyPart(expression=name, value=value) for name, value in zip(names, values, strict=True))
