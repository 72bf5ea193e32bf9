"""What answers of every dialect tell a client about waiting and about limits.

Floor 1, pure. Which headers a dialect has is its own business; the arithmetic is here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime

from extproc.decision import Denial, LimitState, Unit

DECISION_ID_HEADER = "x-ai-policy-decision-id"

# The anthropic SDK honours up to 60 s and else backs off for its own, shorter time; older openai
# SDKs do the same. A longer wait is therefore no retry at all.
MAX_RETRY_MS = 60_000

_MS = 1000
_NANO = 1_000_000_000
_MINUTE_MS = 60 * _MS
_HOUR_MS = 60 * _MINUTE_MS
_LAST_SECOND = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())


def denial_headers(denial: Denial) -> dict[str, str]:
    """The headers every denial carries: its type, its decision, and whether to try again."""
    headers = {"content-type": "application/json"} | request_id(DECISION_ID_HEADER, denial)
    if denial.retry_after_ms is not None:
        wait_ms = max(1, denial.retry_after_ms)
        headers["retry-after"] = str(retry_after_s(wait_ms))
        headers["retry-after-ms"] = str(wait_ms)
    if not waiting_helps(denial):
        headers["x-should-retry"] = "false"
    return headers


def request_id(header: str, denial: Denial) -> dict[str, str]:
    """The decision's id in the header where a dialect's SDKs look for that of a request."""
    return {header: ascii_only(denial.decision_id)} if denial.decision_id else {}


def facts(denial: Denial) -> dict[str, object]:
    """What the message says, as fields for programs: the same in every dialect.

    Seconds, dollars and whole tokens or requests; `reset` is when the limit is whole again, RFC 3339.
    """
    told: dict[str, object] = {"reason": str(denial.reason)}
    if denial.decision_id:
        told["decision_id"] = denial.decision_id
    if denial.policy is not None:
        told["policy"] = str(denial.policy)
    if denial.retry_after_ms is not None:
        told["retry_after"] = retry_after_s(denial.retry_after_ms)
    return told if denial.limit is None else told | _limit_facts(denial.limit, denial.at_ns)


def _limit_facts(limit: LimitState, at_ns: int) -> dict[str, object]:
    amounts = {"limit": limit.limit, "used": limit.used, "requested": limit.requested}
    told: dict[str, object] = {"unit": str(limit.unit)}
    if limit.unit is Unit.COST_USD:
        told |= {name: amount / _NANO for name, amount in amounts.items()}
    else:
        told |= amounts
    # What is counted at once is whole again when others end, and nobody knows when that is.
    if at_ns and limit.window_s:
        told["reset"] = moment(at_ns / _NANO, limit.reset_ms)
    return told


def retry_after_s(wait_ms: int) -> int:
    """Whole seconds, rounded up and never none: a client that waits as long is not early."""
    return max(1, math.ceil(wait_ms / _MS))


def waiting_helps(denial: Denial) -> bool:
    """Whether a client may try again by itself: soon enough for its SDK to wait."""
    return denial.retry_after_ms is not None and denial.retry_after_ms <= MAX_RETRY_MS


def told(denial: Denial) -> str:
    """The message with the decision to ask about, where there is one."""
    return f"{denial.message} (decision {denial.decision_id})" if denial.decision_id else denial.message


def tightest(limits: tuple[LimitState, ...], names: Mapping[Unit, str]) -> dict[str, LimitState]:
    """The limit with the smallest share left, of each name that a dialect has for units.

    No dialect has a name for money, or for requests at once.
    """
    chosen: dict[str, LimitState] = {}
    for limit in limits:
        name = names.get(limit.unit, "")
        if name and (name not in chosen or _share_left(limit) < _share_left(chosen[name])):
            chosen[name] = limit
    return chosen


def _share_left(limit: LimitState) -> float:
    return limit.remaining / limit.limit if limit.limit > 0 else 0.0


def remaining(limit: LimitState) -> str:
    """What is left, never below zero: debt is nobody's budget."""
    return str(max(0, limit.remaining))


def duration(ms: int) -> str:
    """A duration as OpenAI writes it: `12ms`, `51.189s`, `6m0s`, `1h0m0s`."""
    if ms < _MS:
        return f"{max(0, ms)}ms"
    hours, rest = divmod(ms, _HOUR_MS)
    minutes, rest = divmod(rest, _MINUTE_MS)
    seconds = f"{rest / _MS:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def moment(now_s: float, ms: int) -> str:
    """`ms` after `now_s` (Unix time) as RFC 3339 in UTC, rounded up to whole seconds."""
    at_s = min(_LAST_SECOND, math.ceil(now_s + ms / _MS))
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ascii_only(text: str) -> str:
    """A header value: visible ASCII and spaces, anything else as `?`."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)
