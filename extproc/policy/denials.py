"""What a denied caller is told: complete sentences, client-safe, naming the policy.

Floor 1, pure. Formats put these into their dialects; nothing here knows one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from extproc.decision import Charge, ChargeOutcome, LimitState, PolicyRef, Reason, Unit
from extproc.model import AIRequest, TokenEstimate

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
        Unit.COST_USD: "nano-dollars",
        Unit.CONCURRENT_REQUESTS: "requests at once",
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


def failed(policy: PolicyRef) -> str:
    """An expression failed and `onError` says deny."""
    return f"{policy} could not be evaluated for this request, and denies it then."


def store_unavailable(policy: PolicyRef) -> str:
    """Nobody can say what was used, and `onError` says deny."""
    return f"{policy} cannot be checked at the moment: its counters do not answer."


DEADLINE = "The policy decision took too long and was given up."
AUDIT = "This gateway cannot put its decisions on record at the moment, and lets nothing pass without."


def rate_limited(state: LimitState, charge: Charge) -> str:
    """A limit is full for now. The last sentence is OpenAI's, which several clients read."""
    limit = f"{charge.window.amount} per {duration(charge.window.per_us)}"
    burst = f" (at most {charge.window.size} at once)" if charge.window.size != charge.window.amount else ""
    return (
        f"Rate limit reached: {charge.policy} on {_NOUNS[charge.unit]}. Limit {limit}{burst}, "
        f"Used {state.used}, Requested {state.requested}. Please try again in {wait(state.wait_ms or 0)}."
    )


def never_fits(charge: Charge, request: AIRequest | None, tokens: TokenEstimate) -> str:
    """More than a limit ever holds: waiting is no use, a smaller request may be."""
    needs = (
        f"This request needs {charge.minimum} {_NOUNS[charge.unit]}, and {charge.policy} never holds more "
        f"than {charge.window.size}. Trying again does not help"
    )
    ceiling = _largest_ceiling(charge, request, tokens)
    if ceiling is None:
        return f"{needs}; a shorter input would."
    return f"{needs}; an output limit (max_tokens) of at most {ceiling} would."


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
        window_s=charge.window.per_us / 1_000_000,
        used=outcome.used,
        requested=charge.minimum,
        reserved=outcome.reserved,
        remaining=outcome.remaining,
        reset_ms=_milliseconds(outcome.reset_us),
        wait_ms=None if outcome.wait_us is None else _milliseconds(outcome.wait_us),
        key=charge.key,
    )


def _milliseconds(us: int) -> int:
    """Rounded up: a caller who waits this long is not early."""
    return -(-us // 1000)


def _for_model(model: str) -> str:
    """The model's name as the caller wrote it, where it looks like one."""
    is_name = 0 < len(model) <= _SHOWN_MODEL_CHARACTERS and model.isprintable()
    return f' for model "{model}"' if is_name else ""


def _largest_ceiling(charge: Charge, request: AIRequest | None, tokens: TokenEstimate) -> int | None:
    """The largest output ceiling of one choice that would fit an empty limit; None if none would."""
    if request is None or charge.unit not in (Unit.TOKENS, Unit.OUTPUT_TOKENS):
        return None
    given = tokens.input if charge.unit is Unit.TOKENS else 0
    ceiling = (charge.window.size - given) // max(1, request.choices)
    return ceiling if ceiling > 0 else None
