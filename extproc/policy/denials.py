"""What a denied caller is told: complete sentences, client-safe, naming the policy.

Floor 1, pure. Formats put these into their dialects; nothing here knows one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo
from types import MappingProxyType
from typing import Final

from extproc.decision import (
    CalendarWindow,
    ChargeOutcome,
    Leases,
    LimitState,
    PolicyRef,
    Reason,
    SlidingWindow,
    TokenBucket,
    Unit,
    Window,
)
from extproc.formats.advice import MAX_RETRY_MS
from extproc.policy import money
from extproc.policy.calendar import moment

UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
CONTENT_TOO_LARGE: Final = 413
TOO_MANY_REQUESTS: Final = 429
UNAVAILABLE: Final = 503

_SHOWN_MODEL_CHARACTERS = 64
_NOUNS: Mapping[Unit, str] = MappingProxyType(
    {
        Unit.REQUESTS: "requests",
        Unit.TOKENS: "tokens",
        Unit.INPUT_TOKENS: "input tokens",
        Unit.OUTPUT_TOKENS: "output tokens",
        Unit.COST_USD: "cost",
        Unit.CONCURRENT_REQUESTS: "requests at once",
    }
)
_FULL: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.RATE_LIMITED: "Rate limit reached",
        Reason.CAP_REACHED: "Usage cap reached",
        Reason.CONCURRENCY_LIMITED: "Concurrency limit reached",
    }
)
_IDENTITY: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.CREDENTIAL_MISSING: "{policy} needs {wanted} and found none.",
        Reason.CREDENTIAL_INVALID: "{policy} does not know the API key of this request.",
        Reason.CREDENTIAL_EXPIRED: "{policy} refuses the API key of this request: it has expired.",
        Reason.CREDENTIAL_DISABLED: "{policy} refuses the API key of this request: it is disabled.",
    }
)


def identity(policy: PolicyRef, reason: Reason, wanted: str) -> tuple[int, str]:
    """Status and message for a caller who is not known; `wanted` is what would have done."""
    status = UNAUTHORIZED if reason is Reason.CREDENTIAL_MISSING else FORBIDDEN
    return status, _IDENTITY[reason].format(policy=policy, wanted=wanted)


def access_denied(policy: PolicyRef, model: str, message: str) -> str:
    """A rule said deny; `message` is its author's."""
    return f"{policy} denies this request{_for_model(model)}{f': {message}' if message else '.'}"


def access_not_granted(policy: PolicyRef, model: str) -> str:
    """No rule said allow."""
    return f"No AccessRule allows this request{_for_model(model)}, and {policy} denies what no rule allows."


def unclassified(policy: PolicyRef) -> str:
    """The request is no AI request that we know."""
    return f"This is no AI request that this gateway can classify, and {policy} denies those."


def body_too_large(policy: PolicyRef, size_bytes: int, limit_bytes: int) -> str:
    """The announced body is over the limit."""
    return f"The request body has {size_bytes} bytes; {policy} accepts at most {limit_bytes}."


def failed(policy: PolicyRef, why: str = "") -> str:
    """A policy could not be evaluated, for instance because an expression failed, and `onError` says deny."""
    told = f"{policy} could not be evaluated for this request, and denies it then."
    return f"{told} {why}" if why else told


def store_unavailable(policy: PolicyRef) -> str:
    """Nobody can say what was used, and `onError` says deny."""
    return f"{policy} cannot be checked at the moment: its counters do not answer."


DEADLINE = "The policy decision took too long and was given up."
AUDIT = "This gateway cannot put its decisions on record at the moment, and lets nothing pass without."


def unpriced(policy: PolicyRef, model: str) -> str:
    """A limit on money, and nobody knows what the request costs."""
    return f"{policy} counts dollars, and no price is known{_for_model(model)}."


def full(reason: Reason, outcome: ChargeOutcome, *, per: str, at_us: int, zone: tzinfo) -> str:
    """A limit has no room for this request now, and will have.

    `per` names the window in words, `at_us` is now. "Please try again in" is OpenAI's sentence, which
    several clients read and follow: it is there where they can.
    """
    state = limit_state(outcome)
    unit, policy = outcome.charge.unit, outcome.charge.policy
    said = (
        f"{_FULL[reason]}: {policy} on {_NOUNS[unit]}. Limit {_limit(outcome)} {per}{_burst(outcome)}, "
        f"Used {number(unit, state.used)}, Requested {number(unit, state.requested)}."
    )
    wait_ms = state.wait_ms or 0
    if reason is Reason.CAP_REACHED:
        said += f" {_again(outcome, at_us, zone)}"
        if wait_ms > MAX_RETRY_MS:
            return said
    return f"{said} Please try again in {wait(wait_ms)}."


def nearly_full(outcome: ChargeOutcome, spent: int, *, per: str, zone: tzinfo) -> str:
    """A warning for the caller whose request passes: `spent` includes what it and others have set aside."""
    window, limit, unit = outcome.charge.window, outcome.limit, outcome.charge.unit
    until = f"until {moment(window.edges_us[2], zone)}" if isinstance(window, CalendarWindow) else per
    share = 100 * spent // limit
    return f"{outcome.charge.policy}: {share} % of {quantity(unit, limit)} used or set aside {until}"


def never_fits(outcome: ChargeOutcome, ceiling: int | None) -> str:
    """More than a limit ever holds: waiting is no use, a smaller request may be.

    `ceiling` is the largest output limit of one choice that would fit; None: none would.
    """
    unit = outcome.charge.unit
    needs = (
        f"This request needs {quantity(unit, outcome.charge.minimum)}, and {outcome.charge.policy} never "
        f"holds more than {number(unit, outcome.limit)}. Trying again does not help"
    )
    if ceiling is None:
        return f"{needs}; a shorter input would."
    return f"{needs}; an output limit (max_tokens) of at most {ceiling} would."


def number(unit: Unit, amount: int) -> str:
    """An amount without its noun; money is dollars."""
    return money.written(amount) if unit is Unit.COST_USD else str(amount)


def quantity(unit: Unit, amount: int) -> str:
    """An amount with its noun; money has its sign for one."""
    return number(unit, amount) if unit is Unit.COST_USD else f"{amount} {_NOUNS[unit]}"


def _limit(outcome: ChargeOutcome) -> str:
    """What the window is refilled to, or never exceeds."""
    window = outcome.charge.window
    amount = window.amount if isinstance(window, TokenBucket) else outcome.limit
    return number(outcome.charge.unit, amount)


def _burst(outcome: ChargeOutcome) -> str:
    """What a bucket holds at once, where that is another number than what it is refilled with."""
    window = outcome.charge.window
    if not isinstance(window, TokenBucket) or window.amount == outcome.limit:
        return ""
    return f" (at most {number(outcome.charge.unit, outcome.limit)} at once)"


def _again(outcome: ChargeOutcome, at_us: int, zone: tzinfo) -> str:
    """When there is room, as a time: nobody waits a month by the second."""
    then_us = at_us + (outcome.wait_us or 0)
    window = outcome.charge.window
    if isinstance(window, CalendarWindow):
        # Of the edges the one that is meant: the store's clock may differ a little from ours.
        edge_us = min(window.edges_us, key=lambda edge_us: abs(edge_us - then_us))
        return f"It resets at {moment(edge_us, zone)}."
    return f"There is room for this request at {moment(then_us, zone)}."


def wait(wait_ms: int) -> str:
    """A time as OpenAI's sentence has it: 120ms, 45.19s. Never minutes: clients would misread them."""
    return f"{wait_ms}ms" if wait_ms < 1000 else f"{f'{wait_ms / 1000:.3f}'.rstrip('0').rstrip('.')}s"  # noqa: PLR2004  ms in a second


def duration(us: int) -> str:
    """A window as policy files write it: the largest unit that divides it."""
    for unit, length in (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000)):
        if us % length == 0:
            return f"{us // length}{unit}"
    return f"{us // 1000}ms"


def limit_state(outcome: ChargeOutcome) -> LimitState:
    """What a store answered, in the words of answers and records."""
    charge = outcome.charge
    return LimitState(
        unit=charge.unit,
        limit=outcome.limit,
        window_s=_window_us(charge.window) / 1_000_000,
        used=outcome.used,
        requested=charge.minimum,
        reserved=outcome.reserved,
        remaining=outcome.remaining,
        reset_ms=_milliseconds(outcome.reset_us),
        wait_ms=None if outcome.wait_us is None else _milliseconds(outcome.wait_us),
        key=charge.key,
    )


def _window_us(window: Window) -> int:
    match window:
        case TokenBucket() | SlidingWindow():
            return window.per_us
        case CalendarWindow():
            return window.edges_us[2] - window.edges_us[1]
        case Leases():
            return 0  # at once


def _milliseconds(us: int) -> int:
    """Rounded up: a caller who waits this long is not early."""
    return -(-us // 1000)


def _for_model(model: str) -> str:
    """The model's name as the caller wrote it, where it looks like one."""
    is_name = 0 < len(model) <= _SHOWN_MODEL_CHARACTERS and model.isprintable()
    return f' for model "{model}"' if is_name else ""
